"""What two trainings left, compared to the bit: weights, state, curves, metrics, predictions, which files there are."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gfldet.store import checkpoint as checkpoints
from gfldet.store.runs import LOCK
from gfldet.train.elastic import MARK

CLOCKS = {"seconds", "time"}  # what tells of time


def differing_bits(one: Path, other: Path) -> dict[str, int]:
    """What of two run folders differs, and in how many bits; empty where nothing does."""
    first, second = dict(contents(one)), dict(contents(other))
    found = {name: bits(first.get(name, b""), second.get(name, b"")) for name in {**first, **second}}
    return {name: count for name, count in found.items() if count}


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files of a run in named pieces; half written ones too, of which a run that came to its end has none.

    The marks of who trained there stay where a process is killed after the end, and are in nobody's way.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (LOCK, MARK):
            file = str(path.relative_to(folder))
            yield f"{file} is there", b"1"
            yield from parts(folder, file)


def parts(folder: Path, file: str) -> Iterator[tuple[str, bytes]]:
    """The contents of a file in named pieces, without those that tell of time."""
    path = folder / file
    if path.suffix == ".pt":
        saved = checkpoints.load(path)
        for name in ("names", "weights", "settings", "epoch", "metrics", "training", "licence"):
            yield from leaves(f"{file}: {name}", getattr(saved, name))
    elif path.suffix == ".csv":
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
            yield from leaves(f"{file}: {row['epoch']}", row)
    else:
        yield file, path.read_bytes()


def leaves(name: str, value: Any) -> Iterator[tuple[str, bytes]]:
    """The bytes of each tensor and number below a value."""
    if isinstance(value, Tensor):
        numbers = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield name, f"{value.dtype} {tuple(value.shape)} ".encode() + numbers
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in CLOCKS:
                yield from leaves(f"{name} {key}", item)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from leaves(f"{name} {number}", item)
    else:
        yield name, json.dumps(value).encode()


def bits(one: bytes, other: bytes) -> int:
    """How many bits differ; those that only one has count all."""
    length = min(len(one), len(other))
    first, second = (np.frombuffer(data[:length], np.uint8) for data in (one, other))
    return int(np.unpackbits(first ^ second).sum()) + 8 * abs(len(one) - len(other))
