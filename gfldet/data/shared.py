"""Which images two splits have in common: the same file, by whatever path, or another file of the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from gfldet.data.records import Record, Records

_Key = tuple[int, int, int]  # bytes of the file, width and height of the image
_END = 4096  # bytes at the end of a file that are compared before its whole content


def shared_images(first: Sequence[Record], second: Sequence[Record]) -> list[Record]:
    """The records of `second` whose image `first` has too; images that are no files (built-in sets) are left out.

    Only files of equal length and equal image size are opened, and only those with the same end are read as a whole.
    """
    before, after = Records.of(first), Records.of(second)
    of_after = list(_with_keys(after))
    wanted_keys, wanted_files = {key for _, key, _ in of_after}, {file for _, _, file in of_after}
    files: set[tuple[int, int]] = set()
    alike: dict[_Key, _Group] = {}
    for number, key, file in _with_keys(before):
        if file in wanted_files:
            files.add(file)
        if key in wanted_keys:
            alike.setdefault(key, _Group([])).paths.append(Path(before.paths[number]))
    return [
        after[number]
        for number, key, file in of_after
        if file in files or (key in alike and alike[key].holds(Path(after.paths[number])))
    ]


def _with_keys(records: Records) -> Iterator[tuple[int, _Key, tuple[int, int]]]:
    """The number of each image, what images of the same bytes have in common, and which file it is."""
    for number, (path, (width, height)) in enumerate(zip(records.paths, records.sizes.tolist(), strict=True)):
        try:
            stat = os.stat(path)
        except (OSError, ValueError):  # the image of a built-in set, or a file that is gone by now
            continue
        yield number, (stat.st_size, width, height), (stat.st_dev, stat.st_ino)


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
