"""Which categories of a data set's COCO JSONs are its classes.

All that any split has, by ascending id; a category that only one split has is a class too.  Roboflow writes a category
0 that is the supercategory of all others and has no boxes; it is no class.  Names in the data YAML choose: they may put
the classes in another order, and leave out categories without boxes.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfldet.data.formats.coco import categories_of, check_categories
from gfldet.data.formats.coco_file import CocoFiles, whole
from gfldet.errors import DataError, listed, shown
from gfldet.files import Unreadable, opened

_START = re.compile(rb'"categories"\s*:\s*(?=\[)')
_WINDOWS = (1 << 16, 1 << 20, 1 << 24)  # bytes after the start in which the list has to end


@dataclass(frozen=True)
class Classes:
    """The classes: their ids in the files, their names, and what there is to tell."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    notices: tuple[str, ...] = ()


def coco_classes(
    source: Path, files: Sequence[Path], read: CocoFiles, names: Mapping[int, str], by_id: bool
) -> Classes:
    """The classes of the data set `source` with these JSONs; `names` are those of its YAML (none: empty).

    Raises DataError if a file has no usable categories, if two files differ in a category, or if the names do not fit.
    """
    rows = {file: _rows(file, read) for file in files}
    found: dict[int, str] = {}
    for file, of_file in rows.items():
        categories = categories_of(file, of_file)
        check_categories(file, categories, found)
        found = {**found, **categories}
    found = dict(sorted(found.items()))
    if names:
        return _chosen(source, found, names, by_id, lambda: _used(files, read))
    children = [row for of_file in rows.values() for row in of_file if whole(row.get("id")) != 0]
    parents = [row.get("supercategory") for row in children]
    if len(found) > 1 and 0 in found and found[0] in parents and 0 not in _used(files, read):
        told = f"category 0, {shown(found.pop(0))}, is the supercategory of the others, has no boxes, and is no class"
        return Classes(tuple(found), tuple(found.values()), (told,))
    return Classes(tuple(found), tuple(found.values()))


def _chosen(
    source: Path, found: Mapping[int, str], names: Mapping[int, str], by_id: bool, used: Callable[[], set[Any]]
) -> Classes:
    """The classes in the order of the YAML's names; `used` gives the category ids that have boxes."""
    id_of = {name: category for category, name in found.items()}
    given = list(names.values())
    if by_id:
        fits = all(found.get(i, name) == name and id_of.get(name, i) == i for i, name in names.items())
        ids = tuple(names)
    else:
        fits = all(name in id_of for name in given)
        ids = tuple(id_of[name] for name in given) if fits else ()
    left_out = {i: name for i, name in found.items() if i not in ids}
    if fits and not (left_out and used() & left_out.keys()):
        told = f"no classes, since the data YAML does not name them: {', '.join(left_out.values())}"
        return Classes(ids, tuple(given), (told,) if left_out else ())
    tail = "Correct the names in the YAML, or remove them: then gfldet takes them from the files."
    in_yaml = f"in the YAML: {shown(dict(names) if by_id else given, 2000)}"
    in_files = f"in the files: {shown(dict(found) if by_id else list(found.values()), 2000)}"
    raise DataError(listed(f"{source}: names do not match the categories:", [in_yaml, in_files], tail))


def _used(files: Sequence[Path], read: CocoFiles) -> set[Any]:
    """The category ids of all annotations."""
    return set().union(*(read[file].used_categories() for file in files))


def _rows(file: Path, read: CocoFiles) -> list[dict[str, Any]]:
    """The rows of `categories`, without reading a large file whole where the list can be told from its name alone."""
    try:
        with opened(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            starts = [match.end() for match in _START.finditer(content)][:2]
            for window in _WINDOWS if len(starts) == 1 else ():
                rows = _list_at(content[starts[0] : starts[0] + window])
                if rows is not None:
                    return rows
    except (OSError, ValueError, Unreadable):  # told by the reader of the whole file
        pass
    return read[file].categories


def _list_at(text: bytes) -> list[dict[str, Any]] | None:
    """The list of objects that a text begins with; None if it does not end in the text, or holds other things."""
    try:
        rows, _ = json.JSONDecoder().raw_decode(text.decode("utf-8", "ignore"))
    except (ValueError, RecursionError):
        return None
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None
