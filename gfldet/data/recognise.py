"""The label format of a data set, found by looking at its files."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path

from gfldet.data.finder import Finder
from gfldet.data.formats.voc import voc_root
from gfldet.data.formats.yolo import NOT_LABELS, label_folder
from gfldet.data.images import IMAGE_SUFFIXES, find_files, find_images
from gfldet.data.text import list_lines
from gfldet.errors import DataError, counted
from gfldet.files import Unreadable, exists, is_file, is_folder, opened

FORMATS = ("yolo", "coco", "voc")
CONVERTERS = {
    "labelme": "labelme2yolo (YOLO txt) or labelme's own labelme2coco.py",
    "csv": "pandas: for each image one .txt with a row 'class cx cy w h' for each box, as shares of width and height",
}


def format_of(paths: Iterable[Path], finder: Finder) -> str | None:
    """The format of the first of these folders and files that shows one; None if none does."""
    return next((kind for path in paths if (kind := _format_of(path, finder))), None)


def _format_of(path: Path, finder: Finder) -> str | None:
    if is_folder(path):
        return _of_folder(path, finder)
    if path.suffix.lower() == ".json":
        return "coco" if is_file(path) else None
    if not is_file(path):
        return None
    rows = list_lines(path)
    if rows and Path(rows[0].split()[-1]).suffix.lower() in IMAGE_SUFFIXES:
        found = finder.find_all(rows, [path.parent, finder.root], path.name, tell=False)
        images = [one.path for one in found if one.there]
        return "yolo" if _has_yolo_labels(images) else _labels_elsewhere(images, finder) or "yolo"
    stems = [Path(row.split()[0]) for row in rows]
    return "voc" if voc_root(path, finder.root) or finder.has_labels(stems, ".xml") else None


def _of_folder(folder: Path, finder: Finder) -> str | None:
    images = find_images(folder)
    if images and find_files(folder, frozenset({".xml"})):
        return "voc"
    if _has_yolo_labels(images):
        return "yolo"
    return "coco" if coco_in(folder) else _labels_elsewhere(images, finder)


def _labels_elsewhere(images: Sequence[Path], finder: Finder) -> str | None:
    """The format of the labels that some images have anywhere below the root."""
    if finder.has_labels([image for image in images if f"{image.stem}.txt" not in NOT_LABELS], ".txt"):
        return "yolo"
    return "voc" if finder.has_labels(images, ".xml") else None


def _has_yolo_labels(images: Sequence[Path]) -> bool:
    folders = dict.fromkeys(label_folder(folder) for folder in dict.fromkeys(image.parent for image in images))
    return any(find_files(folder, frozenset({".txt"}), recursive=False) for folder in folders)


def coco_in(folder: Path) -> Path | None:
    """The one COCO JSON that lies in a folder (not in its subfolders); None if there is none, or several."""
    found = [file for file in find_files(folder, frozenset({".json"}), recursive=False) if is_coco(file)]
    return found[0] if len(found) == 1 else None


def is_coco(file: Path) -> bool:
    """Whether a JSON has the three lists of COCO, by their names alone."""
    return _holds(file, b'"images"', b'"annotations"', b'"categories"')


def _holds(file: Path, *words: bytes) -> bool:
    try:
        with opened(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(word) >= 0 for word in words)
    except (OSError, ValueError, Unreadable):  # an empty file cannot be mapped
        return False


def contents(path: Path) -> str:
    """What was found at a path, for a message: how many files of which kind."""
    if not exists(path):
        return f"{path}: not found"
    if is_file(path):
        return f"{path}: a file that is neither a .json, nor a list of images, nor a list of ids beside Annotations/"
    counts = {suffix: len(find_files(path, frozenset({suffix}))) for suffix in (".txt", ".xml", ".json")}
    return f"{path}: {counted(len(find_images(path)), 'image')}, " + ", ".join(
        f"{n} {suffix}" for suffix, n in counts.items()
    )


def refuse_other_formats(path: Path) -> None:
    """DataError if a file, or a folder's files, are of a known format that is not read, with what converts it."""
    if path.suffix.lower() == ".csv" or (is_folder(path) and not find_files(path, frozenset({".json", ".xml"}))):
        tables = [path] if is_file(path) else find_files(path, frozenset({".csv"}), recursive=False)
        if tables:
            raise DataError(f"{tables[0]}: labels in a table are not read; convert them, with {CONVERTERS['csv']}")
    for file in [path] if is_file(path) else find_files(path, frozenset({".json"}))[:20]:
        if _holds(file, b'"shapes"', b'"imagePath"'):
            raise DataError(f"{file}: labels of labelme are not read; convert them, with {CONVERTERS['labelme']}")
