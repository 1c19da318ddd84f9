"""COCO JSON: images, annotations and categories in one file; boxes [x, y, width, height] in pixels.

Category ids stay as they are in the file.  `iscrowd: 1` becomes an ignore region.  An annotation that repeats another
one gives a warning but is not dropped, so that AP equals that of pycocotools on the same file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gfldet.data.formats import EMPTY, SWAPPED, Index, Item, Labels, repeats
from gfldet.data.formats.coco_file import MAX_ID, CocoFile
from gfldet.errors import DataError, listed, shown


def index(file: CocoFile, images: Path | None, names: Sequence[str], category_ids: Sequence[int]) -> Index:
    """The images of a COCO JSON with their own ids.

    The file names are relative to the folder `images`; None means the JSON's own folder.
    `names` and `category_ids` are the classes in order; raises DataError if the file has other classes.
    """
    _check_categories(
        file.path, dict(zip(*read_categories(file), strict=True)), dict(zip(category_ids, names, strict=True))
    )
    result = Index(problems=list(file.problems))
    class_of = {category: position for position, category in enumerate(category_ids)}
    folder = file.path.parent if images is None else images
    for number, (image_id, name) in enumerate(zip(file.image_ids, file.file_names, strict=True)):
        result.items.append(Item(folder / name, name, image_id, partial(read_labels, file, number, class_of)))
    if not result.items and not result.problems:
        raise DataError(f"{file.path}: holds no images; expected at least one under 'images'")
    result.warnings += repeats([item.path for item in result.items])
    return result


def read_labels(file: CocoFile, number: int, class_of: Mapping[int, int]) -> Labels:
    """Boxes of image `number` of the file; the result also holds problems and repairs.  Raises nothing."""
    labels = Labels(declared=file.declared[number])
    image = f"image {shown(file.image_ids[number], quoted=False)}"
    first, end = file.starts[number : number + 2].tolist()
    for row, (x, y, w, h) in enumerate(file.boxes[first:end].tolist(), first):
        place = f"{file.path}: annotation {shown(file.annotation_id(row), quoted=False)} of {image}"
        category, fault = file.category_id(row), file.fault(row)
        if not isinstance(category, int) or category not in class_of:
            known = ", ".join(map(str, list(class_of)[:10]))
            labels.problems.append(f"{place}: unknown category_id {shown(category)}; 'categories' holds {known}")
            continue
        if fault:
            labels.problems.append(f"{place}: {fault}")
            continue
        if w < 0 or h < 0:
            labels.notes.append((SWAPPED, place))
        if w == 0 or h == 0:
            labels.notes.append((EMPTY, place))
            continue
        box = (min(x, x + w), min(y, y + h), max(x, x + w), max(y, y + h))
        labels.add(box, class_of[category], place, crowd=bool(file.crowd[row]))
    return labels


def read_categories(file: CocoFile) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(category ids, names) of a COCO JSON, by ascending id; raises DataError if they cannot be used."""
    rows: list[tuple[Any, Any]] = [(row.get("id"), row.get("name")) for row in file.categories]
    good = [row for row in rows if _is_category(*row)]
    bad = [shown(row) for row in rows if not _is_category(*row)]
    bad += [f"id {i} is used {n} times" for i, n in Counter(i for i, _ in good).items() if n > 1]
    bad += [f"name {shown(name)} is used {n} times" for name, n in Counter(name for _, name in good).items() if n > 1]
    if bad or not rows:
        tail = "Each category needs a unique 'id' (a whole number) and a unique 'name'."
        raise DataError(listed(f"{file.path}: 'categories' cannot be used:", bad or ["it is empty"], tail))
    rows.sort()
    return tuple(row[0] for row in rows), tuple(row[1] for row in rows)


def _is_category(number: object, name: object) -> bool:
    """Whether there is a whole number and a text that a file can hold: JSON may have half a pair of surrogates."""
    if type(number) is not int or abs(number) >= MAX_ID or not isinstance(name, str) or not name:
        return False
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _check_categories(file: Path, found: Mapping[int, str], expected: Mapping[int, str]) -> None:
    if found == expected:
        return
    wrong = [f"id {i}: {shown(found.get(i, '(missing)'))} here, {shown(expected.get(i, '(missing)'))} expected"
             for i in sorted({*found, *expected}) if found.get(i) != expected.get(i)]  # fmt: skip
    tail = "Every split must hold the same categories.  If the data YAML has names, they must be the same too."
    raise DataError(listed(f"{file}: its categories are not those of the data set:", wrong, tail))
