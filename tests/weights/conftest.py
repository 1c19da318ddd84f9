"""A server on this machine that stands in for the public addresses, and a download from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gfldet.errors import CheckpointError, DownloadError, OutputError
from gfldet.weights import download as downloads
from gfldet.weights import folder
from gfldet.weights.table import PublicWeights


@dataclass
class Got:
    """One download: its file, the error, its words, and the files that are left."""

    path: Path | None
    error: str
    said: list[str]
    left: dict[str, bytes]


PUBLISHED = bytes(range(256)) * 2000  # 500 KiB


@dataclass
class Server:
    """What the server is to do, and what it was asked for.

    content    the file; that which tests expect is `published`
    ranges     whether it sends a rest alone
    stop       bytes after which it ends the connection, though it promised all
    pause      bytes after which it sends nothing until `go_on`
    status     an answer without a file, where not 200
    length     whether it says how long the file is
    silent     whether it takes the question and says nothing
    after_pause  whether it goes on after the pause
    location   where it sends on to
    shift      by how much the rest that it sends is another one than was asked for
    """

    address: str = ""
    content: bytes = PUBLISHED
    ranges: bool = True
    stop: int | None = None
    pause: int | None = None
    status: int = 200
    length: bool = True
    location: str = ""
    silent: bool = False
    after_pause: bool = False
    shift: int = 0
    asked: list[str | None] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    published = PUBLISHED

    @property
    def toy(self) -> PublicWeights:
        """Public weights at its address."""
        return PublicWeights(
            name="toy",
            family="Toy",
            licence="MIT",
            fits=("tiny",),
            body_only=False,
            ap=50.0,
            pixels=640,
            parameters=1.0,
            address=self.address,
            page="https://toy.example",
        )

    def get(self, weights: PublicWeights | None = None, **more: Any) -> Got:
        """Download, as a user would."""
        said: list[str] = []
        path, error = None, ""
        try:
            path = downloads.download(weights or self.toy, _prove, tell=said.append, verbose=False, **more)
        except (DownloadError, OutputError) as problem:
            error = str(problem)
        home = folder.folder()
        left = {file.name: file.read_bytes() for file in home.iterdir() if file.is_file()} if home.is_dir() else {}
        return Got(path, error, said, left)

    def kept(self, content: bytes) -> None:
        """An earlier download broke off and left this."""
        folder.folder().mkdir(parents=True)
        (folder.folder() / "toy.part.pt").write_bytes(content)


def _prove(path: Path) -> None:
    if path.read_bytes() != PUBLISHED:
        raise CheckpointError(f"{path}: no weights")


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's `plan`."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        plan: Server = self.server.plan  # type: ignore[attr-defined]
        wanted = self.headers.get("Range")
        plan.asked.append(wanted)
        assert str(self.headers["User-Agent"]).startswith("gfldet/")
        if plan.silent:
            plan.go_on.wait(120)
            return
        if plan.location and self.path != "/moved.pt":
            self.send_response(302)
            self.send_header("Location", plan.location)
            self.end_headers()
            return
        if plan.status != 200:
            self.send_error(plan.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and plan.ranges else 0
        size = len(plan.content)
        if start >= size > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        body = plan.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + plan.shift}-{size - 1}/{size}")
        if plan.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if plan.pause is not None:
            self.wfile.write(body[: plan.pause])
            plan.go_on.wait(120)
            if plan.after_pause:
                self.wfile.write(body[plan.pause :])
            return
        self.wfile.write(body[: plan.stop])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server, and GFLDET_HOME in a folder of the test."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    plan = Server(address=f"http://127.0.0.1:{made.server_port}/toy.pt")
    made.plan = plan  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv(folder.HOME, str(tmp_path / "home"))
    monkeypatch.setattr(downloads, "SCHEMES", frozenset({"https", "http"}))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    yield plan
    plan.go_on.set()
    made.shutdown()
    made.server_close()
    thread.join()
