"""Downloads, whole and broken in every way, from the server of conftest.py."""

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
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gfldet.cli import main
from gfldet.errors import CheckpointError, OutputError
from gfldet.imports import registry
from gfldet.imports.files import ForeignFile
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import Family
from gfldet.nn.build import Description
from gfldet.weights import download as downloads
from gfldet.weights import folder, table
from gfldet.weights.download import download
from gfldet.weights.folder import find_weights

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


def test_a_whole_download(server: Any, tmp_path: Path) -> None:
    got = server.get()
    assert got.path == tmp_path / "home" / "toy.pt"
    assert got.left == {"toy.pt": server.published}
    assert got.said == [f"{server.address}\n  -> {got.path}"]
    assert server.asked == [None]


def test_it_is_downloaded_once(server: Any) -> None:
    server.get()
    got = server.get()
    assert got.said == [f"toy is here already: {got.path}"]
    assert len(server.asked) == 1


def test_again_replaces_it_once_the_new_one_is_proven(server: Any) -> None:
    server.get()
    (folder.folder() / "toy.pt").write_bytes(b"old")
    server.content = b"bad"
    got = server.get(again=True)
    assert (got.path, got.left) == (None, {"toy.pt": b"old"})
    server.content = server.published
    assert server.get(again=True).left == {"toy.pt": server.published}


