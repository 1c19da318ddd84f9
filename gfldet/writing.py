"""How files are written: whole or not at all, whatever interrupts it; and locks, which end with their process."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from gfldet.errors import OutputError

UNFINISHED = ".*.part"  # the names of files that are being written


def write_whole(path: Path, write: Callable[[BinaryIO], object], lasting: bool = True) -> None:
    """Let `write` fill a file beside `path`, and rename it to `path`; see `whole`.  Raises OSError."""
    if path.exists() and not path.is_file():  # such as /dev/stdout
        path.write_bytes(_filled(write))
        return
    with whole(path, lasting) as file:
        write(file)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, and the folder that it lies in; whole, but not lasting.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(text.encode()), lasting=False)


@contextmanager
def whole(path: Path, lasting: bool = True) -> Iterator[BinaryIO]:
    """A file beside `path` to write into, which is renamed to `path` at the end.

    At any moment `path` is complete or unchanged, and no unfinished file is left unless the process is killed.  What is
    `lasting` outlives a failure of the machine too, which costs the time of the disk.  Raises OSError.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    # No other writer has this name; it is no longer than a file's may be.
    aside = target.with_name(f".{target.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as file:
            lock(file)  # so that nobody takes it for one that was left
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(aside, target)
    finally:
        with suppress(OSError):  # it has its name already, or could not be made
            aside.unlink()


def _filled(write: Callable[[BinaryIO], object]) -> bytes:
    """What `write` writes."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def write_aside(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`write_whole`, lasting; OutputError with the reason if the folder cannot be written to or the disk is full."""
    with output_errors(path):
        write_whole(path, write)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """An OSError of writing to `path` becomes an OutputError with the reason."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be written ({reason}); free space or choose another project=") from error


def remove_unfinished(folder: Path) -> None:
    """Remove the files below `folder` that processes which are gone were writing; those of living ones stay."""
    for path in folder.rglob(UNFINISHED):
        with suppress(OSError):
            if path.is_file():
                with path.open("ab") as file:
                    if lock(file):
                        path.unlink()


def lock(file: IO[Any]) -> bool | None:
    """Whether the open file is ours alone from now on, until it is closed; None where there are no locks.

    It never waits.  Systems without `fcntl` have no locks of this kind, nor have some file systems.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
