"""COCO JSON: images, annotations and categories in one file; boxes [x, y, width, height] in pixels.

Category ids stay as they are in the file.  `iscrowd: 1` becomes an ignore region.  An annotation that repeats another
one gives a warning but is not dropped, so that AP equals that of pycocotools on the same file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfldet.data.finder import Finder, relative
from gfldet.data.formats import EMPTY, SWAPPED, Index, Item, Labels, repeats
from gfldet.data.formats.coco_file import MAX_ID, CocoFile, whole
from gfldet.data.located import Located, Made
from gfldet.errors import DataError, listed, shown, worded


def index(
    files: Sequence[CocoFile], finder: Finder, images: Path | None, names: Sequence[str], category_ids: Sequence[int]
) -> Index:
    """The images of one or several COCO JSONs with their own ids.

    The file names are relative to the folder `images`; None means the JSON's own folder.
    `names` and `category_ids` are the classes in order; raises DataError if a file has other classes.
    """
    result = Index()
    class_of = {category: position for position, category in enumerate(category_ids)}
    for file in files:
        expected = dict(zip(category_ids, names, strict=True))
        check_categories(file.path, categories_of(file.path, file.categories), expected)
        result.problems += [Located(problem, file.path) for problem in file.problems]
        places = finder.find_all(
            file.file_names, [file.path.parent if images is None else images], relative(file.path, finder.root)
        )
        plain = _Plain.of(file, class_of)
        for number, (image_id, name, found) in enumerate(zip(file.image_ids, file.file_names, places, strict=True)):
            if found.problem:
                result.problems.append(Located(found.problem, file.path))
                continue
            labels = partial(read_labels, file, plain, number, class_of)
            file_name = relative(found.path, finder.root) if found.elsewhere else name
            result.items.append(Item(found.path, file_name, image_id, labels))
        if not file.image_ids and not file.problems:
            raise DataError(f"{file.path}: holds no images; expected at least one under 'images'")
    if len(files) > 1:
        _make_ids_unique(result)
    result.notes += repeats([item.path for item in result.items])
    return result


def _make_ids_unique(result: Index) -> None:
    """New ids for the images of later files whose ids are taken."""
    ids = {item.image_id for item in result.items}
    free = count(1 + max((i for i in ids if isinstance(i, int)), default=0))
    seen: set[int | str] = set()
    again = 0
    for number, item in enumerate(result.items):
        if item.image_id in seen:
            result.items[number] = replace(item, image_id=next(free))
            again += 1
        seen.add(item.image_id)
    if again:
        result.warnings.append(
            worded(again, "image(s) [has|have] an id that an earlier JSON uses too; [it|they] got [a new one|new ones]")
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Plain:
    """The annotations of a file in which there is nothing to tell or to repair, all at once.

    corners  (N, 4) xyxy px;  classes  (N,) positions in the names
    others   (N + 1,) how many annotations that are not plain stand before a row
    """

    corners: NDArray[np.float64]
    classes: NDArray[np.int64]
    others: NDArray[np.int64]

    @classmethod
    def of(cls, file: CocoFile, class_of: Mapping[int, int]) -> _Plain:
        ids, good = file.plain_categories()
        distinct, place = np.unique(ids, return_inverse=True)
        classes = np.array([class_of.get(one, -1) for one in distinct.tolist()], np.int64)[place.reshape(-1)]
        plain = good & (classes >= 0) & (file.boxes[:, 2:] > 0).all(1)
        with np.errstate(over="ignore"):
            corners = np.concatenate([file.boxes[:, :2], file.boxes[:, :2] + file.boxes[:, 2:]], axis=1)
        return cls(corners, classes, np.concatenate([[0], np.cumsum(~plain)]))

    def labels(self, file: CocoFile, number: int) -> Labels | None:
        """Boxes of image `number`; None if one of them is not plain."""
        first, end = file.starts[number : number + 2].tolist()
        if self.others[first] != self.others[end]:
            return None
        boxes = [(x1, y1, x2, y2) for x1, y1, x2, y2 in self.corners[first:end].tolist()]
        crowd, places = file.crowd[first:end].tolist(), _places(file, number)
        return Labels(boxes, self.classes[first:end].tolist(), crowd, places, declared=file.declared[number])


def _places(file: CocoFile, number: int) -> Made:
    """The annotations of an image, as messages name them."""
    first, end = file.starts[number : number + 2].tolist()
    return Made(end - first, partial(_annotation, file, number))


def _annotation(file: CocoFile, number: int, row: int) -> Located:
    image = shown(file.image_ids[number], quoted=False)
    annotation = shown(file.annotation_id(int(file.starts[number]) + row), quoted=False)
    return Located(f"{file.path}: annotation {annotation} of image {image}", file.path)


def read_labels(file: CocoFile, plain: _Plain, number: int, class_of: Mapping[int, int]) -> Labels:
    """Boxes of image `number` of the file; the result also holds problems and repairs.  Raises nothing."""
    found = plain.labels(file, number)
    if found is not None:
        return found
    labels, places = Labels(declared=file.declared[number]), _places(file, number)
    first, end = file.starts[number : number + 2].tolist()
    for row, (x, y, w, h) in enumerate(file.boxes[first:end].tolist(), first):
        place = places[row - first]
        category, fault = file.category_id(row), file.fault(row)
        if not isinstance(category, int) or category not in class_of:
            known = ", ".join(map(str, list(class_of)[:10]))
            unknown = f"unknown category_id {shown(category)}; 'categories' holds {known}"
            labels.problems.append(place.told(unknown))
            continue
        if fault:
            labels.problems.append(place.told(fault))
            continue
        if w < 0 or h < 0:
            labels.notes.append((SWAPPED, place))
        if w == 0 or h == 0:
            labels.notes.append((EMPTY, place))
            continue
        box = (min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h))
        labels.add(box, class_of[category], place, crowd=bool(file.crowd[row]))
    return labels


def categories_of(file: Path, rows: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """id -> name of the rows of `categories`, by ascending id; raises DataError if they cannot be used."""
    pairs: list[tuple[Any, Any]] = [(whole(row.get("id")), row.get("name")) for row in rows]
    good = [pair for pair in pairs if _is_category(*pair)]
    bad = [shown(pair) for pair in pairs if not _is_category(*pair)]
    bad += [f"id {i} is used {n} times" for i, n in Counter(i for i, _ in good).items() if n > 1]
    bad += [f"name {shown(name)} is used {n} times" for name, n in Counter(name for _, name in good).items() if n > 1]
    if bad or not pairs:
        tail = "Each category needs a unique 'id' (a whole number) and a unique 'name'."
        raise DataError(listed(f"{file}: 'categories' cannot be used:", bad or ["it is empty"], tail))
    return dict(sorted(pairs))


def _is_category(number: object, name: object) -> bool:
    """Whether there is a whole number and a text that a file can hold: JSON may have half a pair of surrogates."""
    if type(number) is not int or abs(number) >= MAX_ID or not isinstance(name, str) or not name:
        return False
    return not any("\ud800" <= c <= "\udfff" for c in name)


def check_categories(file: Path, found: Mapping[int, str], expected: Mapping[int, str]) -> None:
    """DataError if a file gives an id or a name of the data set to another category; it may lack some, or have more."""
    id_of = {name: category for category, name in expected.items()}
    wrong = {i for i in found.keys() & expected.keys() if found[i] != expected[i]}
    for category, name in found.items():
        if id_of.get(name, category) != category:
            wrong |= {category, id_of[name]}
    if not wrong:
        return
    told = [
        f"id {i}: {shown(found.get(i, '(missing)'))} here, {shown(expected.get(i, '(missing)'))} expected"
        for i in sorted(wrong)
    ]
    tail = "A category must have the same id and name in every split.  Names in the data YAML must be the same too."
    raise DataError(listed(f"{file}: its categories are not those of the data set:", told, tail))
