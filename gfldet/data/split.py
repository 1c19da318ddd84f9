"""Loads one split: checks every image and every label, and puts all problems into one message.

Nothing is kept on disk between runs, so the next run sees every edit of images, labels or names.  A full check decodes
every image; a caller that also wants the pixels passes `visit` and gets each image while it is in memory.  A quick one
reads the headers of plain images (see `headers.py`), and decodes only the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gfldet.data import shapes
from gfldet.data.depth import Depth
from gfldet.data.findings import findings_of_boxes
from gfldet.data.formats import CODES, LISTED_AGAIN, NO_LABELS, ONE, Index, Item, by_kind, coco, merged, voc, yolo
from gfldet.data.formats.keypoints import LongRows
from gfldet.data.gather import GivenBoxes, Part, Problem, Repair, Visit, joined, open_image, read_part
from gfldet.data.headers import header_size
from gfldet.data.hold_out import held_out
from gfldet.data.located import Located, location
from gfldet.data.records import Finding, Records, Severity, Split
from gfldet.data.spec import DataSpec
from gfldet.errors import DataError, counted, listed, worded
from gfldet.files import exists
from gfldet.machine.cores import cores

Progress = Callable[[int, int], None]
Check = Literal["auto", "full", "quick"]
Place = Callable[[Sequence[str], NDArray[np.int32]], None]
T = TypeVar("T")
R = TypeVar("R")

FULL_UP_TO = 20_000  # images of a split that check_images=auto decodes; beyond, that takes minutes
PART = 64  # images that are read together


def load_split(
    spec: DataSpec,
    name: str,
    on_bad: Literal["error", "skip"] = "error",
    visit: Visit | None = None,
    workers: int = 0,
    progress: Progress | None = None,
    bits: int | None = None,
    check: Check = "full",
    place: Place | None = None,
) -> Split:
    """The images and truths of the split `name` ("train", "val" or "test").

    `check` is full, quick, or auto: full up to FULL_UP_TO images.  With a full one `visit(path, image)` gets each
    decoded image, (H, W, 3) uint8 RGB, from any of the `workers` threads (0: one per core).  It also gets images of a
    split that has problems.  `bits` tells how many bits the samples of 16-bit files use; None: as many as the largest
    sample of the split needs, and then `visit` gets the files that seemed to have fewer a second time.
    `place(paths, sizes)` gets the paths and the (B, 2) widths and heights of all images: before any is decoded, by the
    headers, with 0 for unknown; after a quick check those of the split.  `progress(done, total)` is called from the
    calling thread.

    Raises DataError that lists every missing or undecodable image and every label mistake, with file and line.  With
    `on_bad="skip"` these images are left out instead, and `Split.findings` name them.
    """
    index = index_split(spec, name)
    quick = check == "quick" or (check == "auto" and len(index.items) > FULL_UP_TO)
    workers = workers or cores()
    if place and not quick:
        place(*_headers(index.items, workers))
    read = partial(read_part, visit=None if quick else visit, bits=bits, quick=quick)
    found = _gathered(read, index.items, workers, progress)
    unclear = _unclear_rows(spec, name, found.long_rows)
    if unclear:
        raise DataError(unclear)
    problems = [*index.problems, *(problem.text for problem in found.problems)]
    _refuse_problems(spec, name, problems, on_bad == "skip", len(found.records))
    left_out = {problem.path for problem in found.problems}
    notes = [(kind, place) for kind, place in index.notes if location(place)[0] not in left_out]
    depth = _give_one_depth(found, None if quick else visit)
    if place and quick:
        place(found.records.paths, found.records.sizes)
    findings = [
        *(Finding("files", "warning", f"{name}: {text}", split=name) for text in index.warnings),
        *merged(name, by_kind(notes)),
        *merged(name, found.notes),
        *(_damaged(name, path, text) for path, text in found.warnings),
        *_of_depth(name, found.depths, depth, bits),
        *(_problem(name, "left-out", "warning", problem, "left out (on_bad=skip): ") for problem in problems),
        *findings_of_boxes(name, found.counts),
        *_of_check(name, len(index.items), quick and check == "auto"),
    ]
    return Split(name, found.records, spec.names, spec.category_ids, tuple(findings), depth)


@dataclass(frozen=True, eq=False)
class Reading:
    """All of a split that can be read, whatever else is wrong with it.

    images    how many there are
    records   of the images that can be used, in order, as in `Split`
    given     of each record, what its label file gives
    findings  one for each place: what training refuses, and what it repairs or warns of
    bits      of its 16-bit files, as in `Split`
    """

    name: str
    images: int
    records: Records
    given: tuple[GivenBoxes, ...]
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
        found = Finding("unreadable-split", "error", f"{name}: {error}", spec.source, split=name)
        return Reading(name, 0, Records.of([]), (), (found,))
    read = partial(read_part, visit=visit, bits=bits, quick=False, details=True)
    part = _gathered(read, index.items, workers or cores(), progress)
    unclear = _unclear_rows(spec, name, part.long_rows)
    if unclear is not None:  # then it is not known what any box is
        found = _problem(name, "unclear-rows", "error", unclear)
        return Reading(name, 0, Records.of([]), (), (found, *_of_index(name, index)))
    depth = _give_one_depth(part, visit)
    findings = [
        *_of_index(name, index),
        *(_unreadable(name, problem) for problem in part.problems),
        *(_damaged(name, path, text) for path, text in part.warnings),
        *(_repaired(name, repair) for repair in part.repairs),
        *_of_depth(name, part.depths, depth, bits),
        *findings_of_boxes(name, part.counts),
    ]
    return Reading(name, len(index.items), part.records, tuple(part.given), tuple(findings), depth)


def _refuse_problems(spec: DataSpec, name: str, problems: Sequence[str], skip: bool, left: int) -> None:
    """Raises DataError if a split has problems; with `skip` only if no image is left."""
    if problems and not skip:
        tail = "Correct or remove them, or set on_bad=skip to go on without these images."
        raise DataError(listed(f"{spec.source}: {name}: {counted(len(problems), 'problem')}:", problems, tail))
    if not left:
        tail = "At least one image is needed."
        raise DataError(listed(f"{spec.source}: {name}: no image is left to use:", problems, tail))


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


def _unreadable(split: str, problem: Problem) -> Finding:
    """A finding about what cannot be read of an image."""
    code = "unreadable-image" if location(problem.text)[0] == problem.path else "unreadable-labels"
    found = _problem(split, code, "error", problem.text)
    return replace(found, image=problem.path) if problem.usable else found


def _repaired(split: str, repair: Repair) -> Finding:
    """A finding about one repair, with its box where it has one."""
    file, line = location(repair.place)
    told = f"{split}: {repair.place}: {ONE[repair.kind]}"
    return Finding(CODES[repair.kind], "warning", told, file, line, repair.box, split=split, image=repair.path)


def _of_check(split: str, count: int, chosen: bool) -> list[Finding]:
    """What is told of a quick check that nobody asked for."""
    if not chosen:
        return []
    text = (
        f"{split}: of {counted(count, 'image')} only the headers were checked (check_images=auto decodes up to "
        f"{FULL_UP_TO} images); one that is damaged inside is found when it is first used. check_images=full "
        "decodes all now, check_images=quick is silent"
    )
    return [Finding("checked-quick", "notice", text, count=count, split=split)]


def _headers(items: Sequence[Item], workers: int) -> tuple[list[str], NDArray[np.int32]]:
    """The paths of images, and (B, 2) width and height by their headers, 0 where these do not tell."""
    paths = [str(item.path) for item in items]
    parts = [sizes for _, sizes in _in_parts(lambda some: [_header_size(path) for path in some], paths, workers)]
    return paths, np.array(list(chain.from_iterable(parts)), np.int32).reshape(-1, 2)


def _header_size(path: str) -> tuple[int, int]:
    return shapes.size(path) if shapes.is_virtual(path) else header_size(path) or (0, 0)


def _give_one_depth(found: Part, visit: Visit | None) -> int | None:
    """Gives all 16-bit files of a split the largest depth that one of them was scaled by; None if there are none."""
    if not found.depths:
        return None
    bits = max(depth.used or 0 for depth in found.depths.values())
    for number, depth in found.depths.items():
        found.records.bits[number] = bits
        if depth.used != bits and visit:
            path = found.records.paths[number]
            visit(path, open_image(path, bits=bits))
    return bits


def _of_depth(split: str, depths: Mapping[int, Depth], bits: int | None, wanted: int | None) -> list[Finding]:
    """What is told of 16-bit files that do not use all their bits, and of those that use more than was wanted."""
    found = [depth.found for depth in depths.values() if depth.found]
    above = sum(one > wanted for one in found) if wanted else 0
    if above:
        text = (
            f"{split}: {above} of {counted(len(found), '16-bit image')} with samples of more than "
            f"sample_bits={wanted} bits; the larger ones are white"
        )
        return [Finding("samples-above-range", "warning", text, count=above, split=split)]
    if bits is None or bits == 16 or wanted:
        return []
    text = (
        f"{split}: {worded(len(found), '16-bit image(s) [uses|use]')} {bits} bits or fewer; all are read by these "
        f"{bits} bits; if that is not their range, set sample_bits"
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
        f"the rows of {name!r} look like a box and {counted(points, 'keypoint')} of {values}, and would be wrong "
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
            f"{file}: none of its images is there, beginning with {found.items[0].path}; "
            "name their folder in the data YAML, such as images: images/train"
        )


def _held_out(found: Index, spec: DataSpec, val: bool) -> Index:
    """The part of the training images that is held out as `val`, or the others; ids run from 0 but for COCO's own."""
    chosen = held_out([item.file_name for item in found.items], spec.val_share)
    items = [item for item, out in zip(found.items, chosen, strict=True) if out == val]
    if spec.format != "coco":
        items = [replace(item, image_id=number) for number, item in enumerate(items)]
    return Index(items, found.problems, found.warnings, found.notes)


def _gathered(
    read: Callable[[Sequence[Item]], Part], items: Sequence[Item], workers: int, progress: Progress | None
) -> Part:
    """What `read` makes of all items, some at a time."""
    parts = []
    for done, part in _in_parts(read, items, workers):
        parts.append(part)
        if progress:
            progress(done, len(items))
    return joined(parts or [read([])])


def _in_parts(work: Callable[[Sequence[T]], R], items: Sequence[T], workers: int) -> Iterator[tuple[int, R]]:
    """How many items are done, and what `work` made of the last part of them, in order; several threads work."""
    size = max(1, min(PART, len(items) // (8 * workers)))
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="gfldet-read")
    try:
        for number, result in enumerate(pool.map(work, parts)):
            yield min(len(items), (number + 1) * size), result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # an interrupt does not wait for thousands of images


def _damaged(split: str, path: str, text: str) -> Finding:
    file = Path(path)
    return Finding("damaged-image", "warning", f"{split}: {text}", file, split=split, image=file)
