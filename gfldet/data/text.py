"""The text files of a data set: their lines, and lists of images."""

from __future__ import annotations

from pathlib import Path

from gfldet.errors import DataError
from gfldet.files import MAX_LIST, MAX_TEXT, exists, read_text

MAX_LINES = 2_000_000  # of a file; memory is taken for each
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # as `str.splitlines` has them


def read_lines(file: Path, limit: int = MAX_TEXT) -> list[str]:
    """Lines of a UTF-8 text file (a byte-order mark is skipped) of at most `limit` bytes and MAX_LINES; DataError if it
    is none."""
    text = read_text(file, DataError, limit)
    if len(text) > MAX_LINES and sum(map(text.count, LINE_ENDS)) > 2 * MAX_LINES:  # a line may end with two of them
        raise DataError(f"{file}: holds more than {MAX_LINES:,} lines, which is the most that is read")
    return text.splitlines()


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
