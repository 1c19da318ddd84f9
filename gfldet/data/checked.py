"""One image of a split: decoded, its labels read and checked, its boxes brought to px and clipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gfldet.data import shapes
from gfldet.data.depth import Depth
from gfldet.data.findings import BoxCounts
from gfldet.data.formats import CLIPPED, EMPTY, OTHER_SIZE, REPEATED_BOX, TURNED_SIZE, Item, Labels, Note
from gfldet.data.formats.keypoints import LongRows
from gfldet.data.images import ImageError, Warn, read_image
from gfldet.data.located import Located
from gfldet.data.records import Record

ROUNDING = 0.5  # px; a box may reach this far out of its image without a warning that it was clipped
MIN_SIDE = 0.01  # px; a thinner box counts as empty: in a large image float32 gives both of its sides the same number

Visit = Callable[[Record, NDArray[np.uint8]], None]


@dataclass(frozen=True, slots=True, eq=False)
class GivenBoxes:
    """The boxes of an image as its label file gives them, regions to ignore included.

    boxes   (M, 4) float64 xyxy px of the upright image, not clipped
    classes (M,) int64 positions in the names
    places  M places in the label file
    truth   (M,) bool: the ones that are truths of the record, in its order
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    places: tuple[Located, ...]
    truth: NDArray[np.bool_]


@dataclass(slots=True)
class CheckedImage:
    """The result for one image: its record or its problems, notes of repairs, warnings about the file, its boxes.

    given  where it was asked for: then there may be a record, of the rows that can be read, beside problems
    """

    path: Path
    record: Record | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: BoxCounts = BoxCounts()
    long_rows: LongRows = field(default_factory=LongRows)
    depth: Depth = field(default_factory=Depth)
    given: GivenBoxes | None = None


def open_image(path: str | Path, warn: Warn | None = None, bits: int | None = None) -> NDArray[np.uint8]:
    """The image of a `Record` from a file or from a built-in set, (H, W, 3) uint8 RGB; see `images.read_image`.

    `bits` is the record's: how many the samples of a 16-bit file use.
    """
    return _open(path, warn, Depth(bits))


def _open(path: str | Path, warn: Warn | None, depth: Depth) -> NDArray[np.uint8]:
    return shapes.read(path) if shapes.is_virtual(path) else read_image(path, warn, depth)


def check_image(item: Item, visit: Visit | None = None, bits: int | None = None, given: bool = False) -> CheckedImage:
    """Decodes an image and checks its labels; `visit` gets its record and its pixels.  Raises nothing.

    `given` keeps what the label file gives, and makes a record of the rows that can be read where others cannot.
    """
    one = CheckedImage(item.path, depth=Depth(bits))
    labels = item.labels()
    one.problems += labels.problems
    one.notes += labels.notes
    one.long_rows = labels.long_rows
    try:
        image = _open(item.path, one.warnings.append, one.depth)
    except ImageError as error:
        one.problems.append(Located(str(error), item.path))
        return one
    if one.problems and not given:
        return one
    height, width = image.shape[:2]
    _check_declared(item, labels, width, height, one.notes)
    one.record, truth = _record(item, labels, width, height, one.notes)
    if given:
        boxes, _ = _in_pixels(labels, width, height)
        one.given = GivenBoxes(boxes, np.array(labels.classes, np.int64), tuple(labels.places), truth)
    one.counts = _counts(labels, width, height)
    if visit:
        visit(one.record, image)
    return one


def _record(item: Item, labels: Labels, width: int, height: int, notes: list[Note]) -> tuple[Record, NDArray[np.bool_]]:
    """The record of one image, and which (M,) of the boxes of its file are truths.

    Boxes are in px, clipped; crowds become ignore regions; repairs are added to `notes`.
    """
    boxes, size = _in_pixels(labels, width, height)
    inside = np.clip(boxes, 0, size)
    empty = (inside[:, 2:] - inside[:, :2] < MIN_SIDE).any(axis=1)
    clipped = (np.abs(inside - boxes) > ROUNDING).any(axis=1) & ~empty
    places = np.array(labels.places, object)
    notes += [(EMPTY, place) for place in places[empty]] + [(CLIPPED, place) for place in places[clipped]]
    classes = np.array(labels.classes, np.int64)
    crowd = np.array(labels.crowd, bool)
    truth = ~empty & ~crowd
    notes += [(REPEATED_BOX, place) for place in _repeated_boxes(inside[truth], classes[truth], places[truth])]
    record = Record(
        item.path,
        item.image_id,
        item.file_name,
        width,
        height,
        inside[truth].astype(np.float32),
        classes[truth],
        inside[~empty & crowd].astype(np.float32),
        classes[~empty & crowd],
    )
    return record, truth


def _in_pixels(labels: Labels, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes (M, 4) xyxy px as the label file gives them, and the image's size (4,) as its lower right corner twice."""
    boxes = np.array(labels.boxes, np.float64).reshape(-1, 4)
    size = np.array([width, height, width, height], np.float64)
    return boxes * size if labels.normalised else boxes, size


def _counts(labels: Labels, width: int, height: int) -> BoxCounts:
    boxes, size = _in_pixels(labels, width, height)
    sides, inside = boxes[:, 2:] - boxes[:, :2], np.clip(boxes, 0, size)
    outside = (inside[:, 2:] - inside[:, :2]).prod(1) < 0.5 * sides.prod(1)
    return BoxCounts(len(boxes), int((sides < 1).all(1).sum()), int(outside.sum()), sum(labels.crowd))


def _repeated_boxes(
    boxes: NDArray[np.float64], classes: NDArray[np.int64], places: NDArray[np.object_]
) -> list[Located]:
    """Places of boxes that repeat an earlier box of the same class."""
    if len(boxes) < 2:
        return []
    rows = np.column_stack([boxes, classes])
    _, first = np.unique(rows, axis=0, return_index=True)
    return [places[i] for i in sorted(set(range(len(rows))) - set(first.tolist()))]


def _check_declared(item: Item, labels: Labels, width: int, height: int, notes: list[Note]) -> None:
    """Notes it if the label file gives another size than the image has; boxes always belong to the upright image."""
    if labels.declared is None or labels.declared == (width, height):
        return
    turned = labels.declared == (height, width)
    kind = TURNED_SIZE if turned else OTHER_SIZE
    told = f"{item.file_name} ({labels.declared[0]}x{labels.declared[1]}, not {width}x{height})"
    notes.append((kind, Located(told, item.path)))
