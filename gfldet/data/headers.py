"""The size of an image by its header, and whether that is all there is to check before the image is decoded.

A file is plain if its header leaves nothing open and its end is there: a JPEG of 8 bits, or a PNG of up to 8 bits.  All
others are for `images.py`, which knows every kind.
"""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

from gfldet.data.images import ImageError, probe_size
from gfldet.data.jpeg import SCAN, segments
from gfldet.files import Unreadable, opened

Size = tuple[int, int]

HEADS = (4096, 1 << 18)  # bytes: where most headers end, and those with a thumbnail or a colour profile
TAIL = 32  # bytes at the end, among which that of the picture is; some programs fill up behind it
MAX_SIDE = 1 << 13  # px; a larger picture is decoded at once, where it is seen whether there is memory for it
MAX_CHUNKS = 20_000  # of a PNG
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_MAY_TURN = (b"eXIf", b"iTXt", b"zTXt", b"tEXt")  # chunks of a PNG that may hold an orientation
_TEXTS = (b"Software\0", b"Comment\0", b"date:", b"Title\0", b"Author\0", b"Creation Time\0", b"Description\0")


class _Header(NamedTuple):
    """What a JPEG or a PNG tells at its beginning: its size as it is stored, whether it is plain, whether it may be
    turned."""

    size: Size
    plain: bool
    turned: bool


def plain_size(path: str) -> Size | None:
    """(width, height) in px of a plain file, upright; None for all others, also those that are missing or damaged."""
    header = _header(path)
    return _upright(path, header) if header and header.plain else None


def header_size(path: str) -> Size | None:
    """(width, height) in px of any image, upright; None where its header cannot be read."""
    return _upright(path, _header(path))


def _upright(path: str, header: _Header | None) -> Size | None:
    try:
        return probe_size(path) if header is None or header.turned else header.size
    except ImageError:
        return None


def _header(path: str) -> _Header | None:
    try:
        with opened(path) as file:
            head = file.read(HEADS[0])
            if head.startswith(b"\xff\xd8"):
                header = _of_jpeg(file, head)
            else:
                header = _of_png(file, head) if head.startswith(_PNG) else None
    except (Unreadable, OSError):
        return None
    return header if header and min(header.size) > 0 and max(header.size) <= MAX_SIDE else None


def _of_jpeg(file: BinaryIO, head: bytes) -> _Header | None:
    if len(head) == HEADS[0] and all(marker != SCAN for marker, _ in segments(head)):
        head += file.read(HEADS[1] - len(head))
    size, plain, turned = (0, 0), False, False
    for marker, at in segments(head):
        turned |= marker == 0xE1  # EXIF or XMP
        if marker in (0xC0, 0xC1, 0xC2) and at + 10 <= len(head):
            size = int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
            plain = head[at + 4] == 8 and head[at + 9] in (1, 3)
        if marker == SCAN:
            return _Header(size, plain and b"\xff\xd9" in _tail(file, head), turned)
    return None


def _of_png(file: BinaryIO, head: bytes) -> _Header | None:
    if len(head) < 33 or head[12:16] != b"IHDR":
        return None
    size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    plain, at = head[24] <= 8 and _tail(file, head).endswith(_PNG_END), 33
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        start = file.read(24)
        if start[4:8] == b"IEND":
            return _Header(size, plain, False)
        if len(start) < 24 or (start[4:8] in _MAY_TURN and not start[8:].startswith(_TEXTS)):
            return None
        at += 12 + int.from_bytes(start[:4], "big")
    return None


def _tail(file: BinaryIO, head: bytes) -> bytes:
    if len(head) < HEADS[0]:  # that is the whole file
        return head[-TAIL:]
    file.seek(max(0, file.seek(0, 2) - TAIL))
    return file.read(TAIL)
