"""Run folders: a run writes to its own folder and overwrites the work of another run only if the user asks for it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from gfldet.errors import OutputError, shown
from gfldet.files import exists, is_folder, name_problem
from gfldet.writing import lock, remove_unfinished, write_aside

LOCK = ".lock"  # in a run folder while a process trains there; it tells which
SEEN = 20.0  # s
TRIES = 1000  # to make a folder, while other processes make and remove them


def free_folder(project: str, name: str, command: str, exist_ok: bool) -> Path:
    """The folder that a run will write to; it is not made yet.

    Without `name` it is named after the command: `runs/train`, or the first free one of `runs/train2`, `runs/train3`...
    A given `name` is not changed: OutputError if that folder exists, unless `exist_ok`.  Also raises OutputError if the
    folder could not be made, so that this is known before any work.
    """
    root = Path(project)
    folder = root / (name or command)
    if not exist_ok:
        if name and os.path.lexists(folder):
            raise OutputError(f"{folder} exists; choose another name=, or exist_ok=true to write into it")
        number = 2
        while os.path.lexists(folder):
            folder = root / f"{command}{number}"
            number += 1
    check_writable(folder)
    return folder


def claim_folder(project: str, name: str, command: str, exist_ok: bool) -> Path:
    """Make the folder of a run and return it: that of `free_folder`, or the next one if another process was faster.

    Making a folder succeeds for one process alone, so that two runs never share one unasked.  Raises OutputError as
    `free_folder` does.
    """
    reason = ""
    for _ in range(TRIES):
        folder = free_folder(project, name, command, exist_ok)
        make(folder.parent)
        try:
            folder.mkdir()
        except (FileExistsError, FileNotFoundError) as error:  # by a process that makes, or removes, folders beside us
            if exist_ok and is_folder(folder):
                return folder
            reason = error.strerror or ""
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another project=") from error
        else:
            return folder
    raise OutputError(f"{folder}: cannot be made ({reason}); choose another project= or name=")


@contextmanager
def claimed(project: str, name: str, command: str, exist_ok: bool) -> Iterator[Path]:
    """The folder of `claim_folder`, claimed before the work; if that fails before anything is written, it is removed.

    The folders above it that were made for it go too.
    """
    named = Path(project) / (name or command)
    made = [folder for folder in (named, *named.parents) if not exists(folder)]
    folder = claim_folder(project, name, command, exist_ok)
    try:
        yield folder
    except BaseException:
        for empty in made if exist_ok else (folder, *made):
            with suppress(OSError):  # there is something in it
                empty.rmdir()
        raise


@contextmanager
def trained_here(folder: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder, and remove what processes that are gone left half written in it.

    Raises OutputError with the process that trains there now.  One that is gone, however it ended, is in nobody's way.
    """
    with _alone(folder / LOCK, folder, "trains this run now; let it end, or end it, or choose another name="):
        remove_unfinished(folder)
        yield


def owner(folder: Path) -> str:
    """Who trains in a run folder now, as its lock file tells."""
    try:
        return (folder / LOCK).read_text(encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder / LOCK}: cannot be read ({error.strerror}); choose another project=") from error


def check_seen(folder: Path, owner: str, file: str = LOCK) -> None:
    """OutputError unless this process sees the run folder that `owner` made, as the `file` in it tells.

    File systems that machines share may show a new file only after some seconds.
    """
    end = time.monotonic() + SEEN
    while True:
        with suppress(OSError):
            if (folder / file).read_text(encoding="utf-8") == owner:
                return
        if time.monotonic() > end:
            raise OutputError(
                f"{folder.absolute()}: the run folder that rank 0 ({owner}) made is not seen here; start all processes "
                "in one folder, or give a project= that lies on a file system that all machines share"
            )
        time.sleep(0.1)


@contextmanager
def written_here(target: Path) -> Iterator[None]:
    """Keep other processes from making the file or folder `target` meanwhile; OutputError if one does."""
    file = target.with_name(f".{target.name[:40]}{LOCK}")
    with _alone(file, target, "writes it now; let it end, or choose another out="):
        yield


@contextmanager
def _alone(path: Path, guarded: Path, does: str) -> Iterator[None]:
    """Hold the lock file `path`, which lasts as long; OutputError with the process and what it `does` if another has
    it."""
    for _ in range(TRIES):
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another project=") from error
        with file:
            if lock(file) is False:
                file.seek(0)
                raise OutputError(f"{guarded}: {file.read(200).strip() or 'another process'} {does}")
            if not _is_at(file.fileno(), path):
                continue  # who held it has removed it since
            if hasattr(os, "register_at_fork"):  # what is forked while we hold it must not hold it on after our end
                os.register_at_fork(after_in_child=file.close)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            try:
                yield
            finally:
                with suppress(OSError):
                    path.unlink()
            return
    raise OutputError(f"{path}: cannot be locked; choose another project=")


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that lies at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def check_writable(folder: Path, instead: str = "project= or name=") -> None:
    """Raise OutputError if the folder could not be written to; the folder need not exist yet.

    `instead` are the settings by which another folder is chosen.
    """
    problem = name_problem(folder)
    if problem:
        raise OutputError(f"{shown(str(folder), 300, quoted=False)}: {problem}; choose another {instead}")
    above = folder
    while not exists(above) and above != above.parent:
        above = above.parent
    if not is_folder(above):
        raise OutputError(f"{folder}: {above} is a file, not a folder; choose another {instead}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: no permission to write in {above}; choose another {instead}")


def make(folder: Path) -> None:
    """Make the folder and those above it; OutputError with the reason if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another project=") from error


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON by `write_aside`."""
    text = json.dumps(value, allow_nan=False)
    write_aside(path, lambda file: file.write(text.encode()))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write plain rows as one JSON list by `write_aside`, row by row, so a million rows are never in memory at once."""

    encode = json.JSONEncoder(allow_nan=False).encode  # json.dumps makes one for each row

    def write(file: BinaryIO) -> None:
        file.write(b"[")
        for number, row in enumerate(rows):
            file.write(f"{', ' if number else ''}{encode(row)}".encode())
        file.write(b"]")

    write_aside(path, write)
