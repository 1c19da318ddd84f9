"""Reads one image file of any usual kind into (H, W, 3) uint8 RGB, upright and contiguous.

Training, validation and prediction all follow these rules:

- EXIF orientation is applied (JPEG, PNG, WebP, TIFF), so height and width are those that a viewer shows.
- 16-bit samples keep the upper 8 of the bits that they use (see `depth.py`).  Floating-point samples are an error,
  because their range is unknown.
- Transparent images are laid over white, as in a browser, so RGB values hidden under alpha 0 never appear.
- An animation or a multi-page file gives its first picture.
- A JPEG that ends early is used with a warning, and its missing rows are grey.  If nearly all rows are missing, it is
  an error.  One whose picture data are corrupt is used with a warning too.
- The only size limit is `MAX_PIXELS`; Pillow's own limit (about 180 megapixels) applies only to WebP.

OpenCV reads plain JPEGs that have been read before, because it is faster; Pillow reads everything else, and watches
JPEGs (see `jpeg.py`).  Their pixels are the same.  Both release the GIL, and this file changes no global setting of
either library, so `read_image` may run in any number of threads.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from gfldet.data.arrays import to_rgb_uint8
from gfldet.data.depth import Depth
from gfldet.data.jpeg import SCAN, WatchedJpeg, decode_fast, is_watchable, rows_before_fill, segments
from gfldet.data.kinds import is_avif, is_jpeg2000, tiff_bands, unknown_kind
from gfldet.data.orientation import orientation, turn, turn_back
from gfldet.data.to_rgb import Unusable, first_line, pillow_to_rgb
from gfldet.errors import DataError
from gfldet.files import Unreadable, contents, exists, is_root, opened
from gfldet.machine.memory import free_memory

Warn = Callable[[str], None]

IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in [
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "bmp", "dib", "webp", "tif", "tiff", "gif", "ppm", "pgm", "pbm"),
        *("avif", "jp2", "j2k", "jpx"),  # readable if Pillow was built so
        # Not readable here.  They are listed so that they give an error instead of being skipped.
        *("heic", "heif", "jxl"),
    ]
)
MAX_PIXELS = 2**30  # 3 GB as RGB; a header that declares more is probably broken
LARGE = 1 << 26  # pixels; whether so many and more fit into the free memory is asked before they are decoded
PER_PIXEL = 7  # bytes: 4 of Pillow's picture, 3 of ours
PER_WIDE_PIXEL = 11  # 8 of OpenCV's picture of four 16-bit channels, 3 of ours
MAX_ENTRIES = 2_000_000  # files and folders that are looked through for images
MIN_ROWS_LEFT = 0.1  # share of the rows that a JPEG that ends early must still hold

_MISSING = "does not exist"
_EMPTY = "is empty (0 bytes); replace or remove it"


class ImageError(DataError):
    """One image that cannot be used.  `path` and `reason` are separate, so that a message can list many images."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


def read_image(path: str | Path, warn: Warn | None = None, depth: Depth | None = None) -> NDArray[np.uint8]:
    """The image in `path` as (H, W, 3) uint8 RGB, upright, contiguous and writable.

    `warn` gets one sentence, with the path, if the file is damaged but usable; without it less is looked for.  `depth`
    tells how to take 16-bit samples, and afterwards how many bits they use.
    Raises ImageError if the file is missing or empty, has an unknown format, or cannot be decoded.
    """
    data = _read_bytes(path)
    depth = depth or Depth()
    try:
        if data.startswith(b"\xff\xd8"):
            return _read_jpeg(path, data, warn)
        image = _open_pillow(io.BytesIO(data))
        if _is_large_tiff(image):
            return _large_tiff(image, data, depth)
        shallow = _shallow_colour(image, data, depth)
        if shallow is not None:
            return shallow
        del data  # Pillow lets go of it too once it has decoded it, which leaves room for the result
        return pillow_to_rgb(image, depth)
    except ImageError:
        raise
    except Unusable as error:
        raise ImageError(path, str(error)) from None
    except Exception as error:  # decoders raise nearly every type on damaged bytes
        raise ImageError(path, f"cannot be decoded ({first_line(error)}); replace or remove it") from error


