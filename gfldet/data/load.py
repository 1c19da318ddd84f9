"""Loads a split with its images in memory, for training and validation; no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gfldet.data.eval_set import EvalSet
from gfldet.data.gather import open_image
from gfldet.data.image_store import ImageStore
from gfldet.data.records import SEVERITIES, Finding, Record, Split
from gfldet.data.spec import DataSpec, load_spec
from gfldet.data.split import Place, Progress, load_split
from gfldet.data.tiles import Cut
from gfldet.errors import counted
from gfldet.machine.shared import Pool
from gfldet.messages import Tell, warn
from gfldet.ops.letterbox import PAD_COLOUR, check_frame
from gfldet.ops.tiles import Tiles, Window


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
    size: tuple[int, int] | None,
    pool: Pool,
    on_bad: str,
    tell: Tell,
    verbose: bool,
    bits: int | None = None,
    cut: Cut | None = None,
    check: str = "auto",
) -> LoadedSplit:
    """Reads and checks a split's images, and keeps those that `pool` has room for in memory.

    They are fitted to `size` (height, width); with None they keep their own.  `bits` is the depth of 16-bit files;
    None: that of the split's own samples.  With `cut`, each tile of a large image is an image of the split.  After a
    quick `check` (see `split.load_split`) an image is kept when it is first used.  The findings are for the caller to
    tell, with `tell_findings`.
    """
    room = pool.left
    store = ImageStore(size, pool, read_record, skip_bad=on_bad == "skip")
    with reading_bar(verbose) as progress:
        split = load_split(
            spec,
            name,
            on_bad,  # type: ignore[arg-type]
            visit=partial(_keep, store, cut),
            progress=progress(name),
            bits=bits,
            check=check,  # type: ignore[arg-type]
            place=_placing(store, cut) if room else None,
        )
    kept = "kept in memory" if store.complete else "kept as far as they fit" if room else "read again each time"
    numbers = ((len(split.records), "image"), (len(split.records.boxes), "box"), (len(split.names), "class"))
    tell(f"{name}: {', '.join(counted(*number) for number in numbers)}; {kept}")
    if cut:
        split = cut.split(split)
        tell(f"{name}: {counted(len(split.records), 'image')} when cut into tiles of {cut.tiles.side} px")
    return LoadedSplit(split, store)


def _keep(store: ImageStore, cut: Cut | None, path: str, image: NDArray[np.uint8]) -> None:
    """Keeps an image, or what it is cut into."""
    for window in cut.windows(*image.shape[:2]) if cut else [None]:
        store.keep(path, _part(window, image), window)


def _placing(store: ImageStore, cut: Cut | None) -> Place:
    """What gives images, or what they are cut into, their places in a store."""
    if cut is None:
        return store.place

    def place(paths: Sequence[str], sizes: NDArray[np.int32]) -> None:
        pieces = [
            (path, window, (width, height) if window is None else (window.width, window.height))
            for path, (width, height) in zip(paths, sizes.tolist(), strict=True)
            for window in cut.windows(height, width)
        ]
        of_pieces = np.array([size for _, _, size in pieces], np.int32).reshape(-1, 2)
        store.place([path for path, _, _ in pieces], of_pieces, [window for _, window, _ in pieces])

    return place


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
    return _part(record.window, open_image(record.path, bits=record.bits))


def _part(window: Window | None, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a window shows of a picture; None: all of it."""
    return image if window is None else window.of(image)


def eval_set(
    loaded: LoadedSplit,
    size: tuple[int, int],
    batch: int,
    multiple: int,
    rect: bool,
    pad_colour: int = PAD_COLOUR,
    tiles: Tiles | None = None,
) -> EvalSet:
    """The validation batches: with `rect` the smallest frame for each image, else every frame is `size`.

    With `tiles`, an image that is larger than a tile is given by itself, to be cut.
    """
    if not rect:
        check_frame(size, multiple)
    return EvalSet(loaded.split, loaded.store, size, batch, multiple, rect, pad_colour, tiles)
