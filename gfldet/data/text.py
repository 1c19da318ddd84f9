"""The text files of a data set: their lines, and lists of images."""

from __future__ import annotations

from pathlib import Path

from gfldet.errors import DataError
from gfldet.files import MAX_LIST, MAX_TEXT, exists, read_text


def read_lines(file: Path, limit: int = MAX_TEXT) -> list[str]:
    """Lines of a UTF-8 text file (a byte-order mark is skipped) of at most `limit` bytes; DataError if it is none."""
    return read_text(file, DataError, limit).splitlines()


def list_lines(file: Path) -> list[str]:
    """The paths in a .txt list as they are written, one per line."""
    return [line.strip() for line in read_lines(file, MAX_LIST) if line.strip()]


def read_list(file: Path, root: Path) -> list[Path]:
    """Image paths in a .txt list, one per line, relative to the list's folder or else to `root`."""
    paths = []
    for line in list_lines(file):
        path = Path(line.replace("\\", "/"))
        beside = file.parent / path
        paths.append(beside if exists(beside) or not exists(root / path) else root / path)
    return paths
