"""Downloads from a server on this machine, which stands in for the public addresses: whole, and broken in every way."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gfldet.errors import CheckpointError, DownloadError, OutputError
from gfldet.weights import download as downloads
from gfldet.weights import folder
from gfldet.weights.download import download
from gfldet.weights.table import PublicWeights

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

CONTENT = bytes(range(256)) * 2000  # 500 KiB


@dataclass
class Server:
    """What the server is to do, and what it was asked for.

    content    the file
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
    content: bytes = CONTENT
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
            plan.go_on.wait(20)
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
            plan.go_on.wait(20)
            if plan.after_pause:
                self.wfile.write(body[plan.pause :])
            return
        self.wfile.write(body[: plan.stop])


def toy(address: str, sha256: str = "") -> PublicWeights:
    return PublicWeights(
        name="toy",
        family="Toy",
        licence="MIT",
        fits=("toy",),
        body_only=False,
        ap=50.0,
        pixels=640,
        parameters=1.0,
        address=address,
        page="https://toy.example",
        sha256=sha256,
    )


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


@dataclass
class Got:
    """One download: its words, and the files that are left."""

    path: Path | None
    error: str
    said: list[str]
    left: dict[str, bytes]


def whole(path: Path) -> None:
    """The proof that tests hand in: the bytes are the published ones."""
    if path.read_bytes() != CONTENT:
        raise CheckpointError(f"{path}: no weights")


def get(server: Server, weights: PublicWeights | None = None, **more: Any) -> Got:
    said: list[str] = []
    path, error = None, ""
    try:
        path = download(weights or toy(server.address), whole, tell=said.append, verbose=False, **more)
    except (DownloadError, OutputError) as problem:
        error = str(problem)
    home = folder.folder()
    left = {file.name: file.read_bytes() for file in home.iterdir() if file.is_file()} if home.is_dir() else {}
    return Got(path, error, said, left)


def kept(content: bytes) -> None:
    """As an earlier download that broke off left it."""
    folder.folder().mkdir(parents=True)
    (folder.folder() / "toy.part.pt").write_bytes(content)


def test_a_whole_download(server: Server, tmp_path: Path) -> None:
    got = get(server)
    assert got.path == tmp_path / "home" / "toy.pt"
    assert got.left == {"toy.pt": CONTENT}
    assert got.said == [f"{server.address}\n  -> {got.path}"]
    assert server.asked == [None]


def test_it_is_downloaded_once(server: Server) -> None:
    get(server)
    got = get(server)
    assert got.said == [f"toy is here already: {got.path}"]
    assert len(server.asked) == 1


def test_again_replaces_it_once_the_new_one_is_proven(server: Server) -> None:
    get(server)
    (folder.folder() / "toy.pt").write_bytes(b"old")
    server.content = b"bad"
    got = get(server, again=True)
    assert (got.path, got.left) == (None, {"toy.pt": b"old"})
    server.content = CONTENT
    assert get(server, again=True).left == {"toy.pt": CONTENT}


def test_a_short_download_is_kept_and_taken_up(server: Server) -> None:
    server.stop = 300_000
    got = get(server)
    assert got.error == (
        "toy: the connection ended after 0.3 of 0.5 MiB. What has arrived is kept: the same command goes on from there."
    )
    assert got.left == {"toy.part.pt": CONTENT[:300_000]}
    server.stop = None
    assert get(server).left == {"toy.pt": CONTENT}
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_that_sends_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    server.pause = 1000
    got = get(server)
    assert got.error.startswith("toy: the server sent nothing for 0.2 s after 0.0 of 0.5 MiB. What has arrived is kept")
    assert got.left == {"toy.part.pt": CONTENT[:1000]}


def test_a_server_that_does_not_even_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    server.silent = True
    got = get(server)
    assert "cannot be reached (no answer for 0.2 s)" in got.error
    assert got.left == {}


def test_a_slow_server_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 5)
    server.pause, server.after_pause = 1000, True
    threading.Timer(0.3, server.go_on.set).start()
    assert get(server).left == {"toy.pt": CONTENT}


def test_a_server_that_ignores_ranges(server: Server) -> None:
    kept(b"x" * 1000)
    server.ranges = False
    got = get(server)
    assert got.left == {"toy.pt": CONTENT}
    assert got.said[1] == "toy: the server does not send the rest alone; it is downloaded from the beginning"


def test_a_server_that_sends_another_range(server: Server) -> None:
    kept(CONTENT[:1000])
    server.shift = 5
    assert get(server).left == {"toy.pt": CONTENT}
    assert server.asked == ["bytes=1000-", None]


def test_a_whole_part_is_not_downloaded_again(server: Server) -> None:
    kept(CONTENT)
    assert get(server).left == {"toy.pt": CONTENT}
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_too_long_is_of_another_file(server: Server) -> None:
    kept(CONTENT + b"more")
    assert get(server).left == {"toy.pt": CONTENT}
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_part_of_another_file_is_found_by_the_proof(server: Server) -> None:
    kept(b"x" * 1000)
    got = get(server)
    assert "sent another file than expected, which was deleted: no weights\n" in got.error
    assert got.left == {}
    assert get(server).left == {"toy.pt": CONTENT}


