"""Reads one image file of any usual kind into (H, W, 3) uint8 RGB, upright and contiguous.

Training, validation and prediction all follow these rules:

- EXIF orientation is applied (JPEG, PNG, WebP, TIFF), so height and width are those that a viewer shows.
- 16-bit samples keep their high byte (`>> 8`).  Floating-point samples are an error, because their range is unknown.
- Transparent images are laid over white, as in a browser, so RGB values hidden under alpha 0 never appear.
- An animation or a multi-page file gives its first picture.
- A JPEG that ends early is used with a warning, and its missing rows are grey.  If nearly all rows are missing, it is
  an error.
- The only size limit is `MAX_PIXELS`; Pillow's own limit (about 180 megapixels) applies only to WebP.

OpenCV reads plain JPEGs, because it is twice as fast; Pillow reads everything else.  Both release the GIL, and this
file changes no global setting of either library, so `read_image` may run in any number of threads.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from gfldet.errors import DataError, shown
from gfldet.files import Unreadable, contents, exists, opened
from gfldet.machine import free_memory

Warn = Callable[[str], None]

IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in [
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "bmp", "dib", "webp", "tif", "tiff", "gif", "ppm", "pgm", "pbm"),
        # Not readable here.  They are listed so that they give an error instead of being skipped.
        *("heic", "heif", "avif", "jp2", "jxl"),
    ]
)
MAX_PIXELS = 2**30  # 3 GB as RGB; a header that declares more is probably broken
LARGE = 1 << 26  # pixels; whether so many and more fit into the free memory is asked before they are decoded
PER_PIXEL = 7  # bytes: 4 of Pillow's picture, 3 of ours
STRIP = 1 << 20  # pixels that are converted at a time
MIN_ROWS_LEFT = 0.1  # share of the rows that a JPEG that ends early must still hold

_READABLE = "JPEG, PNG, BMP, WebP, TIFF, GIF or PNM"
_MISSING = "does not exist"
_EMPTY = "is empty (0 bytes); replace or remove it"
_MODES_16BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class ImageError(DataError):
    """One image that cannot be used.  `path` and `reason` are separate, so that a message can list many images."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


def read_image(path: str | Path, warn: Warn | None = None) -> NDArray[np.uint8]:
    """The image in `path` as (H, W, 3) uint8 RGB, upright, contiguous and writable.

    `warn` gets one sentence, with the path, if the file is damaged but usable.
    Raises ImageError if the file is missing or empty, has an unknown format, or cannot be decoded.
    """
    data = _read_bytes(path)
    tell = warn or _ignore
    try:
        if data.startswith(b"\xff\xd8"):
            return _read_jpeg(path, data, tell)
        image = _open_pillow(io.BytesIO(data))
        return _large_tiff(image, data) if _is_large_tiff(image) else _pillow_to_rgb(image)
    except ImageError:
        raise
    except _Unusable as error:
        raise ImageError(path, str(error)) from None
    except Exception as error:  # decoders raise nearly every type on damaged bytes
        raise ImageError(path, f"cannot be decoded ({_first_line(error)}); replace or remove it") from error


