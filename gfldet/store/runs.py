"""Run folders: a run writes to its own folder and overwrites the work of another run only if the user asks for it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gfldet.errors import OutputError, shown
from gfldet.files import exists, is_folder, name_problem


def free_folder(project: str, name: str, command: str, exist_ok: bool) -> Path:
    """The folder that a run will write to; it is not made yet.

    Without `name` it is named after the command: `runs/train`, or the first free one of `runs/train2`, `runs/train3`...
    A given `name` is not changed: OutputError if that folder exists, unless `exist_ok`.  Also raises OutputError if the
    folder could not be made, so that this is known before any work.
    """
    root = Path(project)
    folder = root / (name or command)
    if not exist_ok:
        if name and exists(folder):
            raise OutputError(f"{folder} exists; choose another name=, or exist_ok=true to write into it")
        number = 2
        while exists(folder):
            folder = root / f"{command}{number}"
            number += 1
    check_writable(folder)
    return folder


def claim_folder(project: str, name: str, command: str, exist_ok: bool) -> Path:
    """Make the folder of a run and return it: that of `free_folder`, or the next one if another process was faster.

    Making a folder succeeds for one process alone, so that two runs never share one unasked.  Raises OutputError as
    `free_folder` does.
    """
    while True:
        folder = free_folder(project, name, command, exist_ok)
        make(folder.parent)
        try:
            folder.mkdir()
        except FileExistsError:
            if exist_ok and is_folder(folder):
                return folder
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another project=") from error
        else:
            return folder


def check_writable(folder: Path) -> None:
    """Raise OutputError if the folder could not be written to; the folder need not exist yet."""
    problem = name_problem(folder)
    if problem:
        raise OutputError(f"{shown(str(folder), 300, quoted=False)}: {problem}; choose another project= or name=")
    above = folder
    while not exists(above) and above != above.parent:
        above = above.parent
    if not is_folder(above):
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
    """Let `write` fill a file beside `path`, flush it to disk and rename it to `path`.

    At any moment `path` is complete or unchanged, and no unfinished file is left.  Raises OutputError with the reason
    if the folder cannot be written to or the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")  # no other writer has this name
    try:
        with aside.open("xb") as file:
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
    """Write plain rows as one JSON list by `write_aside`, row by row, so a million rows are never in memory at once."""

    def write(file: BinaryIO) -> None:
        file.write(b"[")
        for number, row in enumerate(rows):
            file.write(f"{', ' if number else ''}{json.dumps(row, allow_nan=False)}".encode())
        file.write(b"]")

    write_aside(path, write)
