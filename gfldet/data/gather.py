"""Reads some images of a split: their labels, and their sizes or pixels, together as columns.

What would be done for each box is done for all of them at once, and what is only counted is not kept: a set may have a
million boxes, and as many of them may need a repair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfldet.data import shapes
from gfldet.data.depth import Depth
from gfldet.data.findings import BoxCounts
from gfldet.data.formats import CLIPPED, EMPTY, OTHER_SIZE, REPEATED_BOX, TURNED_SIZE, Item, Labels, Places
from gfldet.data.formats.keypoints import LongRows
from gfldet.data.headers import plain_size
from gfldet.data.images import ImageError, Warn, read_image
from gfldet.data.records import Records, starts_of

ROUNDING = 0.5  # px; a box may reach this far out of its image without a warning that it was clipped
MIN_SIDE = 0.01  # px; a thinner box counts as empty: in a large image float32 gives both of its sides the same number

Visit = Callable[[str, NDArray[np.uint8]], None]
Boxes = NDArray[np.float64]


@dataclass(slots=True)
class Part:
    """Some images of a split, without those that have problems.

    notes     kind of repair -> where
    warnings  (path, text) of each file that is damaged but usable
    depths    number of the image in `records` -> how its 16-bit samples were taken
    """

    records: Records
    problems: list[str] = field(default_factory=list)
    notes: dict[str, Places] = field(default_factory=dict)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    counts: BoxCounts = BoxCounts()
    long_rows: LongRows = field(default_factory=LongRows)
    depths: dict[int, Depth] = field(default_factory=dict)


@dataclass(slots=True)
class _Used:
    """An image without problems, and what is to be told of it."""

    item: Item
    labels: Labels
    size: tuple[int, int]
    notes: list[tuple[str, str]]


def read_part(items: Sequence[Item], visit: Visit | None, bits: int | None, quick: bool) -> Part:
    """Reads the labels of some images and decodes them, or with `quick` only those whose header is not plain.

    `visit` gets the path and the pixels of each decoded image that has no problem.  It raises nothing of its own.
    """
    used: list[_Used] = []
    part = Part(Records.of([]))
    for item in items:
        labels, path = item.labels(), str(item.path)
        problems, warned, depth = list(labels.problems), list[str](), Depth(bits)
        if labels.long_rows.seen:
            part.long_rows.update(labels.long_rows)
        size, image = plain_size(path) if quick else None, None
        if size is None:
            try:
                image = open_with(item.path, warned.append, depth)
                size = image.shape[1], image.shape[0]
            except ImageError as error:
                problems.append(str(error))
        part.problems += problems
        if problems or size is None:
            continue
        if depth.used:
            part.depths[len(used)] = depth
        part.warnings += [(path, text) for text in warned]
        used.append(_Used(item, labels, size, [*labels.notes, *_other_size(item, labels, size)]))
        if visit and image is not None:
            visit(path, image)
    if used:
        _add_columns(part, used)
    return part


def open_with(path: str | Path, warn: Warn | None, depth: Depth) -> NDArray[np.uint8]:
    """The image in a file or of a built-in set; see `images.read_image`."""
    return shapes.read(path) if shapes.is_virtual(path) else read_image(path, warn, depth)


def joined(parts: Sequence[Part]) -> Part:
    """All images, in order; at least one part."""
    records = [part.records for part in parts]
    counts = [[np.diff(starts) for starts in (one.starts, one.ignore_starts)] for one in records]
    whole = Part(
        Records(
            list(chain.from_iterable(one.paths for one in records)),
            list(chain.from_iterable(one.image_ids for one in records)),
            list(chain.from_iterable(one.file_names for one in records)),
            np.concatenate([one.sizes for one in records]),
            np.concatenate([one.boxes for one in records]),
            np.concatenate([one.classes for one in records]),
            starts_of(np.concatenate([of_boxes for of_boxes, _ in counts])),
            np.concatenate([one.ignore for one in records]),
            np.concatenate([one.ignore_classes for one in records]),
            starts_of(np.concatenate([of_regions for _, of_regions in counts])),
            np.concatenate([one.bits for one in records]),
        )
    )
    before = 0
    for part in parts:
        whole.problems += part.problems
        whole.warnings += part.warnings
        whole.counts += part.counts
        whole.long_rows.update(part.long_rows)
        whole.depths |= {before + number: depth for number, depth in part.depths.items()}
        for kind, places in part.notes.items():
            whole.notes.setdefault(kind, Places()).update(places)
        before += len(part.records)
    return whole


def _add_columns(part: Part, used: Sequence[_Used]) -> None:
    """Records, counts and notes: boxes in px, clipped; crowds become ignore regions."""
    sizes = np.array([one.size for one in used], np.int32).reshape(-1, 2)
    lengths = [len(one.labels.classes) for one in used]
    image, starts = np.repeat(np.arange(len(used)), lengths), starts_of(lengths)
    corner = np.tile(sizes.astype(np.float64), 2)
    factor = np.where(np.array([[one.labels.normalised] for one in used], bool).reshape(-1, 1), corner, 1.0)
    boxes = _flat([one.labels.boxes for one in used], np.float64).reshape(-1, 4) * factor[image]
    inside = np.clip(boxes, 0, corner[image])
    classes = _flat([one.labels.classes for one in used], np.int64)
    crowd = _flat([one.labels.crowd for one in used], np.bool_)
    empty = (inside[:, 2:] - inside[:, :2] < MIN_SIDE).any(axis=1)
    clipped = (np.abs(inside - boxes) > ROUNDING).any(axis=1) & ~empty
    truth, region = ~empty & ~crowd, ~empty & crowd
    repeated = np.flatnonzero(truth)[_repeated(image[truth], inside[truth], classes[truth])]
    for kind, rows in ((EMPTY, np.flatnonzero(empty)), (CLIPPED, np.flatnonzero(clipped)), (REPEATED_BOX, repeated)):
        for row in rows.tolist():
            one = used[image[row]]
            one.notes.append((kind, one.labels.places[row - int(starts[image[row]])]))
    for kind, place in chain.from_iterable(one.notes for one in used):
        part.notes.setdefault(kind, Places()).add(place)
    part.counts = _counts(boxes, inside, crowd)
    part.records = Records(
        [str(one.item.path) for one in used],
        [one.item.image_id for one in used],
        [one.item.file_name for one in used],
        sizes,
        inside[truth].astype(np.float32),
        classes[truth],
        starts_of(np.bincount(image[truth], minlength=len(used))),
        inside[region].astype(np.float32),
        classes[region],
        starts_of(np.bincount(image[region], minlength=len(used))),
        np.zeros(len(used), np.uint8),
    )


def _flat(rows: Sequence[Sequence[object]], kind: type) -> NDArray:
    return np.array(list(chain.from_iterable(rows)), kind)


def _counts(boxes: Boxes, inside: Boxes, crowd: NDArray[np.bool_]) -> BoxCounts:
    sides = boxes[:, 2:] - boxes[:, :2]
    outside = (inside[:, 2:] - inside[:, :2]).prod(1) < 0.5 * sides.prod(1)
    return BoxCounts(len(boxes), int((sides < 1).all(1).sum()), int(outside.sum()), int(crowd.sum()))


def _repeated(image: NDArray[np.int64], boxes: Boxes, classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows that repeat an earlier box of the same class in the same image, in order."""
    rows = np.column_stack([image, boxes, classes])
    order = np.lexsort(rows.T[::-1])
    again = (rows[order[1:]] == rows[order[:-1]]).all(1)
    return np.sort(order[1:][again])


def _other_size(item: Item, labels: Labels, size: tuple[int, int]) -> list[tuple[str, str]]:
    """A note if the label file gives another size than the image has; boxes always belong to the upright image."""
    if labels.declared is None or labels.declared == size:
        return []
    width, height = size
    kind = TURNED_SIZE if labels.declared == (height, width) else OTHER_SIZE
    return [(kind, f"{item.file_name} ({labels.declared[0]}x{labels.declared[1]}, not {width}x{height})")]
