"""What tells two readings of a split apart, in a few letters: for processes that must have read the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from gfldet.data.records import Split


def likeness(split: Split) -> dict[str, object]:
    """What a split has, by name; long things as their hash.  Pixels are left out."""
    return {
        f"the number of {split.name} images": len(split.records),
        f"the names and sizes of the {split.name} images": hashed(_pictures(split)),
        f"the boxes of the {split.name} images": hashed(_boxes(split)),
        "the classes": hashed(name.encode("utf-8", "surrogatepass") for name in split.names),
    }


def hashed(parts: Iterable[bytes]) -> str:
    """The beginning of the SHA-256 of the parts, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]


def _pictures(split: Split) -> Iterable[bytes]:
    return (f"{r.file_name} {r.width} {r.height} {r.bits}".encode("utf-8", "surrogatepass") for r in split.records)


def _boxes(split: Split) -> Iterable[bytes]:
    return (np.ascontiguousarray(values).tobytes() for r in split.records for values in (r.boxes, r.classes, r.ignore))
