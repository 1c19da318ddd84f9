"""Reads some images of a split: their labels, and their sizes or pixels, together as columns.

What would be done for each box is done for all of them at once, and what is only counted is not kept: a set may have a
million boxes, and as many of them may need a repair.  A check of the data asks for the details: every place of every
repair, what the label files give, and the rows that can be read where others cannot.
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
from gfldet.data.formats import CLIPPED, EMPTY, OTHER_SIZE, REPEATED_BOX, TURNED_SIZE, Item, Labels, Note, Places
from gfldet.data.formats.keypoints import LongRows
from gfldet.data.headers import plain_size
from gfldet.data.images import ImageError, Warn, read_image
from gfldet.data.located import Located
from gfldet.data.records import Box, Records, starts_of

ROUNDING = 0.5  # px; a box may reach this far out of its image without a warning that it was clipped
MIN_SIDE = 0.01  # px; a thinner box counts as empty: in a large image float32 gives both of its sides the same number

Visit = Callable[[str, NDArray[np.uint8]], None]
Boxes = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class GivenBoxes:
    """The boxes of an image as its label file gives them, regions to ignore included.

    boxes   (M, 4) float64 xyxy px of the upright image, not clipped
    classes (M,) int64 positions in the names
    places  M places in the label file
    truth   (M,) bool: the ones that are truths of the record, in its order
    """

    boxes: Boxes
    classes: NDArray[np.int64]
    places: Sequence[Located]
    truth: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Problem:
    """What cannot be read of an image; `usable` tells whether there is a record of it all the same."""

    text: str
    path: Path
    usable: bool


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair of an image: its kind and place, and the box (xyxy px, as its file gives it) if there is one."""

    kind: str
    place: Located
    path: Path
    box: Box | None


@dataclass(slots=True)
class Part:
    """Some images of a split, without those that cannot be used.

    notes     kind of repair -> where
    warnings  (path, text) of each file that is damaged but usable
    depths    number of the image in `records` -> how its 16-bit samples were taken
    given     of each record, where details are asked for
    repairs   of all images, where details are asked for; in place of `notes`
    """

    records: Records
    problems: list[Problem] = field(default_factory=list)
    notes: dict[str, Places] = field(default_factory=dict)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    counts: BoxCounts = BoxCounts()
    long_rows: LongRows = field(default_factory=LongRows)
    depths: dict[int, Depth] = field(default_factory=dict)
    given: list[GivenBoxes] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)


@dataclass(slots=True)
class _Image:
    """An image as it was read, and what is to be told of it; without a size it cannot be used."""

    item: Item
    labels: Labels
    depth: Depth
    size: tuple[int, int] | None
    notes: list[Note]
    given: GivenBoxes | None = None


def read_part(items: Sequence[Item], visit: Visit | None, bits: int | None, quick: bool, details: bool = False) -> Part:
    """Reads the labels of some images and decodes them, or with `quick` only those whose header is not plain.

    `visit` gets the path and the pixels of each decoded image that can be used: one without problems, or with `details`
    any that can be decoded.  It raises nothing of its own.
    """
    part, images = Part(Records.of([])), list[_Image]()
    for item in items:
        labels, path, depth, warned = item.labels(), str(item.path), Depth(bits), list[str]()
        problems = list(labels.problems)
        if labels.long_rows.seen:
            part.long_rows.update(labels.long_rows)
        size, pixels = plain_size(path) if quick else None, None
        if size is None:
            try:
                pixels = _open_with(item.path, warned.append, depth)
                size = pixels.shape[1], pixels.shape[0]
            except ImageError as error:
                problems.append(Located(str(error), item.path))
        if problems and not details:
            size = None
        part.problems += [Problem(text, item.path, size is not None) for text in problems]
        if size is None and not details:
            continue
        part.warnings += [(path, text) for text in warned]
        images.append(_Image(item, labels, depth, size, [*labels.notes, *_other_size(item, labels, size)]))
        if visit and pixels is not None:
            visit(path, pixels)
    used = [one for one in images if one.size is not None]
    part.depths = {number: one.depth for number, one in enumerate(used) if one.depth.used}
    if used:
        _add_columns(part, used, details)
    if details:
        part.given = [one.given for one in used if one.given is not None]
        part.repairs = [repair for one in images for repair in _repairs(one)]
    else:
        for kind, place in chain.from_iterable(one.notes for one in images):
            part.notes.setdefault(kind, Places()).add(place)
    return part


def open_image(path: str | Path, warn: Warn | None = None, bits: int | None = None) -> NDArray[np.uint8]:
    """The image of a `Record` from a file or from a built-in set, (H, W, 3) uint8 RGB; see `images.read_image`.

    `bits` is the record's: how many the samples of a 16-bit file use.
    """
    return _open_with(path, warn, Depth(bits))


def _open_with(path: str | Path, warn: Warn | None, depth: Depth) -> NDArray[np.uint8]:
    """As `open_image`; `depth` tells afterwards what was found in the samples."""
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
        whole.given += part.given
        whole.repairs += part.repairs
        before += len(part.records)
    return whole


def _add_columns(part: Part, used: Sequence[_Image], details: bool) -> None:
    """Records and counts, and notes of the images: boxes in px, clipped; crowds become ignore regions."""
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
    if details:
        for one, first, end in zip(used, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            rows_of = slice(first, end)
            one.given = GivenBoxes(boxes[rows_of], classes[rows_of], one.labels.places, truth[rows_of])
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


def _other_size(item: Item, labels: Labels, size: tuple[int, int] | None) -> list[Note]:
    """A note if the label file gives another size than the image has; boxes always belong to the upright image."""
    if size is None or labels.declared is None or labels.declared == size:
        return []
    width, height = size
    kind = TURNED_SIZE if labels.declared == (height, width) else OTHER_SIZE
    told = f"{item.file_name} ({labels.declared[0]}x{labels.declared[1]}, not {width}x{height})"
    return [(kind, Located(told, item.path))]


def _repairs(one: _Image) -> list[Repair]:
    """The repairs of an image, each with its box."""
    given = one.given
    boxes = dict(zip(given.places, given.boxes.tolist(), strict=True)) if given and one.notes else {}
    repairs = []
    for kind, place in one.notes:
        x1, y1, x2, y2 = boxes.get(place, [None] * 4)
        repairs.append(Repair(kind, place, one.item.path, None if x1 is None else (x1, y1, x2, y2)))
    return repairs
