"""Patterns of paths, such as `photos/**/*.jpg`: which paths are there that fit one.

As the standard library's glob, but that a folder is walked through once, however many links lead back into it, and the
root of the file system never.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from gfldet.errors import DataError
from gfldet.files import exists, is_folder, is_root, listing

MAX_FOLDERS = 30_000  # that `**` goes through


def is_pattern(text: str) -> bool:
    """Whether a text has a wildcard in it."""
    return glob.has_magic(text)


def fixed_part(pattern: str) -> Path:
    """The folders of a pattern up to the first part with a wildcard."""
    parts = Path(pattern).parts
    first = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts))
    return Path(*parts[:first])


def matching(pattern: str) -> list[Path]:
    """The files and folders that fit a pattern, by name; `**` stands for any number of folders.

    Names that begin with a dot fit only a part that does too.  None for a pattern that no path can fit.  Raises
    DataError where `**` stands for all folders of the root of the file system, or for more than MAX_FOLDERS.
    """
    fixed = fixed_part(pattern)
    parts = Path(pattern).parts[len(fixed.parts) :]
    found = [fixed]
    try:
        for part in parts:
            found = list(dict.fromkeys(_fitting(found, part)))
    except re.error:
        return []
    if parts[-1:] == ("**",):
        found += [path for folder in found for path in _visible(folder) if not is_folder(path)]
    return sorted(found, key=str)


def _fitting(folders: Iterable[Path], part: str) -> Iterable[Path]:
    """The paths in or below `folders` that fit one part of a pattern."""
    if part == "**":
        for folder in filter(is_root, folders):
            raise DataError(f"{folder / part}: {folder} is the root of the file system; name a folder before {part}")
        return [below for folder in folders for below in _tree(folder)]
    if not is_pattern(part):
        return [folder / part for folder in folders if exists(folder / part)]
    inside = listing if part.startswith(".") else _visible
    return [path for folder in folders for path in inside(folder) if fnmatch(path.name, part)]


def _visible(folder: Path) -> list[Path]:
    return [path for path in listing(folder) if not path.name.startswith(".")]


def _tree(folder: Path) -> list[Path]:
    """A folder and those below it; each once, by its own path if it has one here, and else by that of a link."""
    found: list[Path] = []
    seen: set[str] = set()
    left, links = [folder], list[Path]()
    while left or links:
        here = left.pop() if left else links.pop()
        real = os.path.realpath(here)
        if real not in seen and not is_root(real):
            seen.add(real)
            found.append(here)
            if len(found) > MAX_FOLDERS:
                raise DataError(f"{folder / '**'}: more than {MAX_FOLDERS:,} folders; name one nearer to the files")
            for path in filter(is_folder, _visible(here)):
                (links if path.is_symlink() else left).append(path)
    return found
