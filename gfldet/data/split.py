"""Loads one split: decodes every image once, checks every label, and puts all problems into one message.

Nothing is kept on disk between runs, so the next run sees every edit of images, labels or names.  A caller that also
wants the pixels passes `visit` and gets each image while it is in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gfldet.data import shapes
from gfldet.data.depth import Depth
from gfldet.data.findings import BoxCounts, findings_of_boxes
from gfldet.data.formats import (
    CLIPPED,
    CODES,
    EMPTY,
    OTHER_SIZE,
    REPEATED_BOX,
    TURNED_SIZE,
    Index,
    Item,
    Labels,
    coco,
    counted,
    voc,
    yolo,
)
from gfldet.data.formats.keypoints import LongRows
from gfldet.data.hold_out import held_out
from gfldet.data.images import ImageError, Warn, read_image
from gfldet.data.records import Finding, Record, Split
from gfldet.data.spec import DataSpec
from gfldet.errors import DataError, listed
from gfldet.files import exists
from gfldet.machine.cores import cores

ROUNDING = 0.5  # px; a box may reach this far out of its image without a warning that it was clipped
MIN_SIDE = 0.01  # px; a thinner box counts as empty: in a large image float32 gives both of its sides the same number

Visit = Callable[[Record, NDArray[np.uint8]], None]


def load_split(
    spec: DataSpec,
    name: str,
    on_bad: Literal["error", "skip"] = "error",
    visit: Visit | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    bits: int | None = None,
) -> Split:
    """The images and truths of the split `name` ("train", "val" or "test").

    `visit(record, image)` gets each decoded image, (H, W, 3) uint8 RGB, from any of the `workers` threads (0: one per
    core).  It also gets images of a split that has problems.  `bits` tells how many bits the samples of 16-bit files
    use; None: as many as the largest sample of the split needs, and then `visit` gets the files that seemed to have
    fewer a second time.  `progress(done, total)` is called from the calling thread.

    Raises DataError that lists every missing or undecodable image and every label mistake, with file and line.  With
    `on_bad="skip"` these images are left out instead, and `Split.findings` name them.
    """
    index = index_split(spec, name)
    problems, loaded, long_rows = list(index.problems), [], LongRows()
    for done, one in enumerate(_load_all(index.items, visit, workers or cores(), bits), 1):
        loaded.append(one)
        problems += one.problems
        long_rows.update(one.long_rows)
        if progress:
            progress(done, len(index.items))
    _refuse_keypoints(spec, name, long_rows)
    if problems and on_bad == "error":
        tail = "Correct or remove them, or set on_bad=skip to go on without these images."
        raise DataError(listed(f"{spec.source}: {name}: {len(problems)} problem(s):", problems, tail))
    used = [one for one in loaded if one.record is not None]
    if not used:
        tail = "At least one image is needed."
        raise DataError(listed(f"{spec.source}: {name}: no image is left to use:", problems, tail))
    depth = _give_one_depth(used, visit)
    findings = [
        *(Finding("files", "warning", f"{name}: {text}") for text in index.warnings),
        *_repairs(name, used),
        *_of_depth(name, used, depth, bits),
        *(Finding("left-out", "warning", f"{name}: left out (on_bad=skip): {problem}") for problem in problems),
        *findings_of_boxes(name, sum((one.counts for one in used), BoxCounts())),
    ]
    records = tuple(one.record for one in used if one.record is not None)
    return Split(name, records, spec.names, spec.category_ids, tuple(findings), depth)


def _give_one_depth(loaded: Sequence[_Loaded], visit: Visit | None) -> int | None:
    """Gives all 16-bit files of a split the largest depth that one of them was scaled by; None if there are none."""
    wide = [one for one in loaded if one.record and one.depth.used]
    bits = max((one.depth.used or 0 for one in wide), default=None)
    for one in wide:
        if one.record is None:
            continue
        one.record = dataclasses.replace(one.record, bits=bits)
        if one.depth.used != bits and visit:
            visit(one.record, open_image(one.record.path, bits=bits))
    return bits


def _of_depth(split: str, loaded: Sequence[_Loaded], bits: int | None, wanted: int | None) -> list[Finding]:
    """What is told of 16-bit files that do not use all their bits, and of those that use more than was wanted."""
    found = [one.depth.found for one in loaded if one.depth.found]
    above = sum(one > wanted for one in found) if wanted else 0
    if above:
        text = (
            f"{split}: {above} of {len(found)} 16-bit image(s) hold samples of more than sample_bits={wanted} bits; "
            "the larger ones are white"
        )
        return [Finding("samples-above-range", "warning", text, count=above)]
    if bits is None or bits == 16 or wanted:
        return []
    text = (
        f"{split}: {len(found)} 16-bit image(s) use {bits} bits or fewer, and are read by these {bits} bits; if that "
        "is not their range, set sample_bits"
    )
    return [Finding("samples-scaled", "notice", text, count=len(found))]


def _refuse_keypoints(spec: DataSpec, name: str, long_rows: LongRows) -> None:
    """Raises DataError if rows look like keypoints and the YAML does not say what they are."""
    seen = long_rows.keypoints() if spec.long_rows is None else None
    if seen is None:
        return
    place, (points, size) = seen
    values = "x y" if size == 2 else "x y visibility"
    raise DataError(
        f"{place}: the rows of {name!r} look like a box and {points} keypoint(s) of {values}, and would be wrong "
        f"boxes if read as polygons. Add 'kpt_shape: [{points}, {size}]' to {spec.source}: then the boxes are read "
        "and the keypoints left out. If the rows are polygons, add 'kpt_shape: null'"
    )


def index_split(spec: DataSpec, name: str) -> Index:
    """The images of a split and their label readers; opens no image.  Raises DataError if there are no images."""
    if spec.format == "shapes":
        if name not in spec.splits:
            raise DataError(f"{spec.source}: has no split {name!r}; it has: {', '.join(spec.splits)}")
        return shapes.index(str(spec.source), name)
    entries = spec.entries(name)
    if spec.format == "coco":
        files = [spec.coco[entry] for entry in entries]
        found = coco.index(files, spec.finder, spec.image_folder(name), spec.names, spec.category_ids)
        _check_there(found, files[0].path)
    elif spec.format == "yolo":
        found = yolo.index(entries, spec.finder, spec.names, spec.long_rows)
    else:
        found = voc.index(entries, spec.finder, spec.names)
    if spec.val_share and name in ("train", "val"):
        found = _held_out(found, spec, name == "val")
    found.warnings[:0] = spec.finder.take_notices()
    return found


def _check_there(found: Index, file: Path) -> None:
    """DataError if none of many images is there: then their folder is wrong, and a line for each would hide that."""
    if len(found.items) > 1 and not found.problems and not any(exists(item.path) for item in found.items):
        raise DataError(
            f"{file}: none of its {len(found.items)} images is there, beginning with {found.items[0].path}; "
            "name their folder in the data YAML, such as images: images/train"
        )


def _held_out(found: Index, spec: DataSpec, val: bool) -> Index:
    """The part of the training images that is held out as `val`, or the others; ids run from 0 but for COCO's own."""
    chosen = held_out([item.file_name for item in found.items], spec.val_share)
    items = [item for item, out in zip(found.items, chosen, strict=True) if out == val]
    if spec.format != "coco":
        items = [replace(item, image_id=number) for number, item in enumerate(items)]
    return Index(items, found.problems, found.warnings)