def probe_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in px of the upright image, without its pixels; raises ImageError like `read_image`."""
    with _header(path) as image:
        width, height = image.size
        # Newer versions of Pillow apply the orientation to the size of a TIFF when they open it, but only of a TIFF.
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            width, height = image.tag_v2[256], image.tag_v2[257]
        return (height, width) if orientation(image) >= 5 else (width, height)


def check_header(path: str | Path) -> None:
    """Raises ImageError if the first bytes already show that `read_image` will fail: missing, empty or not an image."""
    with _header(path):
        pass


def find_images(folder: Path, recursive: bool = True) -> list[Path]:
    """Files below `folder` with the suffix of an image, in a stable order; names that start with a dot are skipped."""
    return find_files(folder, IMAGE_SUFFIXES, recursive)


def find_files(folder: Path, suffixes: frozenset[str], recursive: bool = True) -> list[Path]:
    """Files below `folder` whose lower-case suffix is in `suffixes`, sorted; linked folders are followed once.

    Raises DataError for a folder that is, or leads to, the root of the whole file system, or that holds more than
    MAX_ENTRIES files and folders: to look through them would take minutes.
    """
    found: list[str] = []
    seen: set[str] = set()
    entries = 0
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if recursive and is_root(real):
            raise DataError(f"{here}: is the root of the file system; name the folder of the images")
        folders[:] = [] if real in seen or not recursive else sorted(f for f in folders if f[0] != ".")
        if real not in seen:
            some = (f for f in files if f[0] != "." and os.path.splitext(f)[1].lower() in suffixes)
            found += [os.path.join(here, f) for f in some]
        seen.add(real)
        entries += len(folders) + len(files)
        if entries > MAX_ENTRIES:
            raise DataError(
                f"{folder}: holds more than {MAX_ENTRIES:,} files and folders; name the folder of the images"
            )
    found.sort(key=lambda text: text.replace(os.sep, "/"))
    return [Path(text) for text in found]


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = contents(path)
    except Unreadable as error:
        raise ImageError(path, error.reason if exists(path) else _MISSING) from error
    if not data:
        raise ImageError(path, _EMPTY)
    return data


# ---------------------------------------------------------------- JPEG


def _read_jpeg(path: str | Path, data: bytes, warn: Warn | None) -> NDArray[np.uint8]:
    channels, scan = _jpeg_header(data)
    end = data.find(b"\xff\xd9", scan)
    if end < 0:  # no end marker after the pixels begin: the file ends early
        return _read_cut_jpeg(path, data, warn)
    if warn and is_watchable(data, scan, channels, end):
        watched = WatchedJpeg(data, end)
        upright = pillow_to_rgb(watched)
        if watched.corrupt:
            warn(f"{path}: the JPEG's picture data are corrupt, so part of it may be shifted or grey; look at it")
        return upright
    image = decode_fast(data) if channels in (1, 3) else None  # CMYK is for Pillow
    return pillow_to_rgb(_open_pillow(io.BytesIO(data))) if image is None else image


def _jpeg_header(data: bytes) -> tuple[int, int]:
    """(number of colour channels, offset of the first scan) of a JPEG."""
    channels = 0
    for marker, at in segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            _check_size(width, height)
            channels = data[at + 9]
        if marker == SCAN:
            return channels, at
    raise Unusable("is a JPEG without picture data (it ends inside its header); replace or remove it")


def _read_cut_jpeg(path: str | Path, data: bytes, warn: Warn | None) -> NDArray[np.uint8]:
    """Decodes what is there: with an end marker appended, Pillow fills the missing rows with grey and does not warn."""
    opened = JpegImagePlugin.JpegImageFile(io.BytesIO(data + b"\xff\xd9"))
    turned = orientation(opened)
    opened.load()
    upright = pillow_to_rgb(opened)
    stored = turn_back(upright, turned)
    left = rows_before_fill(stored) / stored.shape[0]
    if left < MIN_ROWS_LEFT:
        raise Unusable(f"is a JPEG that ends early: {1 - left:.0%} of its rows are missing; replace or remove it")
    missing = f"about {1 - left:.0%} of its rows are grey" if left < 1 else "no whole row is missing"
    if warn:
        warn(f"{path}: the JPEG ends too early; the part before its end is used ({missing})")
    return upright


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
    except Unusable as error:
        raise ImageError(path, str(error)) from None
    except Exception as error:  # as in `read_image`
        raise ImageError(path, f"cannot be read ({first_line(error)}); replace or remove it") from error


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
        image = _open_tiff(file)
    elif data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        image = PpmImagePlugin.PpmImageFile(file)
    elif is_jpeg2000(data) and features.check_codec("jpg_2000"):
        image = Jpeg2KImagePlugin.Jpeg2KImageFile(file)
    elif is_avif(data) and features.check("avif"):
        from PIL import AvifImagePlugin  # Pillow 11.3 and later

        image = AvifImagePlugin.AvifImageFile(file)
    else:
        raise Unusable(unknown_kind(data))
    _check_size(*image.size)
    return image


def _open_tiff(file: BinaryIO) -> Image.Image:
    """A TIFF; one of a number of bands that Pillow does not know is refused before Pillow prints about it."""
    bands = tiff_bands(file)
    reason = f"has {bands} bands; expected 1, 3 or 4: save those that are to be seen as RGB"
    if bands > TiffImagePlugin.MAX_SAMPLESPERPIXEL:
        raise Unusable(reason)
    file.seek(0)
    try:
        return TiffImagePlugin.TiffImageFile(file)
    except SyntaxError:  # how Pillow's readers refuse a file
        if bands in (1, 3, 4):
            raise
        raise Unusable(reason) from None


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise Unusable(f"declares {width} x {height} px; expected at least 1 x 1 and at most {MAX_PIXELS} px in total")
    _check_free(width, height, PER_PIXEL)


def _check_free(width: int, height: int, per_pixel: int) -> None:
    """Raises Unusable for a large image that takes more memory than is free, with `per_pixel` bytes of each."""
    need = per_pixel * width * height
    if width * height >= LARGE and need > free_memory():
        found = f"{need / 1e9:.1f} GB to read where {free_memory() / 1e9:.1f} GB are free"
        raise Unusable(f"declares {width} x {height} px, which take {found}; scale it down")


def _is_large_tiff(image: Image.Image) -> bool:
    """Whether Pillow would warn about the size, or refuse it, while decoding; it does so only for TIFFs."""
    limit = Image.MAX_IMAGE_PIXELS
    large = limit is not None and image.size[0] * image.size[1] > limit
    return large and isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode != "CMYK"


def _large_tiff(image: Image.Image, data: bytes, depth: Depth) -> NDArray[np.uint8]:
    if 16 in image.tag_v2.get(258, ()):  # type: ignore[attr-defined]
        _check_free(*image.size, per_pixel=PER_WIDE_PIXEL)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise Unusable(f"is a TIFF of {image.size[0]} x {image.size[1]} px that cannot be decoded")
    if pixels.dtype == np.uint8 and pixels.shape[2:] == (3,):
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, pixels), np.uint8)  # in place
    return to_rgb_uint8(pixels, depth=depth)  # OpenCV always applies the orientation of a TIFF, whatever the flags say


def _shallow_colour(image: Image.Image, data: bytes, depth: Depth) -> NDArray[np.uint8] | None:
    """A colour image whose 16-bit samples use fewer bits; None for all others.  Pillow keeps their high byte alone."""
    png = isinstance(image, PngImagePlugin.PngImageFile) and data[24] == 16 and data[25] in (2, 4, 6)
    tiff = (
        isinstance(image, TiffImagePlugin.TiffImageFile) and 16 in image.tag_v2.get(258, ()) and image.mode[0] in "RL"
    )
    if png or tiff:
        _check_free(*image.size, per_pixel=PER_WIDE_PIXEL)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if png or tiff else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or depth.look(pixels[..., :3]) == 16:
        return None
    rgb = to_rgb_uint8(pixels, depth=depth)  # OpenCV has turned a TIFF
    del pixels
    return rgb if tiff else np.ascontiguousarray(turn(rgb, orientation(image)))
