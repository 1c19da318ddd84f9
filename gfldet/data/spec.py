"""The data YAML: where the images of each split are, which format they have, and the names of the classes.

Keys: `path` (relative to the YAML; the YAML's own folder if absent), `train`, `val`, `test`, `names`, `format`,
`images` (COCO only: one folder, or one per split), `kpt_shape` (YOLO: the label rows hold keypoints after the box).
`nc` must match the names.  Other programs write `download`, `roboflow` and `flip_idx`; these are accepted and have no
effect.  Any other key is an error.  The files of a split must exist only when that split is loaded, so `val` runs
without the training images.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gfldet.data import shapes
from gfldet.data.formats import coco, nearest
from gfldet.data.formats.coco_file import CocoFiles
from gfldet.data.formats.keypoints import KptShape
from gfldet.data.formats.yolo import label_folder
from gfldet.data.images import IMAGE_SUFFIXES, find_files, find_images
from gfldet.data.text import read_lines
from gfldet.errors import DataError, listed, shown
from gfldet.files import MAX_LIST, exists, is_file, is_folder, listing, read_yaml, size

FORMATS = ("yolo", "coco", "voc")
SPLITS = ("train", "val", "test")
MAX_KEYS = 1000  # of a data YAML; a file with more is of another kind
_KEYS = ("path", *SPLITS, "names", "format", "images", "nc", "kpt_shape", "flip_idx", "download", "roboflow")


@dataclass(frozen=True)
class DataSpec:
    """A data set as its YAML describes it.

    source        the YAML, or the name of a built-in set
    root          the folder; entries are relative to it
    format        "yolo", "coco", "voc" or "shapes" (built in)
    splits        split -> its entries as written: folders, .txt lists, one JSON
    names         class names, C of them
    category_ids  class position -> id in the user's files (COCO); 0..C-1 for other formats
    images        COCO: split -> folder of its images, as written
    long_rows     YOLO: what rows of more than five values are: (K, 2 or 3) a box with keypoints, "polygons"; None: the
                  rows show it
    coco          COCO: the JSON files, each read once for all splits
    """

    source: Path
    root: Path
    format: str
    splits: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: Mapping[str, str] = field(default_factory=dict)
    long_rows: KptShape | Literal["polygons"] | None = None
    coco: CocoFiles = field(default_factory=CocoFiles, repr=False, compare=False)

    @property
    def train(self) -> tuple[str, ...] | None:
        """Entries of the training split; None if the YAML has no such split."""
        return self.splits.get("train")

    @property
    def val(self) -> tuple[str, ...] | None:
        """Entries of the validation split; None if the YAML has no such split."""
        return self.splits.get("val")

    @property
    def test(self) -> tuple[str, ...] | None:
        """Entries of the test split; None if the YAML has no such split."""
        return self.splits.get("test")

    def entries(self, split: str) -> list[Path]:
        """Existing paths of a split's entries; raises DataError if the split or a path is missing."""
        written = self.splits.get(split)
        if not written:
            raise DataError(f"{self.source}: has no split {split!r}; it has: {', '.join(self.splits)}")
        missing = [_missing(self.root, entry) for entry in written if not exists(self.root / entry)]
        if missing:
            tail = f"Paths in {split!r} are relative to 'path', which is relative to the YAML."
            raise DataError(listed(f"{self.source}: {split}: not found:", missing, tail))
        return [self.root / entry for entry in written]

    def image_folder(self, split: str) -> Path | None:
        """COCO: file names are relative to this folder; None: to the JSON's folder.  DataError if it is missing."""
        if split not in self.images:
            return None
        folder = self.root / self.images[split]
        if not is_folder(folder):
            raise DataError(f"{self.source}: images: not found: {_missing(self.root, self.images[split])}")
        return folder


def load_spec(data: str | Path) -> DataSpec:
    """Reads a data YAML, or describes a built-in set ("shapes"); raises DataError with all its mistakes at once."""
    if str(data) in shapes.VARIANTS:
        return _built_in(str(data))
    source = Path(data)
    document = _read_yaml(source)
    problems: list[str] = []
    names = _names(document.get("names"), problems)
    splits = {split: _entries(split, document[split], problems) for split in SPLITS if document.get(split) is not None}
    if not splits:
        problems.append("no split; expected 'train' and 'val', each with a folder or a file")
    kind = document.get("format")
    if kind is not None and kind not in FORMATS:
        problems.append(f"format: {shown(kind)} is not one of {', '.join(FORMATS)}.{nearest(kind, FORMATS)}")
    _check_keys(document, names, problems)
    long_rows = _long_rows(document, problems)
    _raise(source, problems)
    root = _root(source, document.get("path"))
    kind = kind or _detect_format(source, root, splits)
    images = _images(document.get("images"), kind, splits, problems)
    if kind != "coco":
        _check_positions(names, problems)
    elif any(len(entries) != 1 for entries in splits.values()):
        problems.append("COCO: a list of files is not supported; expected one JSON per split")
    _raise(source, problems)
    if kind != "coco":
        return DataSpec(source, root, kind, splits, tuple(names.values()), tuple(range(len(names))), images, long_rows)
    draft = DataSpec(source, root, kind, splits, (), (), images)
    ids, found = _coco_classes(draft, names, isinstance(document.get("names"), Mapping))
    return dataclasses.replace(draft, names=found, category_ids=ids)