def test_a_short_download_is_kept_and_taken_up(server: Any) -> None:
    server.stop = 300_000
    got = server.get()
    assert got.error == (
        "toy: the connection ended after 0.3 of 0.5 MiB. What has arrived is kept: the same command goes on from there."
    )
    assert got.left == {"toy.part.pt": server.published[:300_000]}
    server.stop = None
    assert server.get().left == {"toy.pt": server.published}
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_that_sends_nothing(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    server.pause = 1000
    got = server.get()
    assert got.error.startswith("toy: the server sent nothing for 0.2 s after 0.0 of 0.5 MiB. What has arrived is kept")
    assert got.left == {"toy.part.pt": server.published[:1000]}


def test_a_server_that_does_not_even_answer(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    server.silent = True
    got = server.get()
    assert "cannot be reached (no answer for 0.2 s)" in got.error
    assert got.left == {}


def test_a_slow_server_is_waited_for(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PATIENCE", 5)
    server.pause, server.after_pause = 1000, True
    threading.Timer(0.3, server.go_on.set).start()
    assert server.get().left == {"toy.pt": server.published}


def test_a_server_that_ignores_ranges(server: Any) -> None:
    server.kept(b"x" * 1000)
    server.ranges = False
    got = server.get()
    assert got.left == {"toy.pt": server.published}
    assert got.said[1] == "toy: the server does not send the rest alone; it is downloaded from the beginning"


def test_a_server_that_sends_another_range(server: Any) -> None:
    server.kept(server.published[:1000])
    server.shift = 5
    assert server.get().left == {"toy.pt": server.published}
    assert server.asked == ["bytes=1000-", None]


def test_a_whole_part_is_not_downloaded_again(server: Any) -> None:
    server.kept(server.published)
    assert server.get().left == {"toy.pt": server.published}
    assert server.asked == [f"bytes={len(server.published)}-"]


def test_a_part_that_is_too_long_is_of_another_file(server: Any) -> None:
    server.kept(server.published + b"more")
    assert server.get().left == {"toy.pt": server.published}
    assert server.asked == [f"bytes={len(server.published) + 4}-", None]


def test_a_part_of_another_file_is_found_by_the_proof(server: Any) -> None:
    server.kept(b"x" * 1000)
    got = server.get()
    assert "sent another file than expected, which was deleted: no weights\n" in got.error
    assert got.left == {}
    assert server.get().left == {"toy.pt": server.published}


def test_a_changed_file(server: Any) -> None:
    server.content = b"<html>please log in</html>"
    got = server.get()
    assert got.error == (
        f"toy: {server.address} sent another file than expected, which was deleted: no weights\n"
        "The same command downloads it anew.  If it ends like this again, the file has changed: see https://toy.example"
    )
    assert got.left == {}


@pytest.mark.parametrize(("digits", "good"), [(8, True), (64, True), (8, False)])
def test_the_published_hash(server: Any, digits: int, good: bool) -> None:
    found = hashlib.sha256(server.published).hexdigest()[:digits]
    published = found if good else found[::-1]
    got = server.get(replace(server.toy, sha256=published))
    assert (got.path is not None) == good
    if not good:
        assert f"its SHA-256 begins with {found}, the published one with {published}" in got.error
        assert got.left == {}


def test_an_empty_answer(server: Any) -> None:
    server.content = b""
    got = server.get()
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
def test_an_answer_without_a_file(server: Any, status: int, told: str) -> None:
    server.status = status
    server.kept(server.published[:10])
    got = server.get()
    assert got.error == f"toy: {server.address} {told}"
    assert got.left == {"toy.part.pt": server.published[:10]}


def test_no_network(server: Any) -> None:
    got = server.get(replace(server.toy, address="http://127.0.0.1:1/toy.pt"))
    refused = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"
    assert got.error.startswith(f"toy: 127.0.0.1:1 cannot be reached ({refused}). Run the same command where there is")
    assert got.error.endswith(f"by other means and put it at {folder.folder() / 'toy.pt'}")
    assert got.left == {}


def test_no_host(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*args: object, **more: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", lookup)
    assert (
        "cannot be reached ([Errno -2] Name or service not known)"
        in server.get(replace(server.toy, address="http://none.example/a.pt")).error
    )


def test_a_length_that_nobody_tells(server: Any) -> None:
    server.length = False
    assert server.get().left == {"toy.pt": server.published}


def test_redirects_are_followed(server: Any) -> None:
    server.location = "/moved.pt"
    server.kept(server.published[:1000])
    assert server.get().left == {"toy.pt": server.published}
    assert server.asked == ["bytes=1000-", "bytes=1000-"]  # the second address is asked for the rest too


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_only_secure_addresses(server: Any, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SCHEMES", frozenset({"https"}))
    got = server.get(replace(server.toy, address=f"{scheme}://127.0.0.1/toy.pt"))
    assert got.error == f"{scheme}://127.0.0.1/toy.pt: not a secure address; gfldet downloads from https alone"


def test_no_redirect_to_an_insecure_address(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SCHEMES", frozenset({"http"}))
    server.location = "ftp://127.0.0.1/toy.pt"
    assert "ftp://127.0.0.1/toy.pt: not a secure address" in server.get().error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' disk that is always full")
def test_a_full_disk(server: Any) -> None:
    home = folder.folder()
    home.mkdir(parents=True)
    (home / "toy.part.pt").symlink_to("/dev/full")
    error = ""
    try:
        download(server.toy, lambda path: None, tell=lambda line: None, verbose=False)
    except OutputError as problem:
        error = str(problem)
    part = home / "toy.part.pt"
    assert error.startswith(f"{part}: cannot be written ({os.strerror(errno.ENOSPC)}); free space, or choose another")
    assert "GFLDET_HOME" in error


def test_too_little_room_is_told_before(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    got = server.get(replace(server.toy, name="big"))
    assert got.error.startswith("big: 0 MiB are to come, and ")
    assert got.left == {}


def test_a_folder_that_cannot_be_made(server: Any, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert "cannot be written (" in server.get().error


def test_one_at_a_time(server: Any) -> None:
    fcntl = pytest.importorskip("fcntl")
    server.kept(b"")
    with (folder.folder() / "toy.part.pt").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert server.get().error == "toy: another gfldet downloads it now; wait for that one"


def test_a_problem_of_the_proof_itself_keeps_the_file(server: Any) -> None:
    def prove(path: Path) -> None:
        raise OutputError("something else")

    with pytest.raises(OutputError, match="something else"):
        download(server.toy, prove, tell=lambda line: None, verbose=False)
    assert server.get().left == {"toy.pt": server.published}
    assert len(server.asked) == 2  # the second time for nothing more than the word that all is here


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch, tiny: Description) -> None:
    """A reader of the toy's family."""

    def recognises(file: ForeignFile) -> bool:
        return file.state is not None and "toy" in file.state.shapes

    def read(file: ForeignFile) -> ForeignModel:
        return ForeignModel(tiny, ("red", "blue"), {}, family="Toy")

    monkeypatch.setattr(registry, "FAMILIES", (Family("Toy", "weights of Toy (.pt)", recognises, read),))


@pytest.mark.usefixtures("family")
def test_the_whole_way(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"toy": torch.zeros(3)}, tmp_path / "published.pt")
    server.content = (tmp_path / "published.pt").read_bytes()
    listed = server.toy
    monkeypatch.setattr(table, "WEIGHTS", {"toy": listed})
    monkeypatch.setattr(folder, "WEIGHTS", {"toy": listed})
    with pytest.raises(CheckpointError, match="`gfldet weights get toy` downloads them once"):
        find_weights("toy")
    assert main(["weights", "get", "toy"]) == 0
    path = tmp_path / "home" / "toy.pt"
    assert capsys.readouterr().out == (
        f"{server.address}\n  -> {path}\n"
        "licence: MIT, of its authors (https://toy.example); it holds for what is trained from them too\n"
        "gfldet train pretrained=toy starts from them\n"
    )
    assert find_weights("toy") == path
    assert path.read_bytes() == server.content
    assert main(["weights"]) == 0
    assert " yes  tiny\n" in capsys.readouterr().out


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("content", [b"<html>please log in</html>", b"", bytes(1000)])
def test_the_whole_way_of_a_changed_file(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    server.content = content
    monkeypatch.setattr(table, "WEIGHTS", {"toy": server.toy})
    assert main(["weights", "get", "toy"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"gfldet: toy: {server.address} sen")
    assert "see https://toy.example" in told
    assert list(folder.folder().iterdir()) == []


INTERRUPTED = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
from gfldet.weights import download as downloads
from gfldet.weights import table
downloads.SCHEMES = {"http"}
table.WEIGHTS = {"toy": table.PublicWeights("toy", "a", "MIT", (), False, 1, 1, 1, sys.argv[1], "")}
from gfldet.cli import main
sys.exit(main(["weights", "get", "toy"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupted_one(server: Any) -> None:
    server.pause = 100_000
    part = folder.folder() / "toy.part.pt"
    command = [sys.executable, "-c", INTERRUPTED, server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 100
        while not (part.is_file() and part.stat().st_size) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, "gfldet: interrupted\n")
    assert out.endswith("\ntoy: interrupted. What has arrived is kept: the same command goes on from there.\n")
    left = part.read_bytes()
    assert 0 < len(left) <= 100_000
    assert left == server.published[: len(left)]
