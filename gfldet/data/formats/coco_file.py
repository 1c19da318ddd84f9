"""A COCO JSON as columns: its images, categories and annotations, read once and kept as arrays.

Letters: B images of the file, N annotations.  What one annotation has wrong is kept as text and told with its image.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfldet.data.json_stream import NotAnObject, read_lists
from gfldet.errors import DataError, shown
from gfldet.files import told_as, version

Id = int | str
MAX_DIGITS = 20  # of an id that is written as text
MAX_ID = 2**63  # where the evaluators' numbers end
TOGETHER = 512  # annotations
_LISTS = ("images", "annotations", "categories")
_NUMBERS = {int, float}
_CROWD = {"0": False, "1": True}  # some programs write all values as text


@dataclass(frozen=True, slots=True, eq=False)
class CocoFile:
    """One COCO JSON.

    image_ids, file_names, declared  of B images; declared (width, height) is None if the file gives no size
    boxes       (N, 4) float64 [x, y, width, height] px, as written; rows are sorted by image
    starts      (B + 1,) int64: the annotations of image i are the rows starts[i] to starts[i + 1]
    categories  the rows of the list, as written
    problems    one message, with the file, for each image row or annotation that belongs to no image
    """

    path: Path
    image_ids: list[Id]
    file_names: list[str]
    declared: list[tuple[int, int] | None]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    starts: NDArray[np.int64]
    categories: list[dict[str, Any]]
    problems: list[str]
    _ids: _Values
    _category_ids: _Values
    _faults: Mapping[int, str]
    _order: NDArray[np.int64]

    def annotation_id(self, row: int) -> Any:
        """The id of annotation `row` as the file has it; "?" if it has none."""
        return self._ids[int(self._order[row])]

    def category_id(self, row: int) -> Any:
        """The category_id of annotation `row` as the file has it, which may be of any type."""
        return self._category_ids[int(self._order[row])]

    def plain_categories(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(N,) the category_ids, and whether each is a whole number in an annotation without a fault."""
        ids, others = self._category_ids.numbers()
        plain = np.ones(len(ids), np.bool_)
        plain[[*others, *self._faults]] = False
        return ids[self._order], plain[self._order]

    def used_categories(self) -> set[Any]:
        """The category_ids of all annotations, but for those that can be no id."""
        return {category for category in self._category_ids.distinct() if isinstance(category, (int, str))}

    def fault(self, row: int) -> str | None:
        """What is wrong with the bbox or iscrowd of annotation `row`; None: nothing."""
        return self._faults.get(int(self._order[row]))


class CocoFiles:
    """The COCO JSON files of one data set: each is read when it is first asked for, and again only after an edit."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[tuple[int, int], CocoFile]] = {}

    def __getitem__(self, file: Path) -> CocoFile:
        """The file's content; raises DataError if it is not a COCO JSON."""
        with told_as(DataError, file):
            stamp = version(file)
        if file not in self._read or self._read[file][0] != stamp:
            self._read[file] = (stamp, read_coco(file))
        return self._read[file][1]


def read_coco(file: Path) -> CocoFile:
    """Reads a COCO JSON row by row; raises DataError if the file is not a COCO JSON."""
    images, annotations = _Images(file), _Annotations(file)
    categories: list[dict[str, Any]] = []
    expected = "is not a COCO file; expected an object with the lists images, annotations, categories"

    def take(function: Any) -> Any:
        def row(value: Any) -> None:
            if not isinstance(value, dict):
                raise DataError(f"{file}: {expected}")
            function(value)

        return row

    try:
        functions = (take(images.add), take(annotations.add), take(categories.append))
        found = read_lists(file, dict(zip(_LISTS, functions, strict=True)))
    except NotAnObject:
        raise DataError(f"{file}: {expected}") from None
    if len(found) < len(_LISTS):
        raise DataError(f"{file}: {expected}")
    return _joined(images, annotations, categories)


