"""Which images two splits have in common: the same file, by whatever path, or another file of the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from gfldet.data.records import Record

_END = 4096  # bytes at the end of a file that are compared before its whole content


def shared_images(first: Sequence[Record], second: Sequence[Record]) -> list[Record]:
    """The records of `second` whose image `first` has too; images that are no files (built-in sets) are left out.

    Only files of equal length and equal image size are opened, and only those with the same end are read as a whole.
    """
    files: set[tuple[int, int]] = set()
    alike: dict[tuple[int, int, int], _Group] = {}
    for record, stat in _with_stat(first):
        files.add((stat.st_dev, stat.st_ino))
        alike.setdefault((stat.st_size, record.width, record.height), _Group([])).paths.append(record.path)
    shared = []
    for record, stat in _with_stat(second):
        group = alike.get((stat.st_size, record.width, record.height))
        if (stat.st_dev, stat.st_ino) in files or (group and group.holds(record.path)):
            shared.append(record)
    return shared


def _with_stat(records: Sequence[Record]) -> Iterator[tuple[Record, os.stat_result]]:
    for record in records:
        try:
            yield record, os.stat(record.path)
        except (OSError, ValueError):  # the image of a built-in set, or a file that is gone by now
            continue


@dataclass(slots=True)
class _Group:
    """Files of equal length; their ends are read when the first file is compared with them."""

    paths: list[Path]
    by_end: dict[bytes, list[Path]] | None = None
    wholes: dict[Path, bytes] = field(default_factory=dict)

    def holds(self, path: Path) -> bool:
        """Whether one of the files has the bytes of the file at `path`; False if a file cannot be read any more."""
        try:
            return self._holds(path)
        except OSError:
            return False

    def _holds(self, path: Path) -> bool:
        if self.by_end is None:
            self.by_end = {}
            for one in self.paths:
                self.by_end.setdefault(_end(one), []).append(one)
        alike = self.by_end.get(_end(path), [])
        return any(self._whole(one) == _whole(path) for one in alike)

    def _whole(self, path: Path) -> bytes:
        if path not in self.wholes:
            self.wholes[path] = _whole(path)
        return self.wholes[path]


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
        return blake2b(file.read(), digest_size=16).digest()


def _whole(path: Path) -> bytes:
    return blake2b(path.read_bytes(), digest_size=16).digest()
