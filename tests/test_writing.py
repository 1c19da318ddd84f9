"""Files are whole or untouched; what was left half written is removed, and never what somebody writes now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import pytest

from gfldet.errors import OutputError
from gfldet.store import runs
from gfldet.writing import write_aside


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