def _built_in(name: str) -> DataSpec:
    names = shapes.VARIANTS[name].names
    splits = {split: (split,) for split in ("train", "val")}
    return DataSpec(Path(name), Path(name), "shapes", splits, names, tuple(range(len(names))))


def _raise(source: Path, problems: list[str]) -> None:
    if problems:
        raise DataError(
            listed(f"{source}: cannot be used as a data YAML:", problems, "Correct the file and try again.")
        )


def _read_yaml(source: Path) -> dict[str, Any]:
    if is_folder(source):
        inside = ", ".join(p.name for p in listing(source) if p.suffix in (".yaml", ".yml")) or "none"
        raise DataError(f"{source}: is a folder; expected a data YAML (YAML files in it: {inside})")
    if not exists(source):
        built_in = ", ".join(shapes.VARIANTS)
        raise DataError(f"{source}: no such data YAML; expected a file, or a built-in set: {built_in}")
    document = read_yaml(source, DataError).value
    if not isinstance(document, dict) or len(document) > MAX_KEYS:
        raise DataError(f"{source}: expected 'key: value' lines with train, val and names")
    return document


def _root(source: Path, path: object) -> Path:
    if path is not None and not isinstance(path, str):
        raise DataError(f"{source}: path: expected a folder, got {shown(path)}")
    root = source.parent / (path or "")
    if not is_folder(root):
        raise DataError(f"{source}: path: folder {root} not found; it is relative to the YAML's folder")
    return root


def _check_keys(document: Mapping[str, Any], names: Mapping[int, str], problems: list[str]) -> None:
    for key in document:
        if key not in _KEYS:
            allowed = f"allowed are {', '.join(_KEYS)}.{nearest(key, _KEYS)}"
            problems.append(f"{shown(key, quoted=False)}: unknown key; {allowed}")
    if names and document.get("nc", len(names)) != len(names):
        problems.append(f"nc: {shown(document['nc'])} does not match the {len(names)} names; remove 'nc' or correct it")


def _long_rows(document: Mapping[str, Any], problems: list[str]) -> KptShape | Literal["polygons"] | None:
    """What `kpt_shape` says of label rows that are longer than a box."""
    shape = document.get("kpt_shape")
    if shape is None:
        return "polygons" if "kpt_shape" in document else None
    if (
        isinstance(shape, list)
        and [type(value) for value in shape] == [int, int]
        and shape[0] > 0
        and shape[1] in (2, 3)
    ):
        return shape[0], shape[1]
    problems.append(
        "kpt_shape: expected [number of keypoints, 2 or 3 values each], or null for rows that are polygons, "
        f"got {shown(shape)}"
    )
    return None


def _entries(key: str, value: object, problems: list[str]) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    if entries and all(isinstance(entry, str) and entry for entry in entries):
        return tuple(entries)
    problems.append(f"{key}: expected a path or a list of paths, got {shown(value)}")
    return ()


def _names(value: object, problems: list[str]) -> dict[int, str]:
    """id -> name in the order of the ids; empty if there are no names or if they are wrong."""
    if value is None:
        return {}
    if isinstance(value, list):
        pairs: list[tuple[Any, Any]] = list(enumerate(value))
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        pairs = []
    wrong = [f"names: id {shown(key)} is not a whole number" for key, _ in pairs if type(key) is not int]
    wrong += [
        f"names: {shown(name)} (id {shown(key)}) is not text; put it in quotes"
        for key, name in pairs
        if type(name) not in (str, int, float) or name == ""
    ]
    texts = [str(name) for _, name in pairs if type(name) in (str, int, float)]
    wrong += [f"names: {shown(text)} appears {n} times" for text, n in Counter(texts).items() if n > 1]
    if not pairs:
        wrong.append(f"names: expected a list of names, or id: name lines, got {shown(value)}")
    problems += wrong
    return {} if wrong else {key: str(name) for key, name in sorted(pairs)}


