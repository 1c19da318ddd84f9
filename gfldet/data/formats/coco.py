"""COCO JSON: images, annotations and categories in one file; boxes [x, y, width, height] in pixels.

Category ids stay as they are in the file.  `iscrowd: 1` becomes an ignore region.  An annotation that repeats another
one gives a warning but is not dropped, so that AP equals that of pycocotools on the same file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gfldet.data.formats import EMPTY, SWAPPED, Index, Item, Labels, repeats
from gfldet.errors import DataError, listed, shown
from gfldet.files import read_json

MAX_ID = 1 << 63  # where the evaluators' numbers end


def read_categories(file: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(category ids, names) of a COCO JSON, by ascending id; raises DataError if the file is not a COCO JSON."""
    return _categories(file, _read_json(file))


def index(file: Path, images: Path | None, names: Sequence[str], category_ids: Sequence[int]) -> Index:
    """The images of a COCO JSON with their own ids.

    The file names are relative to the folder `images`; None means the JSON's own folder.
    `names` and `category_ids` are the classes in order; raises DataError if the file has other classes.
    """
    document = _read_json(file)
    _check_categories(
        file, dict(zip(*_categories(file, document), strict=True)), dict(zip(category_ids, names, strict=True))
    )
    result = Index()
    rows = _image_rows(file, document, result.problems)
    of_image = _annotations_by_image(file, document, rows, result.problems)
    class_of = {category: position for position, category in enumerate(category_ids)}
    folder = file.parent if images is None else images
    for image_id, row in rows.items():
        labels = partial(read_labels, file, row, of_image.get(image_id, ()), class_of)
        result.items.append(Item(folder / row["file_name"], row["file_name"], image_id, labels))
    if not result.items and not result.problems:
        raise DataError(f"{file}: holds no images; expected at least one under 'images'")
    result.warnings += repeats([item.path for item in result.items])
    return result


def read_labels(
    file: Path, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], class_of: Mapping[int, int]
) -> Labels:
    """Boxes of one image; the result also holds problems and repairs.  Raises nothing."""
    labels = Labels(declared=_declared(image))
    for row in annotations:
        place = f"{file}: annotation {_id(row)} of image {_id(image)}"
        category = row.get("category_id")
        if not isinstance(category, int) or category not in class_of:
            known = ", ".join(map(str, list(class_of)[:10]))
            labels.problems.append(f"{place}: unknown category_id {shown(category)}; 'categories' holds {known}")
            continue
        try:
            x, y, w, h = _bbox(row)
        except ValueError as error:
            labels.problems.append(f"{place}: {error}")
            continue
        if w < 0 or h < 0:
            labels.notes.append((SWAPPED, place))
        if w == 0 or h == 0:
            labels.notes.append((EMPTY, place))
            continue
        box = (min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h))
        labels.add(box, class_of[category], place, crowd=bool(row.get("iscrowd", 0)))
    return labels


def _bbox(row: Mapping[str, Any]) -> tuple[float, float, float, float]:
    bbox = row.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        raise ValueError(f"bbox is {shown(bbox)}; expected 4 finite numbers [x, y, width, height] in pixels")
    x, y, w, h = map(float, bbox)
    return x, y, w, h


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_image_id(value: object) -> bool:
    return isinstance(value, str) or (type(value) is int and abs(value) < MAX_ID)


def _is_name(value: object) -> bool:
    """Whether a value is text that a file can hold; JSON may have half a pair of surrogates in it."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= c <= "\udfff" for c in value)


def _id(row: Mapping[str, Any]) -> str:
    return shown(row.get("id", "?"), quoted=False)


def _declared(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None


def _read_json(file: Path) -> dict[str, Any]:
    document = read_json(file, DataError)
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) and all(isinstance(row, dict) for row in document[key])
        for key in ("images", "annotations", "categories")
    ):
        expected = "expected an object with the lists images, annotations, categories"
        raise DataError(f"{file}: is not a COCO file; {expected}")
    return document


def _categories(file: Path, document: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    rows: list[tuple[Any, Any]] = [(row.get("id"), row.get("name")) for row in document["categories"]]
    good = [(i, name) for i, name in rows if type(i) is int and abs(i) < MAX_ID and _is_name(name)]
    bad = [shown(row) for row in rows if type(row[0]) is not int or abs(row[0]) >= MAX_ID or not _is_name(row[1])]
    bad += [f"id {i} is used {n} times" for i, n in Counter(i for i, _ in good).items() if n > 1]
    bad += [f"name {shown(name)} is used {n} times" for name, n in Counter(name for _, name in good).items() if n > 1]
    if bad or not rows:
        tail = "Each category needs a unique 'id' (a whole number) and a unique 'name'."
        raise DataError(listed(f"{file}: 'categories' cannot be used:", bad or ["it is empty"], tail))
    rows.sort()
    return tuple(row[0] for row in rows), tuple(row[1] for row in rows)


def _check_categories(file: Path, found: Mapping[int, str], expected: Mapping[int, str]) -> None:
    if found == expected:
        return
    wrong = [f"id {i}: {shown(found.get(i, '(missing)'))} here, {shown(expected.get(i, '(missing)'))} expected"
             for i in sorted({*found, *expected}) if found.get(i) != expected.get(i)]  # fmt: skip
    tail = "Every split must hold the same categories.  If the data YAML has names, they must be the same too."
    raise DataError(listed(f"{file}: its categories are not those of the data set:", wrong, tail))


def _image_rows(file: Path, document: Mapping[str, Any], problems: list[str]) -> dict[int | str, dict[str, Any]]:
    rows: dict[int | str, dict[str, Any]] = {}
    for position, row in enumerate(document["images"]):
        image_id, name = row.get("id"), row.get("file_name")
        if not _is_image_id(image_id) or not isinstance(name, str) or not name:
            problems.append(f"{file}: images[{position}]: expected an 'id' and a 'file_name', got {shown(row)}")
        elif image_id in rows:
            again = f"id {shown(image_id)} is used twice ({shown(name, quoted=False)})"
            problems.append(f"{file}: images[{position}]: {again}")
        else:
            rows[image_id] = row
    return rows


def _annotations_by_image(
    file: Path, document: Mapping[str, Any], rows: Mapping[int | str, Any], problems: list[str]
) -> dict[int | str, list[dict[str, Any]]]:
    of_image: dict[int | str, list[dict[str, Any]]] = {}
    for row in document["annotations"]:
        image_id = row.get("image_id")
        if type(image_id) not in (int, str) or image_id not in rows:
            problems.append(f"{file}: annotation {_id(row)}: unknown image_id {shown(image_id)}")
        else:
            of_image.setdefault(image_id, []).append(row)
    return of_image
