"""Loads a split with its images in memory, for training and validation; no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gfldet.data.checked import open_image
from gfldet.data.eval_set import EvalSet
from gfldet.data.image_store import ImageStore
from gfldet.data.records import SEVERITIES, Finding, Record, Split
from gfldet.data.spec import DataSpec, load_spec
from gfldet.data.split import Progress, load_split
from gfldet.messages import Tell, warn
from gfldet.ops.letterbox import PAD_COLOUR, check_frame


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSplit:
    """A split and its images at the size of training or validation."""

    split: Split
    store: ImageStore


def open_data(data: str, val_share: float) -> DataSpec:
    """The data set of `data` (see `load_spec`); what was chosen while reading it is told."""
    spec = load_spec(data, val_share)
    for notice in spec.notices:
        warn(notice)
    return spec


def load_images(
    spec: DataSpec,
    name: str,
    size: tuple[int, int],
    budget: int,
    on_bad: str,
    tell: Tell,
    verbose: bool,
    bits: int | None = None,
) -> LoadedSplit:
    """Reads and checks a split's images, and keeps up to `budget` bytes of them in memory.

    `bits` is the depth of 16-bit files; None: that of the split's own samples.  The findings are for the caller to
    tell, with `tell_findings`.
    """
    store = ImageStore(size, budget, read_record)
    with reading_bar(verbose) as progress:
        split = load_split(spec, name, on_bad, visit=store.keep, progress=progress(name), bits=bits)  # type: ignore[arg-type]
    kept = "kept in memory" if store.complete else "read again each time" if not budget else "kept as far as they fit"
    boxes = sum(len(record.boxes) for record in split.records)
    tell(f"{name}: {len(split.records)} images, {boxes} boxes, {len(split.names)} classes; {kept}")
    return LoadedSplit(split, store)


@contextmanager
def reading_bar(verbose: bool) -> Iterator[Callable[[str], Progress]]:
    """Gives a function that makes the `progress` of a split's reading, shown as a bar where someone watches."""
    bars: list[Any] = []

    def of_split(name: str) -> Progress:
        shown = verbose and sys.stderr.isatty()
        bar = tqdm(desc=f"reading {name} images", unit="image", leave=False, disable=not shown)
        bars.append(bar)

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return progress

    try:
        yield of_split
    finally:
        for bar in bars:
            bar.close()


def tell_findings(findings: Iterable[Finding]) -> None:
    """Prints findings as warnings, one block of lines with the gravest first."""
    for finding in sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)):
        warn(finding.text)


def read_record(record: Record) -> NDArray[np.uint8]:
    """The image of a record, from its file or from a built-in set."""
    return open_image(record.path, bits=record.bits)


def eval_set(
    loaded: LoadedSplit,
    size: tuple[int, int],
    batch: int,
    multiple: int,
    rect: bool,
    pad_colour: int = PAD_COLOUR,
) -> EvalSet:
    """The validation batches: with `rect` the smallest frame for each image, else every frame is `size`."""
    if not rect:
        check_frame(size, multiple)
    return EvalSet(loaded.split, loaded.store, size, batch, multiple, rect, pad_colour)
