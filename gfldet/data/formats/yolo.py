"""YOLO txt labels: one row `class cx cy w h` per box, normalised to the image's width and height.

A row may be a polygon instead, `class x1 y1 x2 y2 x3 y3 ...`, or, with `kpt_shape` in the data YAML, a box with
keypoints after it (see `keypoints.py`).

Images come from folders or from .txt lists.  The labels of the images in a folder may lie in these folders:
1. the same path with `labels` in place of its last `images`, or `Labels` in place of `Images`; 2. a folder `labels`
inside the image folder; 3. a folder `labels` beside it (`labels/<folder>` first); 4. the image folder itself.  The
first of these that holds .txt files is used.  If no image has a label there, labels are looked for by the images'
stems below the root.  An image without a label file, or with an empty one, is background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from gfldet.data.finder import Finder, relative
from gfldet.data.formats import (
    EMPTY,
    NO_LABELS,
    POLYGON,
    REPEATED_ROW,
    WITHOUT_IMAGE,
    Index,
    Item,
    Labels,
    Note,
    nearest,
    repeats,
)
from gfldet.data.formats.keypoints import KptShape, shape_of
from gfldet.data.images import find_files, find_images
from gfldet.data.located import Located, Made
from gfldet.data.text import list_lines, read_lines
from gfldet.errors import DataError, counted, shown
from gfldet.files import exists, file_names, is_file, is_folder, names_in

MAX_PROBLEMS = 1000  # of a label file; it is not read on beyond them
FAR_OUT = 2.0  # a box may reach out of its image, but a larger value than this cannot be normalised
NOT_LABELS = frozenset({"classes.txt", "names.txt", "notes.txt", "readme.txt", "train.txt", "val.txt", "test.txt"})


def index(
    entries: Sequence[Path],
    finder: Finder,
    names: Sequence[str],
    long_rows: KptShape | Literal["polygons"] | None = None,
) -> Index:
    """The images of `entries` (folders, or .txt lists of image paths), with ids from 0.

    `long_rows` tells what rows of more than five values are; None: polygons, unless they look like keypoints.
    Raises DataError if an entry holds no image, if no image is there, or if no image has a label file.
    """
    result = Index()
    kpt_shape = None if long_rows == "polygons" else long_rows
    images = _images(entries, finder, result)
    folders = {folder: label_folder(folder) for folder in dict.fromkeys(path.parent for path, _ in images)}
    labels = [folders[path.parent] / f"{path.stem}.txt" for path, _ in images]
    there = {folder: file_names(folder) for folder in set(folders.values())}
    without = [n for n, file in enumerate(labels) if file.name not in there[file.parent] and not is_file(file)]
    if len(without) == len(images):  # none where they usually are
        found = finder.labels_of([path for path, _ in images if f"{path.stem}.txt" not in NOT_LABELS], ".txt")
        if not found:
            raise DataError(_no_labels_at_all(images[0][0], len(images)))
        labels = [found.get(path, file) for (path, _), file in zip(images, labels, strict=True)]
        without = [number for number, (path, _) in enumerate(images) if path not in found]
    for number, ((path, file_name), file) in enumerate(zip(images, labels, strict=True)):
        result.items.append(Item(path, file_name, number, partial(read_labels, file, names, kpt_shape)))
    result.notes += [(NO_LABELS, Located(images[number][1], images[number][0])) for number in without]
    result.notes += repeats([path for path, _ in images])
    result.notes += _orphans(entries, folders, [path for path, _ in images])
    return result


def _images(entries: Sequence[Path], finder: Finder, result: Index) -> list[tuple[Path, str]]:
    """(path, file name) of all images; the lines of lists that lead nowhere stay in, so that their image is missed."""
    images: list[tuple[Path, str]] = []
    for entry in entries:
        if not is_folder(entry) and entry.suffix.lower() != ".txt":
            raise DataError(f"{entry}: expected a folder of images, or a .txt list of image paths")
        base = entry if is_folder(entry) and len(entries) == 1 else finder.root
        if is_folder(entry):
            paths = find_images(entry)
        else:
            found = finder.find_all(list_lines(entry), [entry.parent, finder.root], relative(entry, finder.root))
            result.problems += [one.problem for one in found if one.problem]
            paths = [one.path for one in found if not one.problem]
            if found and not any(one.there for one in found):
                raise DataError(
                    f"{entry}: none of its images is there, beginning with {found[0].path}"
                    f"{': ' + found[0].problem if found[0].problem else ''}; correct the list"
                )
        if not paths:
            raise DataError(f"{entry}: no image found; expected image files or a .txt list of image paths")
        images += [(path, relative(path, base)) for path in paths]
    return images


def label_folder(images: Path) -> Path:
    """The folder with the labels of the images in a folder; see the top of this file."""
    candidates = label_candidates(images)
    return next((folder for folder in candidates if _holds_labels(folder)), candidates[0])


def label_candidates(images: Path) -> list[Path]:
    """The folders that may hold the labels of the images in a folder, in the order of the search."""
    parts = list(images.parts)
    swapped = []
    for word, labels in (("images", "labels"), ("Images", "Labels"), ("IMAGES", "LABELS")):
        if word in parts:
            last = len(parts) - 1 - parts[::-1].index(word)
            swapped.append(Path(*parts[:last], labels, *parts[last + 1 :]))
    beside = images.parent / "labels"
    return [*swapped, images / "labels", beside / images.name, beside, images]


def _holds_labels(folder: Path) -> bool:
    return any(name.endswith(".txt") and name != ".txt" and name.lower() not in NOT_LABELS for name in names_in(folder))


def _no_labels_at_all(first: Path, count: int) -> str:
    tried = ", ".join(str(folder / f"{first.stem}.txt") for folder in label_candidates(first.parent))
    return (
        f"{first.parent}: none of the images has a label file (searched for the first image: "
        f"{tried}). Put the labels there; if all images are background, one empty .txt file beside one image is enough"
    )


def _orphans(entries: Sequence[Path], folders: dict[Path, Path], images: Sequence[Path]) -> list[Note]:
    """A note for each label file without an image; none for .txt lists, which may leave out images on purpose."""
    if not all(is_folder(entry) for entry in entries):
        return []
    used = {str(folders[path.parent] / path.stem) for path in images}
    # A folder `labels` beside an image folder may also hold the labels of other image folders, even of other splits.
    owned = {labels for own, labels in folders.items() if label_candidates(own)[-2] != labels or own.name == "images"}
    labels = [
        f
        for folder in sorted(owned)
        if is_folder(folder)
        for f in find_files(folder, frozenset({".txt"}), recursive=False)
    ]
    alone = [f for f in labels if str(f)[: -len(".txt")] not in used and f.name.lower() not in NOT_LABELS]
    return [(WITHOUT_IMAGE, Located(str(file), file)) for file in alone]


def read_labels(file: Path, names: Sequence[str], kpt_shape: KptShape | None = None) -> Labels:
    """Boxes of one label file; the result also holds problems and repairs.  Raises nothing.

    With `kpt_shape` (K points of 2 or 3 values) the box of a row is in its first five columns.
    """
    try:
        lines = read_lines(file)
    except DataError as error:
        labels = Labels(normalised=True)
        if exists(file):
            labels.problems.append(Located(str(error), file))
        return labels
    return _plain_rows(file, lines, len(names)) or _rows(file, lines, names, kpt_shape)


def _plain_rows(file: Path, lines: Sequence[str], classes: int) -> Labels | None:
    """The boxes of lines in which there is nothing to tell or to repair; None if there is in one of them."""
    rows = [line.split() for line in lines]
    if any(len(row) != 5 for row in rows):
        return None
    try:
        values = [tuple(map(float, row)) for row in rows]
    except ValueError:
        return None
    boxes = []
    for cls, x, y, w, h in values:
        x1, y1, x2, y2 = box = _centre_box((x, y, max(w, 0.0), max(h, 0.0)))
        in_reach = abs(x) <= FAR_OUT and abs(y) <= FAR_OUT and w <= FAR_OUT and h <= FAR_OUT  # no NaN is
        if not (in_reach and x1 < x2 and y1 < y2 and 0 <= cls < classes and cls.is_integer()):
            return None
        boxes.append(box)
    if len(set(values)) < len(values):
        return None
    numbers = [int(row[0]) for row in values]
    return Labels(boxes, numbers, [False] * len(boxes), Made(len(boxes), partial(_line, file)), normalised=True)


def _line(file: Path, number: int) -> Located:
    """A line of a file, of which `number` counts from 0, as a place."""
    return Located(f"{file}:{number + 1}", file, number + 1)


def _rows(file: Path, lines: Sequence[str], names: Sequence[str], kpt_shape: KptShape | None) -> Labels:
    """Boxes, problems and repairs of the lines of a file."""
    labels = Labels(normalised=True)
    seen: set[tuple[float, ...]] = set()
    for number, line in enumerate(lines, 1):
        place = Located(f"{file}:{number}", file, number)
        if not line.strip():
            continue
        try:
            cls, values = _numbers(_of_box(line.split(), kpt_shape), names)
            if (cls, *values) in seen:
                labels.notes.append((REPEATED_ROW, place))
                continue
            seen.add((cls, *values))
            box = _polygon_box(values) if len(values) > 4 else _centre_box(values)
        except ValueError as error:
            labels.problems.append(place.told(error))
            if len(labels.problems) == MAX_PROBLEMS:
                more = f"{file}: has more problems than these {MAX_PROBLEMS}; is it a label file?"
                labels.problems.append(Located(more, file))
                return labels
            continue
        if len(values) > 4:
            labels.notes.append((POLYGON, place))
            labels.long_rows.add(values, place)
        if box[2] <= box[0] or box[3] <= box[1]:
            labels.notes.append((EMPTY, place))
            continue
        labels.add(box, cls, place)
    return labels


def _of_box(words: list[str], kpt_shape: KptShape | None) -> list[str]:
    """Class and box of a row with keypoints; a row without them stays whole."""
    if kpt_shape is None or len(words) == 5:
        return words
    points, size = kpt_shape
    if len(words) != 5 + points * size:
        raise ValueError(
            f"{len(words)} values; with kpt_shape: [{points}, {size}] expected 'class cx cy w h' and {points} x {size} "
            f"values of keypoints ({5 + points * size} in all), or none of them"
        )
    return words[:5]


def _numbers(words: Sequence[str], names: Sequence[str]) -> tuple[int, tuple[float, ...]]:
    """Class and values of a row; raises ValueError that says what was expected."""
    count = len(words)
    if count != 5 and (count < 7 or count % 2 == 0):
        hint = (
            " (a sixth value, such as a confidence, is not allowed in labels)" if count == 6 else _keypoint_hint(words)
        )
        raise ValueError(f"{count} values{hint}; expected 'class cx cy w h', or 'class x1 y1 x2 y2 x3 y3 ...'")
    cls = _class_id(words[0], names)
    try:
        values = tuple(float(word) for word in words[1:])
    except ValueError:
        raise ValueError(f"{shown(' '.join(words))} is not all numbers; expected 'class cx cy w h'") from None
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"{shown(' '.join(words))} holds a value that is not finite; expected values from 0 to 1")
    far = max(values, key=abs)
    if abs(far) > FAR_OUT:
        raise ValueError(
            f"value {far:g} looks like pixels; expected shares of the image's width and height, from 0 to 1"
        )
    return cls, values


def _keypoint_hint(words: Sequence[str]) -> str:
    """What to do if a row of a length that no polygon has looks like keypoints."""
    try:
        shape = shape_of([float(word) for word in words[1:]])
    except ValueError:
        return ""
    return f" (keypoints? then add 'kpt_shape: [{shape[0]}, {shape[1]}]' to the data YAML)" if shape else ""


def _class_id(word: str, names: Sequence[str]) -> int:
    try:
        cls = float(word)
    except ValueError:
        hint = f" {word!r} has the id {names.index(word)}." if word in names else nearest(word, names)
        raise ValueError(f"class {shown(word)} is not a number; expected a class id.{hint}") from None
    if not cls.is_integer():
        told = shown(word, quoted=False)
        raise ValueError(f"class {told} is not a whole number; expected a class id from 0 to {len(names) - 1}")
    if not 0 <= cls < len(names):
        known = f"{counted(len(names), 'class')}, 0{f' to {len(names) - 1}' * (len(names) > 1)}"
        raise ValueError(f"class {cls:.15g} is out of range; the data YAML names {known}")
    return int(cls)


def _centre_box(values: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, w, h = values
    if w < 0 or h < 0:
        raise ValueError(f"negative size {w:g} x {h:g}; expected 'class cx cy w h' with w and h above 0")
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _polygon_box(values: Sequence[float]) -> tuple[float, float, float, float]:
    xs, ys = values[0::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)