def open_image(path: str | Path, warn: Warn | None = None, bits: int | None = None) -> NDArray[np.uint8]:
    """The image of a `Record` from a file or from a built-in set, (H, W, 3) uint8 RGB; see `images.read_image`.

    `bits` is the record's: how many the samples of a 16-bit file use.
    """
    return _open(path, warn, Depth(bits))


def _open(path: str | Path, warn: Warn | None, depth: Depth) -> NDArray[np.uint8]:
    return shapes.read(path) if shapes.is_virtual(path) else read_image(path, warn, depth)


@dataclass(slots=True)
class _Loaded:
    """The result for one image: its record or its problems, notes of repairs, warnings about the file, its boxes."""

    record: Record | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: BoxCounts = BoxCounts()
    long_rows: LongRows = field(default_factory=LongRows)
    depth: Depth = field(default_factory=Depth)


def _load_all(items: Sequence[Item], visit: Visit | None, workers: int, bits: int | None) -> Iterator[_Loaded]:
    work = partial(_load, visit=visit, bits=bits)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="gfldet-read")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # an interrupt does not wait for thousands of images


def _load(item: Item, visit: Visit | None, bits: int | None) -> _Loaded:
    one = _Loaded(depth=Depth(bits))
    labels = item.labels()
    one.problems += labels.problems
    one.notes += labels.notes
    one.long_rows = labels.long_rows
    try:
        image = _open(item.path, one.warnings.append, one.depth)
    except ImageError as error:
        one.problems.append(str(error))
    if one.problems:
        return one
    height, width = image.shape[:2]
    _check_declared(item, labels, width, height, one.notes)
    one.record = _record(item, labels, width, height, one.notes)
    one.counts = _counts(labels, width, height)
    if visit:
        visit(one.record, image)
    return one


def _record(item: Item, labels: Labels, width: int, height: int, notes: list[tuple[str, str]]) -> Record:
    """The record of one image: boxes in px, clipped; crowds become ignore regions; repairs are added to `notes`."""
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
    return Record(
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


def _repeated_boxes(boxes: NDArray[np.float64], classes: NDArray[np.int64], places: NDArray[np.object_]) -> list[str]:
    """Places of boxes that repeat an earlier box of the same class."""
    if len(boxes) < 2:
        return []
    rows = np.column_stack([boxes, classes])
    _, first = np.unique(rows, axis=0, return_index=True)
    return [str(places[i]) for i in sorted(set(range(len(rows))) - set(first.tolist()))]


def _check_declared(item: Item, labels: Labels, width: int, height: int, notes: list[tuple[str, str]]) -> None:
    """Notes it if the label file gives another size than the image has; boxes always belong to the upright image."""
    if labels.declared is None or labels.declared == (width, height):
        return
    turned = labels.declared == (height, width)
    kind = TURNED_SIZE if turned else OTHER_SIZE
    notes.append((kind, f"{item.file_name} ({labels.declared[0]}x{labels.declared[1]}, not {width}x{height})"))


def _repairs(split: str, loaded: Sequence[_Loaded]) -> list[Finding]:
    """One finding for each kind of repair, with its count and places, and one for each damaged image."""
    places: dict[str, list[str]] = {}
    for one in loaded:
        for kind, place in one.notes:
            places.setdefault(kind, []).append(place)
    found = [
        Finding(CODES[kind], "warning", f"{split}: {counted(kind, of_kind)}", count=len(of_kind))
        for kind, of_kind in places.items()
    ]
    return found + [
        Finding("damaged-image", "warning", f"{split}: {text}", one.record.path)
        for one in loaded
        for text in one.warnings
        if one.record is not None
    ]