def probe_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in px of the upright image, without its pixels; raises ImageError like `read_image`."""
    with _header(path) as image:
        width, height = image.size
        # Newer versions of Pillow apply the orientation to the size of a TIFF when they open it, but only of a TIFF.
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            width, height = image.tag_v2[256], image.tag_v2[257]
        return (height, width) if _orientation(image) >= 5 else (width, height)


def check_header(path: str | Path) -> None:
    """Raises ImageError if the first bytes already show that `read_image` will fail: missing, empty or not an image."""
    with _header(path):
        pass


def to_rgb_uint8(image: NDArray[Any] | Image.Image, what: str = "image") -> NDArray[np.uint8]:
    """An array or PIL image in memory as (H, W, 3) uint8 RGB, contiguous.

    Arrays follow OpenCV: (H, W), (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4), of uint8, uint16 (`>> 8`) or bool.
    PIL images follow the rules at the top of this file, EXIF orientation included.
    Raises DataError, naming `what`, for any other shape or type.
    """
    if isinstance(image, Image.Image):
        try:
            return _pillow_to_rgb(image)
        except _Unusable as error:
            raise DataError(f"{what}: {error}") from None
        except OSError as error:  # PIL opened the file lazily, and the file is damaged
            raise DataError(f"{what}: cannot be decoded ({_first_line(error)})") from error
    check_array(image, what)
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    elif image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    image = image if image.ndim == 3 else image[..., None]
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if image.shape[2] == 4:
        return _over_white(Image.fromarray(np.ascontiguousarray(image[..., [2, 1, 0, 3]]), "RGBA"))
    return np.ascontiguousarray(image[..., ::-1])


def check_array(image: NDArray[Any], what: str) -> None:
    """Raises DataError, naming `what`, unless `to_rgb_uint8` accepts the array."""
    shape = getattr(image, "shape", None)
    if not isinstance(image, np.ndarray):
        raise DataError(f"{what}: expected a numpy array or a PIL image, got {type(image).__name__}")
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise DataError(
            f"{what}: expected an array of shape (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, got {shape}; "
            "give several images as a list"
        )
    if image.dtype not in (np.uint8, np.uint16, np.bool_):
        raise DataError(f"{what}: expected samples of uint8, uint16 or bool, got {image.dtype}; scale them to 0..255")


def find_images(folder: Path, recursive: bool = True) -> list[Path]:
    """Files below `folder` with the suffix of an image, in a stable order; names that start with a dot are skipped."""
    return find_files(folder, IMAGE_SUFFIXES, recursive)


def find_files(folder: Path, suffixes: frozenset[str], recursive: bool = True) -> list[Path]:
    """Files below `folder` whose lower-case suffix is in `suffixes`, sorted; linked folders are followed once."""
    found: list[Path] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen or not recursive else sorted(f for f in folders if f[0] != ".")
        if real not in seen:
            found += [Path(here, f) for f in files if f[0] != "." and os.path.splitext(f)[1].lower() in suffixes]
        seen.add(real)
    return sorted(found, key=lambda path: path.as_posix())


class _Unusable(Exception):
    """The reason, without the path, why bytes are not a usable image."""


def _ignore(message: str) -> None:
    """The default of `warn`: on a second reading of an image, the user has already seen the warning."""


def _first_line(error: Exception) -> str:
    return shown(f"{type(error).__name__}: {error}".splitlines()[0], 200, quoted=False)


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = contents(path)
    except Unreadable as error:
        raise ImageError(path, error.reason if exists(path) else _MISSING) from error
    if not data:
        raise ImageError(path, _EMPTY)
    return data


# ---------------------------------------------------------------- JPEG


def _read_jpeg(path: str | Path, data: bytes, warn: Warn) -> NDArray[np.uint8]:
    channels, scan = _jpeg_header(data)
    if data.rfind(b"\xff\xd9", scan) < 0:  # no end marker after the pixels begin: the file ends early
        return _read_cut_jpeg(path, data, warn)
    image = _cv2_decode(data) if channels in (1, 3) else None  # CMYK is for Pillow
    return _pillow_to_rgb(_open_pillow(io.BytesIO(data))) if image is None else image


def _jpeg_header(data: bytes) -> tuple[int, int]:
    """(number of colour channels, offset of the first scan) of a JPEG."""
    channels, at = 0, 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a body
            at += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            _check_size(width, height)
            channels = data[at + 9]
        if marker == 0xDA:
            return channels, at
        at += 2 + size
    raise _Unusable("is a JPEG without picture data (it ends inside its header); replace or remove it")


def _cv2_decode(data: bytes) -> NDArray[np.uint8] | None:
    buffer = np.frombuffer(data, np.uint8)
    if hasattr(cv2, "IMREAD_COLOR_RGB"):  # OpenCV 4.11 and later; saves a pass over the pixels
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB)
    else:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
        image = image if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return None if image is None else np.ascontiguousarray(image, np.uint8)


def _read_cut_jpeg(path: str | Path, data: bytes, warn: Warn) -> NDArray[np.uint8]:
    """Decodes what is there: with an end marker appended, Pillow fills the missing rows with grey and does not warn."""
    opened = JpegImagePlugin.JpegImageFile(io.BytesIO(data + b"\xff\xd9"))
    turned = _orientation(opened)
    opened.load()
    upright = _pillow_to_rgb(opened)
    stored = _turn_back(upright, turned)
    left = _rows_before_fill(stored) / stored.shape[0]
    if left < MIN_ROWS_LEFT:
        raise _Unusable(f"is a JPEG that ends early: {1 - left:.0%} of its rows are missing; replace or remove it")
    missing = f"about {1 - left:.0%} of its rows are grey" if left < 1 else "no whole row is missing"
    warn(f"{path}: the JPEG ends too early; the part before its end is used ({missing})")
    return upright


def _rows_before_fill(image: NDArray[np.uint8]) -> int:
    """Number of rows above the bottom rows of one single colour."""
    rows = len(image)
    while rows and (image[rows - 1] == image[-1, -1]).all():
        rows -= 1
    return rows


# ---------------------------------------------------------------- Pillow reads all other formats


@contextmanager
def _header(path: str | Path) -> Iterator[Image.Image]:
    """The image in `path`, opened but not decoded; every failure becomes an ImageError."""
    try:
        with opened(path) as file:
            if not file.read(1):
                raise ImageError(path, _EMPTY)
            yield _open_pillow(file)
    except ImageError:
        raise
    except Unreadable as error:
        raise ImageError(path, error.reason if exists(path) else _MISSING) from error
    except _Unusable as error:
        raise ImageError(path, str(error)) from None
    except Exception as error:  # as in `read_image`
        raise ImageError(path, f"cannot be read ({_first_line(error)}); replace or remove it") from error


def _open_pillow(file: BinaryIO) -> Image.Image:
    """Finds the format by the first bytes, not by the suffix.  Avoids `Image.open`, which warns about large images."""
    file.seek(0)
    data = file.read(64)
    file.seek(0)
    image: Image.Image
    if data.startswith(b"\xff\xd8"):
        image = JpegImagePlugin.JpegImageFile(file)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        image = PngImagePlugin.PngImageFile(file)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        image = GifImagePlugin.GifImageFile(file)
    elif data.startswith(b"BM"):
        image = BmpImagePlugin.BmpImageFile(file)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        image = WebPImagePlugin.WebPImageFile(file)
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        image = TiffImagePlugin.TiffImageFile(file)
    elif data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        image = PpmImagePlugin.PpmImageFile(file)
    else:
        raise _Unusable(_unknown_kind(data))
    _check_size(*image.size)
    return image


def _unknown_kind(data: bytes) -> str:
    if data.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image itself; run 'git lfs pull'"
    if data[4:8] == b"ftyp":
        kind = data[8:12].decode("ascii", "replace")
        return f"is a HEIC, AVIF or video file ({kind}); expected {_READABLE}: convert it"
    return f"is not a readable image (it begins with {data[:12]!r}); expected {_READABLE}"


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise _Unusable(f"declares {width} x {height} px; expected at least 1 x 1 and at most {MAX_PIXELS} px in total")
    if width * height >= LARGE and PER_PIXEL * width * height > free_memory():
        need, free = (f"{size / 1e9:.1f} GB" for size in (PER_PIXEL * width * height, free_memory()))
        raise _Unusable(
            f"declares {width} x {height} px, which take {need} to read where {free} are free; scale it down"
        )


def _pillow_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """A picture of Pillow's as (H, W, 3) uint8 RGB, upright.

    It is converted a few rows at a time, so that the memory is that of the two pictures and not of those in between.
    """
    image.load()
    # When Pillow loads a TIFF, it applies the orientation (some versions keep the tag).  It does so only for TIFFs.
    turn = 1 if isinstance(image, TiffImagePlugin.TiffImageFile) else _orientation(image)
    width, height = image.size
    upright = np.empty((width, height, 3) if turn >= 5 else (height, width, 3), np.uint8)
    stored, convert, rows = _turn_back(upright, turn), _converter(image), max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        stored[top : top + rows] = convert(strip)
    return upright


def _converter(image: Image.Image) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """What makes (h, W, 3) RGB of some rows of an image, by its colour mode."""
    mode = image.mode
    if mode in _MODES_16BIT:
        return lambda rows: _grey_to_rgb(np.asarray(rows).astype(np.uint16) >> 8)
    if mode == "I":  # 32-bit integers; older versions of Pillow open 16-bit grey PNGs in this mode
        low, high = image.getextrema()
        if low < 0 or high > 65535:  # type: ignore[operator]
            raise _Unusable(f"holds 32-bit samples from {low} to {high}; save it with 8 or 16 bits")
        return lambda rows: _grey_to_rgb(np.asarray(rows) >> 8)
    if mode == "F":
        raise _Unusable("holds floating-point samples, and their range is unknown; save it with 8 or 16 bits")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _over_white
    if mode == "RGB":
        return np.asarray
    try:
        image.crop((0, 0, 1, 1)).convert("RGB")
    except ValueError:
        raise _Unusable(f"has the colour mode {mode}, which cannot be turned into RGB; save it as RGB") from None
    return lambda rows: np.asarray(rows.convert("RGB"))


def _is_large_tiff(image: Image.Image) -> bool:
    """Whether Pillow would warn about the size, or refuse it, while decoding; it does so only for TIFFs."""
    limit = Image.MAX_IMAGE_PIXELS
    large = limit is not None and image.size[0] * image.size[1] > limit
    return large and isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode != "CMYK"


def _large_tiff(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise _Unusable(f"is a TIFF of {image.size[0]} x {image.size[1]} px that cannot be decoded")
    # OpenCV always applies the orientation of a TIFF, whatever the flags say
    if pixels.dtype == np.uint8 and pixels.shape[2:] == (3,):
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, pixels), np.uint8)  # in place
    height, width = pixels.shape[:2]
    rgb, rows = np.empty((height, width, 3), np.uint8), max(1, STRIP // width)
    for top in range(0, height, rows):
        rgb[top : top + rows] = to_rgb_uint8(pixels[top : top + rows])
    return rgb


def _over_white(image: Image.Image) -> NDArray[np.uint8]:
    over = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGBA", over.size, (255, 255, 255, 255))
    return np.array(Image.alpha_composite(white, over).convert("RGB"))


def _grey_to_rgb(grey: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 if the tag is missing or out of range, or if the EXIF block is broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a picture with a broken EXIF block is still usable; viewers ignore such a block too
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """From the stored pixels to the upright picture."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _turn_back(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The inverse of `_turn`: 6 and 8 undo each other, every other turn undoes itself."""
    return _turn(image, {6: 8, 8: 6}.get(orientation, orientation))
