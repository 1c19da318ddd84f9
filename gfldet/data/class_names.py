"""Class names that a data set has elsewhere than in its YAML: in a text file, in notes.json, in the XML files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gfldet.data.finder import Finder
from gfldet.data.formats.voc import class_names_in
from gfldet.data.images import find_files
from gfldet.data.text import list_lines
from gfldet.errors import DataError, counted, shown
from gfldet.files import is_file, is_folder, read_json

NAMES_FILES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt", "class_names.txt", "labels.txt")


def names_beside(finder: Finder, entries: Sequence[Path], kind: str) -> tuple[tuple[str, ...], str]:
    """(names, where they were found) for data whose YAML names no classes; two empty ones if there are none.

    YOLO: a text file with a name in each line, or Label Studio's notes.json, in the root, beside the images or with
    the labels, else up to two folders above the root.  VOC: the names in the XML files of all splits, in alphabetical
    order.  Raises DataError if several files hold different names.
    """
    if kind == "voc":
        found = class_names_in(_xml_files(finder, entries))
        return tuple(sorted(found)), f"the XML files ({counted(len(found), 'name')}, in alphabetical order)"
    files = list(_names_files(finder.root, entries))
    for folder in finder.root.absolute().parents[:2] if not files else ():
        files = files or [folder / name for name in NAMES_FILES if is_file(folder / name)]
    if not files:
        return (), ""
    names = [read_names(file) for file in files]
    for file, other in zip(files, names, strict=True):
        if other != names[0]:
            one, two = (f"names: {shown(list(found), 300)}" for found in (names[0], other))
            raise DataError(
                f"{files[0]} and {file} hold different names; write the right ones into the data YAML: {one} or {two}"
            )
    return names[0], str(files[0])


def read_names(file: Path) -> tuple[str, ...]:
    """The names in a file: one a line, or the `categories` of Label Studio's notes.json; raises DataError."""
    if file.suffix.lower() != ".json":
        return tuple(list_lines(file))
    content = read_json(file, DataError)
    try:
        return tuple(str(row["name"]) for row in sorted(content["categories"], key=lambda row: int(row["id"])))
    except (ValueError, TypeError, KeyError, OverflowError):
        raise DataError(f"{file}: expected 'categories', each with an id and a name, as Label Studio writes") from None


def _names_files(root: Path, entries: Sequence[Path]) -> Iterable[Path]:
    folders = [root, root / "labels", root / "Labels"]
    for entry in entries:
        folder = entry if is_folder(entry) else entry.parent
        folders += [folder, folder.parent / "labels"]
    for folder in dict.fromkeys(folders):
        there = [folder / name for name in NAMES_FILES if is_file(folder / name)]
        others = [] if there or not is_folder(folder) else find_files(folder, frozenset({".names"}), recursive=False)
        notes = folder / "notes.json"
        yield from [*there, *others, *([notes] if is_file(notes) else [])]


def _xml_files(finder: Finder, entries: Sequence[Path]) -> list[Path]:
    inside = [file for entry in entries if is_folder(entry) for file in find_files(entry, frozenset({".xml"}))]
    return inside or finder.files(".xml")
