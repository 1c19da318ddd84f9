"""What tells two readings of a split apart, in a few letters: for processes that must have read the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from gfldet.data.records import Records, Split


def likeness(split: Split) -> dict[str, object]:
    """What a split has, by name; long things as their hash.  Pixels are left out."""
    return {
        f"the number of {split.name} images": len(split.records),
        f"the names and sizes of the {split.name} images": hashed(_pictures(split.records)),
        f"the boxes of the {split.name} images": hashed(_boxes(split.records)),
        "the classes": hashed(name.encode("utf-8", "surrogatepass") for name in split.names),
    }


def hashed(parts: Iterable[bytes]) -> str:
    """The beginning of the SHA-256 of the parts, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]


def _pictures(records: Records) -> Iterable[bytes]:
    yield from (name.encode("utf-8", "surrogatepass") for name in records.file_names)
    yield from (records.sizes.tobytes(), records.bits.tobytes())


def _boxes(records: Records) -> Iterable[bytes]:
    columns = (records.boxes, records.classes, records.starts, records.ignore, records.ignore_starts)
    return (np.ascontiguousarray(column).tobytes() for column in columns)