def test_a_changed_file(server: Server) -> None:
    server.content = b"<html>please log in</html>"
    got = get(server)
    assert got.error == (
        f"toy: {server.address} sent another file than expected, which was deleted: no weights\n"
        "The same command downloads it anew.  If it ends like this again, the file has changed: see https://toy.example"
    )
    assert got.left == {}


@pytest.mark.parametrize(("digits", "good"), [(8, True), (64, True), (8, False)])
def test_the_published_hash(server: Server, digits: int, good: bool) -> None:
    found = hashlib.sha256(CONTENT).hexdigest()[:digits]
    published = found if good else found[::-1]
    got = get(server, toy(server.address, published))
    assert (got.path is not None) == good
    if not good:
        assert f"its SHA-256 begins with {found}, the published one with {published}" in got.error
        assert got.left == {}


def test_an_empty_answer(server: Server) -> None:
    server.content = b""
    got = get(server)
    assert got.error == f"toy: {server.address} sends an empty file; see https://toy.example"
    assert got.left == {}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "answers 404 (Not Found); the file is not there any more: see https://toy.example"),
        (410, "answers 410 (Gone); the file is not there any more: see https://toy.example"),
        (403, "answers 403 (Forbidden); try again later"),
        (503, "answers 503 (Service Unavailable); try again later"),
    ],
)
def test_an_answer_without_a_file(server: Server, status: int, told: str) -> None:
    server.status = status
    kept(CONTENT[:10])
    got = get(server)
    assert got.error == f"toy: {server.address} {told}"
    assert got.left == {"toy.part.pt": CONTENT[:10]}


def test_no_network(server: Server) -> None:
    got = get(server, toy("http://127.0.0.1:1/toy.pt"))
    refused = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"
    assert got.error.startswith(f"toy: 127.0.0.1:1 cannot be reached ({refused}). Run the same command where there is")
    assert got.error.endswith(f"by other means and put it at {folder.folder() / 'toy.pt'}")
    assert got.left == {}


def test_no_host(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*args: object, **more: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", lookup)
    assert (
        "cannot be reached ([Errno -2] Name or service not known)" in get(server, toy("http://none.example/a.pt")).error
    )


def test_a_length_that_nobody_tells(server: Server) -> None:
    server.length = False
    assert get(server).left == {"toy.pt": CONTENT}


def test_redirects_are_followed(server: Server) -> None:
    server.location = "/moved.pt"
    kept(CONTENT[:1000])
    assert get(server).left == {"toy.pt": CONTENT}
    assert server.asked == ["bytes=1000-", "bytes=1000-"]  # the second address is asked for the rest too


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_only_secure_addresses(server: Server, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SCHEMES", frozenset({"https"}))
    got = get(server, toy(f"{scheme}://127.0.0.1/toy.pt"))
    assert got.error == f"{scheme}://127.0.0.1/toy.pt: not a secure address; gfldet downloads from https alone"


def test_no_redirect_to_an_insecure_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SCHEMES", frozenset({"http"}))
    server.location = "ftp://127.0.0.1/toy.pt"
    assert "ftp://127.0.0.1/toy.pt: not a secure address" in get(server).error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' disk that is always full")
def test_a_full_disk(server: Server) -> None:
    home = folder.folder()
    home.mkdir(parents=True)
    (home / "toy.part.pt").symlink_to("/dev/full")
    error = ""
    try:
        download(toy(server.address), whole, tell=lambda line: None, verbose=False)
    except OutputError as problem:
        error = str(problem)
    part = home / "toy.part.pt"
    assert error.startswith(f"{part}: cannot be written ({os.strerror(errno.ENOSPC)}); free space, or choose another")
    assert "GFLDET_HOME" in error


def test_too_little_room_is_told_before(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    got = get(server, replace(toy(server.address), name="big"))
    assert got.error.startswith("big: 0 MiB are to come, and ")
    assert got.left == {}


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert "cannot be written (" in get(server).error


def test_one_at_a_time(server: Server) -> None:
    fcntl = pytest.importorskip("fcntl")
    kept(b"")
    with (folder.folder() / "toy.part.pt").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert get(server).error == "toy: another gfldet downloads it now; wait for that one"


def test_a_problem_of_the_proof_itself_keeps_the_file(server: Server) -> None:
    def prove(path: Path) -> None:
        raise OutputError("something else")

    with pytest.raises(OutputError, match="something else"):
        download(toy(server.address), prove, tell=lambda line: None, verbose=False)
    assert get(server).left == {"toy.pt": CONTENT}
    assert len(server.asked) == 2  # the second time for nothing more than the word that all is here


INTERRUPTED = """
import sys
from gfldet.weights import download as downloads
from gfldet.weights import table
downloads.SCHEMES = {"http"}
table.WEIGHTS = {"toy": table.PublicWeights("toy", "a", "MIT", (), False, 1, 1, 1, sys.argv[1], "")}
from gfldet.cli import main
sys.exit(main(["weights", "get", "toy"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupted_one(server: Server) -> None:
    server.pause = 1000
    command = [sys.executable, "-c", INTERRUPTED, server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        part = folder.folder() / "toy.part.pt"
        until = time.monotonic() + 20
        while not server.asked and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "gfldet: interrupted\n")
    assert out.endswith("\ntoy: interrupted. What has arrived is kept: the same command goes on from there.\n")
    assert part.read_bytes() == CONTENT[:1000]
