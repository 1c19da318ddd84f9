"""Images and splits as a run needs them, and where its words go: what `val`, `predict` and `train` share; no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gfldet.data.evaluation import EvalSet, ImageStore
from gfldet.data.records import Record, Split
from gfldet.data.spec import DataSpec
from gfldet.data.split import cores, load_split, open_image
from gfldet.errors import ConfigError

Say = Callable[[str], None]


def sayer(verbose: bool) -> Say:
    """Where a run's own lines go: the terminal, or nowhere."""
    return (lambda line: print(line, flush=True)) if verbose else (lambda line: None)


def warn(message: str) -> None:
    """A warning, for which `verbose` does not ask."""
    print(f"warning: {message}", file=sys.stderr)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSplit:
    """A split and its images at the size they are used at."""

    split: Split
    store: ImageStore


def load_images(
    spec: DataSpec, name: str, size: tuple[int, int], budget: int, on_bad: str, say: Say, verbose: bool
) -> LoadedSplit:
    """Read, check and (as far as `budget` bytes go) keep a split's images; its warnings are told."""
    store = ImageStore(size, budget, read_record)
    bar = tqdm(desc=f"reading {name} images", unit="image", leave=False, disable=not (verbose and sys.stderr.isatty()))

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        split = load_split(spec, name, on_bad, visit=store.keep, progress=progress)  # type: ignore[arg-type]
    for warning in split.warnings:
        warn(warning)
    kept = "kept in memory" if store.complete else "read anew each time" if not budget else "kept as far as they fit"
    boxes = sum(len(record.boxes) for record in split.records)
    say(f"{name}: {len(split.records)} images, {boxes} boxes, {len(split.names)} classes; {kept}")
    return LoadedSplit(split, store)


def read_record(record: Record) -> NDArray[np.uint8]:
    """The image of a record, from its file or built in."""
    return open_image(record.path)


def memory_budget(cache: str) -> int:
    """Bytes of RAM that images may take: all (`ram`), none (`none`), or half of what is free now (`auto`)."""
    if cache != "auto":
        return 1 << 62 if cache == "ram" else 0
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):  # not every system tells
        return 2 << 30


def workers(wanted: int, on_cpu: bool) -> int:
    """Threads that prepare images; -1 -> none beside a model on the CPU, up to 8 beside a GPU.

    A model on the CPU needs every core itself: measured on two cores, one thread that takes turns with them costs a
    quarter of the training speed, while making the batches in between costs a thirtieth.
    """
    if wanted >= 0:
        return wanted
    return 0 if on_cpu else min(8, cores())


def check_size(size: tuple[int, int], multiple: int, training: bool = False) -> None:
    """ConfigError for an image size (height, width) that is no multiple of `multiple`, or too small to train on."""
    if any(side % multiple for side in size):
        raise ConfigError(f"imgsz: {size[0]} x {size[1]} px; the sides must be multiples of {multiple} for this model")
    if training and max(size) == multiple:
        # A batch of one image would leave batch norm a single value on its coarsest level.
        raise ConfigError(f"imgsz: {size[0]} x {size[1]} px is too small to train on; give at least {2 * multiple}")


def eval_set(loaded: LoadedSplit, size: tuple[int, int], batch: int, multiple: int, rect: bool) -> EvalSet:
    """The validation batches: with `rect` in frames as small as the images allow, else all of `size`."""
    if not rect:
        check_size(size, multiple)
    return EvalSet(loaded.split, loaded.store, size, batch, multiple, rect)
