"""Files are whole or untouched; what was left half written is removed, and never what somebody writes now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import pytest

from gfldet.errors import OutputError
from gfldet.store import runs
from gfldet.writing import lock, remove_unfinished, write_aside, write_whole


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def slow(file: BinaryIO) -> None:
        file.write(b"[1")
        runs.write_json(path, [2])  # another writer, in the middle of this one
        file.write(b"]")

    write_aside(path, slow)
    assert json.loads(path.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_whole_or_untouched(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    runs.write_json(path, {"map": 0.5})
    assert json.loads(path.read_text()) == {"map": 0.5}

    def full(file: BinaryIO) -> None:
        file.write(b'{"map": 0.')
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"metrics.json: cannot be written \(No space left on device\); free space"):
        write_aside(path, full)

    def interrupted(file: BinaryIO) -> None:
        file.write(b"[")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_aside(path, interrupted)
    assert json.loads(path.read_text()) == {"map": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'ü' * 120}.json"  # 245 bytes of 255
    write_aside(path, lambda file: file.write(b"[]"))
    assert path.read_bytes() == b"[]"


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_aside(tmp_path / "link", lambda file: file.write(b"1"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"1"
    write_whole(Path("/dev/null"), lambda file: file.write(b"1"))
    assert Path("/dev/null").is_char_device()


def test_what_was_left_goes_and_what_is_written_now_stays(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    left = [tmp_path / ".results.csv.1-ab.part", tmp_path / "weights" / ".last.pt.part"]  # also of older versions
    for path in (*left, tmp_path / "mine.part", tmp_path / ".hidden"):
        path.write_bytes(b"half")

    def write(file: BinaryIO) -> None:
        file.write(b"1")
        remove_unfinished(tmp_path)

    write_aside(tmp_path / "weights" / "best.pt", write)
    there = sorted(path.name for path in tmp_path.rglob("*"))
    assert there == [".hidden", "best.pt", "mine.part", "weights"]


def test_a_lock_is_one_file_s(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (tmp_path / "a").open("w") as first, (tmp_path / "a").open("w") as second:
        assert lock(first)
        assert lock(second) is False
    with (tmp_path / "a").open("w") as third:
        assert lock(third)
