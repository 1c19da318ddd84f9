"""Run folders: where one run writes, never over another's work unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gfldet.errors import OutputError


def free_folder(project: str, name: str, command: str, exist_ok: bool) -> Path:
    """The folder that a run will write to; nothing is made yet.

    Without a name it is the command's: `runs/train`, then `runs/train2`, `runs/train3`, whichever is free.  A name that
    the user gave is taken as it is: OutputError if that folder exists, unless `exist_ok`.  Also raises OutputError when
    the folder could not be made, so that this is known before any work is done.
    """
    root = Path(project)
    folder = root / (name or command)
    if not exist_ok:
        if name and folder.exists():
            raise OutputError(f"{folder} exists; choose another name=, or exist_ok=true to write into it")
        number = 2
        while folder.exists():
            folder = root / f"{command}{number}"
            number += 1
    check_writable(folder)
    return folder


def check_writable(folder: Path) -> None:
    """OutputError if the folder, which need not be there yet, could not be written to."""
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise OutputError(f"{folder}: {above} is a file, not a folder; choose another project= or name=")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: no permission to write in {above}; choose another project=")


def make(folder: Path) -> None:
    """Make the folder and those above it; OutputError with the reason if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another project=") from error


def write_aside(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, flush that to disk and rename it: `path` is whole or untouched at any
    moment, and nothing is left of a file that could not be finished.

    Raises OutputError with the reason when the folder cannot be written or the disk is full.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be written ({reason}); free space or choose another project=") from error
    finally:
        if aside.is_file():
            aside.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON by `write_aside`."""
    text = json.dumps(value, allow_nan=False)
    write_aside(path, lambda file: file.write(text.encode()))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write plain rows as one JSON list by `write_aside`, a row at a time: a million rows are never held as objects."""

    def write(file: BinaryIO) -> None:
        file.write(b"[")
        for number, row in enumerate(rows):
            file.write(f"{', ' if number else ''}{json.dumps(row, allow_nan=False)}".encode())
        file.write(b"]")

    write_aside(path, write)
