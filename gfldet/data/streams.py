"""Streams of the network, by RTSP, RTMP, HTTP or UDP: opened by FFmpeg within OpenCV, and opened again when they break.

An address may hold a password; it is shown as `shown_address` alone, in messages, names and results.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.data.images import IMAGE_SUFFIXES
from gfldet.errors import DataError, counted, plain

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp")
TIMEOUT = 10.0  # s to wait for a connection, or for a frame
WHOLE = 0.9  # of the frames that a video announces; some count them by its seconds
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # s between the tries to open a stream again that broke

Warn = Callable[[str], None]


def check_address(address: str) -> None:
    """DataError for an address that cannot be that of a stream."""
    scheme, told = address.partition("://")[0].lower(), shown_address(address)
    if scheme not in SCHEMES:
        raise DataError(f"{told}: {scheme}:// is not read; a stream begins with {', '.join(SCHEMES)}")
    try:
        place = urlsplit(address)
        if not place.hostname:
            raise ValueError
    except ValueError:
        raise DataError(f"{told}: no host in this address; expected such as rtsp://camera:554/stream1") from None
    if PurePosixPath(place.path).suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{told}: pictures are not downloaded; give the file")


def shown_address(address: str) -> str:
    """An address without the user, the password and the query, which may be a key."""
    scheme, _, rest = address.partition("://")
    place = re.split(r"[?#]", rest.rpartition("@")[2])[0]  # a password may have any of these letters
    return plain(f"{scheme}://{place}")


def name_of(address: str) -> str:
    """The stem of files of a stream's results: its host and path."""
    return re.sub(r"[^\w-]+", "_", shown_address(address).partition("://")[2]).strip("_") or "stream"


def frames_of(address: str, stride: int, tell: Warn) -> Iterator[tuple[NDArray[np.uint8], int, float | None]]:
    """(BGR frame, its number from 0, frames a second) of every `stride`-th frame of a stream.

    A stream that breaks is opened again, and the numbers go on; `tell` hears of it.  Raises DataError for a stream that
    never begins, or that breaks and does not come back.  One of known length, as a video on a server, is not opened
    again; `tell` hears of one that ends long before.
    """
    told, index = shown_address(address), -1
    capture, left = _opened(address), list(PAUSES)
    if capture is None:
        raise DataError(f"{told}: no stream came; check the address, the user and the password")
    try:
        while True:
            fps, length = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            while capture.grab():
                index += 1
                left = list(PAUSES)
                if index % stride == 0:
                    there, image = capture.retrieve()
                    if not there:
                        break
                    yield np.asarray(image, np.uint8), index, fps or None
            capture.release()
            if length > 0:  # a video on a server: opened again, it would begin anew
                if index < 0:
                    raise DataError(f"{told}: holds no frame that can be decoded")
                if index + 1 < WHOLE * length:
                    tell(f"{told}: ended after {index + 1} of about {counted(int(length), 'frame')}")
                return
            if left == list(PAUSES):
                tell(f"{told}: the stream broke after {counted(index + 1, 'frame')}; it is opened again")
            capture = _opened_again(address, left)
            if capture is None:
                raise DataError(f"{told}: the stream ended after {counted(index + 1, 'frame')} and did not come back")
    finally:
        if capture is not None:
            capture.release()


def _opened_again(address: str, pauses: list[float]) -> cv2.VideoCapture | None:
    """The stream, tried after each pause that is left; None if it does not come."""
    while pauses:
        time.sleep(pauses.pop(0))
        capture = _opened(address)
        if capture is not None:
            return capture
    return None


def _opened(address: str) -> cv2.VideoCapture | None:
    """An open stream; None if there is none.  FFmpeg alone is asked: other readers of OpenCV print the address."""
    wait = int(1000 * TIMEOUT)
    waits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, waits)
    if capture.isOpened():
        return capture
    capture.release()
    return None
