"""Finds out whether the picture data of a JPEG are as long as its picture, while it is decoded.

Where bytes within a JPEG are wrong, the decoder loses its place and goes on: then it ends before the data do, or has
too few of them.  libjpeg prints "Corrupt JPEG data" to the error stream, without the file's name, and Pillow says
nothing.  Here Pillow is given the data in three parts, and it is looked at which of them completes the last pixel.
Only JPEGs with one scan can be watched so; progressive ones come out of the decoder at their end.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

SCAN = 0xDA  # the marker of a scan
_UNTOUCHED = (1, 254, 3)  # the colour of the last pixel before it is decoded
_HELD_BACK = 8  # bytes at the end of the data: without them the last pixel cannot be complete
_FILL = bytes(16)  # the decoder reads some bytes ahead


class WatchedJpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG with one scan, whose data end at `end` (the offset of its end marker); `corrupt` is known after `load`."""

    def __init__(self, data: bytes, end: int) -> None:
        self._parts = [data[: end - _HELD_BACK], data[end - _HELD_BACK : end] + _FILL, b"\xff\xd9"]
        self._last_pixel: list[bool] = []
        super().__init__(io.BytesIO(data))

    @property
    def corrupt(self) -> bool:
        """Whether the last pixel was complete too early, or not even when all data had been read."""
        return self._last_pixel not in ([False], [False, True])  # some decoders go on to the end marker

    def load_read(self, read_bytes: int) -> bytes:
        """What Pillow calls for more data."""
        last = (self.size[0] - 1, self.size[1] - 1)
        untouched = _UNTOUCHED if self.mode == "RGB" else _UNTOUCHED[0]
        if len(self._parts) == 3:
            self.im.putpixel(last, untouched)
        elif self._parts:
            self._last_pixel.append(self.im.getpixel(last) != untouched)
        return self._parts.pop(0) if self._parts else b""


def is_watchable(data: bytes, scan: int, channels: int, end: int) -> bool:
    """Whether a JPEG has one scan with all its 1 or 3 channels; `scan` and `end` are where that begins and ends."""
    return (
        channels in (1, 3) and data[scan + 4] == channels and end - _HELD_BACK > scan and b"\xff\xc2" not in data[:scan]
    )


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset) of the segments of a JPEG up to the first scan, as far as the data go."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a body
            at += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at
        if marker == SCAN:
            return
        at += 2 + size


def decode_fast(data: bytes) -> NDArray[np.uint8] | None:
    """A whole JPEG of 1 or 3 channels as (H, W, 3) RGB, upright; None if OpenCV cannot decode it."""
    buffer = np.frombuffer(data, np.uint8)
    if hasattr(cv2, "IMREAD_COLOR_RGB"):  # OpenCV 4.11 and later; saves a pass over the pixels
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB)
    else:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
        image = image if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return None if image is None else np.ascontiguousarray(image, np.uint8)


def rows_before_fill(image: NDArray[np.uint8]) -> int:
    """Number of rows above the bottom rows of one single colour."""
    rows = len(image)
    while rows and (image[rows - 1] == image[-1, -1]).all():
        rows -= 1
    return rows