class _Values:
    """Values of which nearly all are whole numbers, at 8 bytes each."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self._others: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, row: int) -> Any:
        return self._others[row] if row in self._others else self._numbers[row]

    def numbers(self) -> tuple[NDArray[np.int64], list[int]]:
        """(N,) the values, 0 for the others, and the rows of the others."""
        return np.array(self._numbers, np.int64), list(self._others)

    def distinct(self) -> list[Any]:
        """Each value once, in any order; the others may be of any type."""
        return [*set(self._numbers), *self._others.values()]

    def extend(self, numbers: array[int]) -> None:
        self._numbers.extend(numbers)

    def append(self, value: Any) -> None:
        if type(value) is int and -MAX_ID <= value < MAX_ID:
            self._numbers.append(value)
        else:
            self._others[len(self._numbers)] = value
            self._numbers.append(0)


@dataclass(slots=True)
class _Images:
    """The rows of `images` as they are read."""

    file: Path
    position: dict[Id, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    declared: list[tuple[int, int] | None] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rows: int = 0

    def add(self, row: dict[str, Any]) -> None:
        image_id, name = row.get("id"), row.get("file_name")
        place = f"{self.file}: images[{self.rows}]"
        self.rows += 1
        if not _is_image_id(image_id) or not isinstance(name, str) or not name:
            self.problems.append(f"{place}: expected an 'id' and a 'file_name', got {shown(row)}")
        elif image_id in self.position:
            self.problems.append(f"{place}: id {shown(image_id)} is used twice ({shown(name, quoted=False)})")
        else:
            self.position[image_id] = len(self.names)  # type: ignore[index]
            self.names.append(name)
            self.declared.append(_declared(row))


@dataclass(slots=True)
class _Annotations:
    """The rows of `annotations` as they are read: images may come after them, so ids are looked up at the end."""

    file: Path
    ids: _Values = field(default_factory=_Values)
    image_ids: _Values = field(default_factory=_Values)
    category_ids: _Values = field(default_factory=_Values)
    boxes: array[float] = field(default_factory=lambda: array("d"))
    crowd: bytearray = field(default_factory=bytearray)
    faults: dict[int, str] = field(default_factory=dict)
    waiting: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """Takes one row; `finish` follows the last one."""
        self.waiting.append(row)
        if len(self.waiting) == TOGETHER:
            self.finish()

    def finish(self) -> None:
        """Takes the rows that wait: together if there is nothing odd about any of them."""
        rows, self.waiting = self.waiting, []
        if not self._add_plain(rows):
            for row in rows:
                self._add(row)

    def _add_plain(self, rows: Sequence[dict[str, Any]]) -> bool:
        """Takes rows whose values have the usual types; if one has not, none is taken."""
        boxes: list[Any] = [row.get("bbox") for row in rows]
        crowd: list[Any] = [row.get("iscrowd", 0) for row in rows]
        columns: list[list[Any]] = [[row.get(name) for row in rows] for name in ("id", "image_id", "category_id")]
        if {*map(type, boxes)} != {list} or {*map(len, boxes)} != {4}:
            return False
        sides = [*chain.from_iterable(boxes)]
        if not {*map(type, sides)} <= _NUMBERS or {*map(type, chain(crowd, *columns))} != {int} or {*crowd} - {0, 1}:
            return False
        try:
            px, numbers = array("d", sides), [array("q", column) for column in columns]
        except OverflowError:
            return False
        if not np.isfinite(px).all():
            return False
        self.boxes.extend(px)
        self.crowd.extend(crowd)
        for values, column in zip((self.ids, self.image_ids, self.category_ids), numbers, strict=True):
            values.extend(column)
        return True

    def _add(self, row: dict[str, Any]) -> None:
        box, crowd, category = _bbox(row.get("bbox")), _is_crowd(row.get("iscrowd")), row.get("category_id")
        if box is None:
            fault = f"bbox is {shown(row.get('bbox'))}; expected 4 finite numbers [x, y, width, height] in pixels"
            self.faults[len(self.ids)] = fault
        elif crowd is None:
            self.faults[len(self.ids)] = f"iscrowd is {shown(row['iscrowd'])}; expected 0 or 1"
        self.ids.append(row.get("id", "?"))
        self.image_ids.append(row.get("image_id"))
        self.category_ids.append(whole(category))
        self.boxes.extend(box or (0.0, 0.0, 0.0, 0.0))
        self.crowd.append(bool(crowd))


def whole(value: object) -> object:
    """An id as a number, where it is written as text of digits or as 1.0; every other value as it is."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < MAX_DIGITS:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _joined(images: _Images, annotations: _Annotations, categories: list[dict[str, Any]]) -> CocoFile:
    """The annotations sorted by image, in each image in the order of the file."""
    annotations.finish()
    numbers, others = annotations.image_ids.numbers()
    image_of = np.array([images.position.get(number, -1) for number in numbers.tolist()], np.int64)
    image_of[others] = -1
    problems = images.problems
    for row in np.flatnonzero(image_of < 0).tolist():
        image_id = annotations.image_ids[row]
        known = type(image_id) in (int, str) and image_id in images.position
        if not known:  # perhaps the number in place of its text
            image_id = str(image_id) if type(image_id) is int else whole(image_id)
            known = type(image_id) in (int, str) and image_id in images.position
        image_of[row] = images.position[image_id] if known else -1
        if not known:
            place = f"{images.file}: annotation {shown(annotations.ids[row], quoted=False)}"
            problems.append(f"{place}: unknown image_id {shown(annotations.image_ids[row])}")
    order = np.argsort(image_of, kind="stable")
    order = order[int((image_of < 0).sum()) :]
    return CocoFile(
        images.file,
        list(images.position),
        images.names,
        images.declared,
        np.array(annotations.boxes, np.float64).reshape(-1, 4)[order],
        np.frombuffer(annotations.crowd, np.bool_)[order],
        np.searchsorted(image_of[order], np.arange(len(images.names) + 1)),
        categories,
        problems,
        annotations.ids,
        annotations.category_ids,
        annotations.faults,
        order,
    )


def _is_image_id(value: object) -> bool:
    return isinstance(value, str) or (type(value) is int and abs(value) < MAX_ID)


def _bbox(bbox: object) -> tuple[float, float, float, float] | None:
    """The four numbers of a bbox; None if it does not hold four finite numbers."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not {*map(type, bbox)} <= _NUMBERS:
        return None
    try:
        x, y, w, h = map(float, bbox)
    except OverflowError:  # a whole number of more than 308 digits
        return None
    return (x, y, w, h) if all(map(math.isfinite, (x, y, w, h))) else None


def _is_crowd(value: object) -> bool | None:
    """0, 1, false, true, "0", "1", null or nothing as a flag; None for everything else."""
    if isinstance(value, str):
        return _CROWD.get(value.strip())
    if value is None or value in (0, 1):
        return bool(value)
    return None


def _declared(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None
