"""Loads one split: decodes every image once, checks every label, and puts all problems into one message.

Nothing is kept on disk between runs, so the next run sees every edit of images, labels or names.  A caller that also
wants the pixels passes `visit` and gets each image while it is in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from gfldet.data import shapes
from gfldet.data.checked import CheckedImage, Visit, check_image, open_image
from gfldet.data.findings import BoxCounts, findings_of_boxes
from gfldet.data.formats import CODES, LISTED_AGAIN, NO_LABELS, ONE, Index, Item, coco, merged, voc, yolo
from gfldet.data.formats.keypoints import LongRows
from gfldet.data.hold_out import held_out
from gfldet.data.located import Located, location
from gfldet.data.records import Finding, Severity, Split
from gfldet.data.spec import DataSpec
from gfldet.errors import DataError, listed
from gfldet.files import exists
from gfldet.machine.cores import cores

Progress = Callable[[int, int], None]


def load_split(
    spec: DataSpec,
    name: str,
    on_bad: Literal["error", "skip"] = "error",
    visit: Visit | None = None,
    workers: int = 0,
    progress: Progress | None = None,
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
    for done, one in enumerate(_check_all(index.items, visit, workers or cores(), bits), 1):
        loaded.append(one)
        problems += one.problems
        long_rows.update(one.long_rows)
        if progress:
            progress(done, len(index.items))
    unclear = _unclear_rows(spec, name, long_rows)
    if unclear:
        raise DataError(unclear)
    if problems and on_bad == "error":
        tail = "Correct or remove them, or set on_bad=skip to go on without these images."
        raise DataError(listed(f"{spec.source}: {name}: {len(problems)} problem(s):", problems, tail))
    used = [one for one in loaded if one.record is not None]
    if not used:
        tail = "At least one image is needed."
        raise DataError(listed(f"{spec.source}: {name}: no image is left to use:", problems, tail))
    depth = _give_one_depth(used, visit)
    findings = [
        *(Finding("files", "warning", f"{name}: {text}", split=name) for text in index.warnings),
        *merged(name, index.notes),
        *_repairs(name, used),
        *_of_depth(name, used, depth, bits),
        *(_problem(name, "left-out", "warning", problem, "left out (on_bad=skip): ") for problem in problems),
        *findings_of_boxes(name, sum((one.counts for one in used), BoxCounts())),
    ]
    records = tuple(one.record for one in used if one.record is not None)
    return Split(name, records, spec.names, spec.category_ids, tuple(findings), depth)


@dataclass(frozen=True, eq=False)
class Reading:
    """All of a split that can be read, whatever else is wrong with it.

    images    each image, in order; its `record` is None if the image cannot be used, else its `given` are there
    findings  one for each place: what training refuses, and what it repairs or warns of
    bits      of its 16-bit files, as in `Split`
    """

    name: str
    images: tuple[CheckedImage, ...]
    findings: tuple[Finding, ...]
    bits: int | None = None


def read_split(
    spec: DataSpec,
    name: str,
    visit: Visit | None = None,
    progress: Progress | None = None,
    bits: int | None = None,
    workers: int = 0,
) -> Reading:
    """A split as `load_split` reads it, but for what stops that: every problem is a finding of severity "error".

    Images whose labels are partly wrong have a record of the rows that can be read.  Arguments as in `load_split`.
    """
    try:
        index = index_split(spec, name)
    except DataError as error:
        return Reading(name, (), (Finding("unreadable-split", "error", f"{name}: {error}", spec.source, split=name),))
    loaded, long_rows = [], LongRows()
    for done, one in enumerate(_check_all(index.items, visit, workers or cores(), bits, given=True), 1):
        loaded.append(one)
        long_rows.update(one.long_rows)
        if progress:
            progress(done, len(index.items))
    unclear = _unclear_rows(spec, name, long_rows)
    if unclear is not None:  # then it is not known what any box is
        found = _problem(name, "unclear-rows", "error", unclear)
        return Reading(name, (), (found, *_of_index(name, index)))
    used = [one for one in loaded if one.record is not None]
    depth = _give_one_depth(used, visit)
    findings = [
        *_of_index(name, index),
        *(finding for one in loaded for finding in _of_image(name, one)),
        *_of_depth(name, used, depth, bits),
        *findings_of_boxes(name, sum((one.counts for one in used), BoxCounts())),
    ]
    return Reading(name, tuple(loaded), tuple(findings), depth)


def _of_index(split: str, index: Index) -> list[Finding]:
    """A finding for each thing that was found before an image was opened."""
    found = [_problem(split, "unreadable-entry", "error", problem) for problem in index.problems]
    found += [Finding("files", "warning", f"{split}: {text}", split=split) for text in index.warnings]
    for kind, place in index.notes:
        file, _ = location(place)
        image = file if kind in (NO_LABELS, LISTED_AGAIN) else None
        told = f"{split}: {place}: {ONE[kind]}"
        found.append(Finding(CODES[kind], "warning", told, file, split=split, image=image))
    return found


def _of_image(split: str, one: CheckedImage) -> list[Finding]:
    """A finding for each problem and each repair of an image, with its box where it has one."""
    found = []
    for problem in one.problems:
        code = "unreadable-image" if location(problem)[0] == one.path else "unreadable-labels"
        found.append(replace(_problem(split, code, "error", problem), image=one.path if one.record else None))
    found += [_damaged(split, one, text) for text in one.warnings]
    given = one.given
    boxes = dict(zip(given.places, given.boxes.tolist(), strict=True)) if given and one.notes else {}
    for kind, place in one.notes:
        file, line = location(place)
        box = boxes.get(place) if isinstance(place, Located) else None
        told = f"{split}: {place}: {ONE[kind]}"
        box = None if box is None else (box[0], box[1], box[2], box[3])
        found.append(Finding(CODES[kind], "warning", told, file, line, box, split=split, image=one.path))
    return found


def _give_one_depth(loaded: Sequence[CheckedImage], visit: Visit | None) -> int | None:
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


def _of_depth(split: str, loaded: Sequence[CheckedImage], bits: int | None, wanted: int | None) -> list[Finding]:
    """What is told of 16-bit files that do not use all their bits, and of those that use more than was wanted."""
    found = [one.depth.found for one in loaded if one.depth.found]
    above = sum(one > wanted for one in found) if wanted else 0
    if above:
        text = (
            f"{split}: {above} of {len(found)} 16-bit image(s) hold samples of more than sample_bits={wanted} bits; "
            "the larger ones are white"
        )
        return [Finding("samples-above-range", "warning", text, count=above, split=split)]
    if bits is None or bits == 16 or wanted:
        return []
    text = (
        f"{split}: {len(found)} 16-bit image(s) use {bits} bits or fewer, and are read by these {bits} bits; if that "
        "is not their range, set sample_bits"
    )
    return [Finding("samples-scaled", "notice", text, count=len(found), split=split)]


def _problem(split: str, code: str, severity: Severity, problem: str, lead: str = "") -> Finding:
    """A finding about the place that the text `problem` names."""
    file, line = location(problem)
    return Finding(code, severity, f"{split}: {lead}{problem}", file, line, split=split)


def _unclear_rows(spec: DataSpec, name: str, long_rows: LongRows) -> Located | None:
    """The problem if rows look like keypoints and the YAML does not say what they are."""
    seen = long_rows.keypoints() if spec.long_rows is None else None
    if seen is None:
        return None
    place, (points, size) = seen
    values = "x y" if size == 2 else "x y visibility"
    return place.told(
        f"the rows of {name!r} look like a box and {points} keypoint(s) of {values}, and would be wrong "
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
    return Index(items, found.problems, found.warnings, found.notes)


def _check_all(
    items: Sequence[Item], visit: Visit | None, workers: int, bits: int | None, given: bool = False
) -> Iterator[CheckedImage]:
    work = partial(check_image, visit=visit, bits=bits, given=given)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="gfldet-read")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # an interrupt does not wait for thousands of images


def _repairs(split: str, loaded: Sequence[CheckedImage]) -> list[Finding]:
    """One finding for each kind of repair, with its count and places, and one for each damaged image."""
    found = merged(split, (note for one in loaded for note in one.notes))
    return found + [_damaged(split, one, text) for one in loaded for text in one.warnings if one.record is not None]


def _damaged(split: str, one: CheckedImage, text: str) -> Finding:
    return Finding("damaged-image", "warning", f"{split}: {text}", one.path, split=split, image=one.path)