def _check_positions(names: Mapping[int, str], problems: list[str]) -> None:
    """YOLO and VOC classes are positions: ids 0..C-1 without a gap."""
    if not names:
        problems.append("names: missing; expected a list of names, or id: name lines")
        return
    gaps = [str(i) for i in range(len(names)) if i not in names]  # where one is missing, another is too large
    if gaps:
        problems.append(
            f"names: ids must run from 0 to {len(names) - 1} without a gap; "
            f"got {shown(min(names))} to {shown(max(names))}, missing {', '.join(gaps[:20])}"
        )


def _images(value: object, kind: str, splits: Mapping[str, tuple[str, ...]], problems: list[str]) -> dict[str, str]:
    if value is None:
        return {}
    if kind != "coco":
        problems.append(f"images: only the format coco takes this key, and the format here is {kind}; remove it")
    elif isinstance(value, str):
        return dict.fromkeys(splits, value)
    elif isinstance(value, dict) and all(k in SPLITS and isinstance(v, str) for k, v in value.items()):
        return dict(value)
    else:
        problems.append(f"images: expected a folder, or a folder for each of train and val, got {shown(value)}")
    return {}


def _missing(root: Path, entry: str) -> str:
    """The missing path, and a hint: some exports write too many '../' before the right path."""
    stripped = entry
    while stripped.startswith("../"):
        stripped = stripped[3:]
    hint = f"; did you mean {stripped!r}, which exists?" if stripped != entry and exists(root / stripped) else ""
    return f"{root / entry}{hint}"


# ---------------------------------------------------------------- find the format by looking at the files


def _detect_format(source: Path, root: Path, splits: Mapping[str, tuple[str, ...]]) -> str:
    paths = [root / entry for entries in splits.values() for entry in entries]
    for path in paths:
        kind = _format_of(path, root)
        if kind:
            return kind
    contents = [_contents(path) for path in paths]
    tail = (
        "Add 'format: yolo', 'coco' or 'voc', or correct the paths. yolo: a folder of images with labels/*.txt, or a "
        ".txt list of images; coco: a .json; voc: an ImageSets list, or a folder of images and .xml."
    )
    raise DataError(listed(f"{source}: the format of the data is not clear. Found:", contents, tail))


def _format_of(path: Path, root: Path) -> str | None:
    if is_folder(path):
        images = find_images(path)
        if images and find_files(path, frozenset({".xml"})):
            return "voc"
        folders = dict.fromkeys(label_folder(image.parent) for image in images)
        return "yolo" if any(find_files(folder, frozenset({".txt"}), recursive=False) for folder in folders) else None
    if path.suffix.lower() == ".json":
        return "coco" if is_file(path) else None
    if not is_file(path):
        return None
    first = next((line.split() for line in read_lines(path, MAX_LIST) if line.strip()), [""])
    if Path(first[-1]).suffix.lower() in IMAGE_SUFFIXES:
        return "yolo"
    return "voc" if any(is_folder(folder / "Annotations") for folder in (root, *list(path.parents)[:3])) else None


def _contents(path: Path) -> str:
    """What was found at a path, for the message: how many files of which kind."""
    if not exists(path):
        return f"{path}: not found"
    if not is_folder(path):
        return f"{path}: a file that is neither a .json, nor a list of images, nor a list of ids beside Annotations/"
    counts = {suffix: len(find_files(path, frozenset({suffix}))) for suffix in (".txt", ".xml", ".json")}
    return f"{path}: {len(find_images(path))} images, " + ", ".join(f"{n} {suffix}" for suffix, n in counts.items())


# ---------------------------------------------------------------- COCO: the classes are in the JSON


def _coco_classes(spec: DataSpec, names: Mapping[int, str], by_id: bool) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(ids, names) of the smallest JSON, in the YAML's order if the YAML lists the same names.

    `load_split` compares the other JSON files with these.
    """
    files = [spec.root / entries[0] for entries in spec.splits.values()]
    there = [file for file in files if is_file(file)]
    if not there:
        raise DataError(
            listed(f"{spec.source}: not found:", [str(file) for file in files], "Expected COCO JSON files.")
        )
    file = min(there, key=size)
    ids, found = coco.read_categories(spec.coco[file])
    given = tuple(names.values())
    if not names or (by_id and names == dict(zip(ids, found, strict=True))):
        return ids, found
    if not by_id and sorted(given) == sorted(found):
        id_of = dict(zip(found, ids, strict=True))
        return tuple(id_of[name] for name in given), given
    tail = "Correct the names in the YAML, or remove them: then gfldet takes them from the file."
    in_yaml = f"in the YAML: {shown(dict(names) if by_id else list(given), 2000)}"
    in_file = f"in {file}: {shown(dict(zip(ids, found, strict=True)) if by_id else list(found), 2000)}"
    raise DataError(listed(f"{spec.source}: names do not match the categories:", [in_yaml, in_file], tail))
