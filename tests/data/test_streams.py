"""Streams of the network, from a server on this machine: one that breaks, ends or never begins; passwords."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
import pytest

from gfldet.data import streams
from gfldet.data.sources import Frame, iter_source
from gfldet.errors import DataError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class Camera(ThreadingHTTPServer):
    """Sends `lots[0]` JPEGs to the first who asks, `lots[1]` to the second, ... and then closes; none beyond."""

    lots: tuple[int, ...] = ()
    asked = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/cam/1.mjpg"


class Handler(BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        self.server.asked += 1
        lot = self.server.lots[self.server.asked - 1] if self.server.asked <= len(self.server.lots) else 0
        if not lot:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=--x")
        self.end_headers()
        for number in range(lot):
            grey = np.full((48, 64, 3), 40 * self.server.asked + 5 * number, np.uint8)
            data = cv2.imencode(".jpg", grey)[1].tobytes()
            head = f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, *given: Any) -> None:
        pass


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Camera]:
    monkeypatch.setattr(streams, "PAUSES", (0.01, 0.01))
    with Camera(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def _gather(stream: Iterator[Frame], frames: list[Frame]) -> None:
    for frame in stream:
        frames.append(frame)  # one by one, so that they are there when the stream raises


def test_a_stream_that_breaks_goes_on(camera: Camera) -> None:
    """Frames keep counting, and the user is told; when it does not come back, that is an error after the last frame."""
    camera.lots = (4, 3)
    told: list[str] = []
    stream, frames = iter_source(camera.address, vid_stride=2, warn=told.append), []
    with pytest.raises(DataError, match=r":\d+/cam/1.mjpg: the stream ended after 7 frames and did not come back"):
        _gather(stream, frames)
    assert [frame.index for frame in frames] == [0, 2, 4, 6]
    assert [round(float(frame.image.mean())) for frame in frames] == pytest.approx([40, 50, 80, 90], abs=2)
    host = f"127_0_0_1_{camera.server_port}_cam_1_mjpg"
    assert [frame.name for frame in frames] == [f"{host}_{i:06d}" for i in (0, 2, 4, 6)]
    assert told == [f"{camera.address}: the stream broke after {count} frames; it is opened again" for count in (4, 7)]


class Film:
    """A video of `frames` frames on a server, which announces `length`."""

    def __init__(self, frames: int, length: float) -> None:
        self.left, self.length = frames, length

    def get(self, what: int) -> float:
        return self.length if what == cv2.CAP_PROP_FRAME_COUNT else 25.0

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self) -> None:
        pass


def test_a_video_on_a_server_is_played_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it announces more frames than it has."""
    short = ["http://x/a.mp4: ended after 3 of about 10 frames"]
    for frames, length, said in ((10, 10, []), (10, 11, []), (3, 10, short)):
        told: list[str] = []
        films = [Film(frames, length)]
        monkeypatch.setattr(streams, "_opened", lambda address, films=films: films.pop())
        found = [index for _, index, _ in streams.frames_of("http://x/a.mp4", 1, told.append)]
        assert (found, told) == (list(range(frames)), said)
    monkeypatch.setattr(streams, "_opened", lambda address: Film(0, 10))
    with pytest.raises(DataError, match=r"a\.mp4: holds no frame that can be decoded"):
        list(streams.frames_of("http://x/a.mp4", 1, told.append))


def test_a_stream_that_never_begins(camera: Camera) -> None:
    address = camera.address.replace("http://", "http://me:geheim@") + "?token=abc"
    with pytest.raises(DataError) as told:
        next(iter_source(address))
    assert str(told.value) == (f"{camera.address}: no stream came; check the address, the user and the password")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ftp://host/a.mp4", "ftp:// is not read; a stream begins with rtsp, "),
        ("rtsp://", "no host in this address"),
        ("rtsp://me:pw@:554/x", "no host in this address"),
        ("http://[::1/x", "no host in this address"),
        ("https://host/photo.JPG?x=1", "pictures are not downloaded"),
    ],
)
def test_addresses_that_are_no_stream(address: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as told:
        iter_source(address)
    assert "pw" not in str(told.value)


@pytest.mark.parametrize(
    ("address", "shown", "name"),
    [
        ("rtsp://cam/1", "rtsp://cam/1", "cam_1"),
        ("rtsp://me:ge@heim@cam:554/live/ch 1?key=abc#x", "rtsp://cam:554/live/ch 1", "cam_554_live_ch_1"),
        ("rtsp://me:1234/5?6#7@cam/1", "rtsp://cam/1", "cam_1"),
        ("http://only-user@cam", "http://cam", "cam"),
        ("http://cam/?password=geheim", "http://cam/", "cam"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str, name: str) -> None:
    assert (streams.shown_address(address), streams.name_of(address)) == (shown, name)
