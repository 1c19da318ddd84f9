"""What kind of file some bytes begin, where no image is read from them at once; what headers say of bands and depth."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import Image

READABLE = "JPEG, PNG, BMP, WebP, TIFF, GIF, PNM, JPEG 2000 or AVIF"
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1"})
_VIDEOS = (
    (b"FLV\x01", "FLV"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "ASF or WMV"),
    (b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (b"\x00\x00\x01\xba", "MPEG"),
    (b"OggS", "Ogg"),
)
_SAMPLES_PER_PIXEL = 277  # a tag of TIFF


def is_jpeg2000(data: bytes) -> bool:
    """Whether a file that begins so is JPEG 2000, in its container or as bare stream."""
    return data.startswith((b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"))


def is_avif(data: bytes) -> bool:
    """Whether a file that begins so is AVIF, of one picture or several."""
    return data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis")


def unknown_kind(data: bytes) -> str:
    """Why a file that begins so is no image that can be read here, and what to do."""
    if data.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image itself; run 'git lfs pull'"
    video = _video_kind(data)
    if video:
        return (
            f"is a video ({video}), not an image; to predict on it, give its name the suffix of a video, such as .mp4"
        )
    kind = next((name for name, known in _image_kinds(data) if known), "")
    if kind:
        return f"is {kind}, which cannot be read here; expected {READABLE}: convert it"
    return f"is not a readable image (it begins with {data[:12]!r}); expected {READABLE}"


def _image_kinds(data: bytes) -> tuple[tuple[str, bool], ...]:
    return (
        ("a HEIC image", data[4:8] == b"ftyp" and data[8:12] in _HEIC),
        ("a JPEG XL image", data.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL "))),
        ("an AVIF image", is_avif(data)),
        ("a JPEG 2000 image", is_jpeg2000(data)),
    )


def _video_kind(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] not in _HEIC and not is_avif(data):
        return data[8:12].decode("ascii", "replace").strip()
    if data.startswith(b"RIFF") and data[8:12] == b"AVI ":
        return "AVI"
    return next((name for start, name in _VIDEOS if data.startswith(start)), "")


def tiff_bands(file: BinaryIO) -> int:
    """Samples per pixel of the first picture of a TIFF; 1 if the tag is missing, or if the file is damaged."""
    try:
        start = file.read(16)
        order = "<" if start[:2] == b"II" else ">"
        big = struct.unpack_from(f"{order}H", start, 2)[0] == 43
        count, entry = ("Q", "HHQI4x") if big else ("H", "HHII")
        file.seek(struct.unpack_from(f"{order}Q", start, 8)[0] if big else struct.unpack_from(f"{order}I", start, 4)[0])
        (entries,) = struct.unpack(f"{order}{count}", file.read(struct.calcsize(f"={count}")))
        for _ in range(min(entries, 1000)):
            tag, kind, _, value = struct.unpack(f"{order}{entry}", file.read(struct.calcsize(f"={entry}")))
            if tag == _SAMPLES_PER_PIXEL:  # 16 bits lie in the upper half of a field of 32 that begins with it
                return int(value >> 16 if order == ">" and kind == 3 else value & 0xFFFF if kind == 3 else value)
    except (struct.error, OSError, OverflowError):
        pass
    return 1


def declares_depth(image: Image.Image) -> bool:
    """Whether the file says how many bits its samples have, so that Pillow has scaled them to 16 already."""
    return image.format == "JPEG2000" or (image.format == "PPM" and _decoder(image) != "raw")


def _decoder(image: Image.Image) -> str:
    """Pillow's name of what decodes an image that is opened and not yet loaded."""
    return next((str(tile[0]) for tile in getattr(image, "tile", ())), "raw")
