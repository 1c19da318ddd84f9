"""The text files of a data set: their lines, and lists of images."""

from __future__ import annotations

from pathlib import Path

from gfldet.errors import DataError


def read_lines(file: Path) -> list[str]:
    """Lines of a UTF-8 text file (a byte-order mark is skipped); raises DataError if it cannot be read as UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not a UTF-8 text file (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None


def list_lines(file: Path) -> list[str]:
    """The paths in a .txt list as they are written, one per line."""
    return [line.strip() for line in read_lines(file) if line.strip()]


def read_list(file: Path, root: Path) -> list[Path]:
    """Image paths in a .txt list, one per line, relative to the list's folder or else to `root`."""
    paths = []
    for line in list_lines(file):
        path = Path(line.replace("\\", "/"))
        beside = file.parent / path
        paths.append(beside if beside.exists() or not (root / path).exists() else root / path)
    return paths
