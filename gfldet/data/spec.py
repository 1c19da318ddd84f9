"""A data set as its YAML describes it, or what stands for the YAML: where each split is, in which format, its classes.

`document` owns the keys of the YAML, `layouts` what stands for one, `finder` where a path leads, `recognise` how the
format is found, `class_names` where names are that the YAML leaves out.  The files of a split must exist only when that
split is loaded, so `val` runs without the training images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from gfldet.data import shapes
from gfldet.data.class_names import names_beside, read_names
from gfldet.data.coco_classes import coco_classes
from gfldet.data.document import Document, check_positions, raise_problems
from gfldet.data.document import read_names as checked_names
from gfldet.data.finder import Finder, SeveralError
from gfldet.data.formats.coco_file import CocoFiles
from gfldet.data.formats.keypoints import KptShape
from gfldet.data.layouts import YAML, document_of, yaml_to_write
from gfldet.data.recognise import coco_in, contents, format_of, refuse_other_formats
from gfldet.errors import DataError, listed, shown, worded
from gfldet.files import is_file, is_folder


@dataclass(frozen=True)
class DataSpec:
    """A data set as its YAML describes it.

    source        the YAML, what stands for it, or the name of a built-in set
    root          the folder; entries are relative to it
    format        "yolo", "coco", "voc" or "shapes" (built in)
    splits        split -> its entries as written: folders, .txt lists, JSONs
    names         class names, C of them
    category_ids  class position -> id in the user's files (COCO); 0..C-1 for other formats
    images        COCO: split -> folder of its images, as written
    long_rows     YOLO: what rows of more than five values are: (K, 2 or 3) a box with keypoints, "polygons"; None: the
                  rows show it
    val_share     share of the training images that are the val split; 0: val has entries of its own, or there is none
    notices       what was chosen or passed over while reading, for the user to read
    finder        where the paths of the data set lead
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
    val_share: float = 0.0
    notices: tuple[str, ...] = ()
    finder: Finder = field(default_factory=lambda: Finder(Path()), repr=False, compare=False)
    coco: CocoFiles = field(default_factory=CocoFiles, repr=False, compare=False)

    @property
    def train(self) -> tuple[str, ...] | None:
        """Entries of the training split; None if the YAML has no such split."""
        return self.splits.get("train")

    @property
    def val(self) -> tuple[str, ...] | None:
        """Entries of the validation split (those of train if it is a share of it); None if there is no such split."""
        return self.splits.get("val")

    @property
    def test(self) -> tuple[str, ...] | None:
        """Entries of the test split; None if the YAML has no such split."""
        return self.splits.get("test")

    def check_classes(self, names: tuple[str, ...], model: str) -> None:
        """Raise DataError unless `names`, the classes of a model, are those of the data, in their order."""
        if names == self.names:
            return
        if max(len(names), len(self.names)) <= 10:
            told = f"its classes {list(self.names)} are not those of {model}, {list(names)}"
        else:
            pairs = enumerate(zip_longest(self.names, names))
            number, (here, there) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
            told = f"its {worded(len(self.names), 'class(es) [is|are]')} not the {len(names)} of {model}: "
            told += f"the first that differs is number {number}, "
            told += f"{_class(here)} in the data and {_class(there)} in the model"
        raise DataError(f"{self.source}: {told}; use the data that the model was trained for")

    def entries(self, split: str) -> list[Path]:
        """Existing paths of a split's entries; raises DataError if the split or a path is missing."""
        written = self.splits.get(split)
        if not written:
            raise DataError(f"{self.source}: has no split {split!r}; it has: {', '.join(self.splits)}")
        found, missing = [], []
        for entry in written:
            try:
                path = self.finder.entry(entry, str(self.source))
            except SeveralError as error:
                missing.append(str(error))
                continue
            if path is None:
                missing.append(str(self.root / entry))
            else:
                found.append(_json_of(path) if self.format == "coco" else path)
        if missing:
            tail = f"Paths in {split!r} are relative to 'path', which is relative to the YAML."
            raise DataError(listed(f"{self.source}: {split}: not found:", missing, tail))
        return found

    def image_folder(self, split: str) -> Path | None:
        """COCO: file names are relative to this folder; None: to the JSON's folder.  DataError if it is missing."""
        if split not in self.images:
            return None
        folder = self.finder.entry(self.images[split], str(self.source))
        if folder is None or not is_folder(folder):
            raise DataError(f"{self.source}: images: not found: {self.root / self.images[split]}")
        return folder


def _class(name: str | None) -> str:
    return "none" if name is None else shown(name)


def load_spec(data: str | Path, val_share: float = 0.0) -> DataSpec:
    """Reads a data YAML, or what stands for one, or describes a built-in set ("shapes").

    If there is no val split, `val_share` of the training images are it (see `hold_out`).  Raises DataError with all
    mistakes at once.
    """
    if str(data) in shapes.VARIANTS:
        return _built_in(str(data))
    document = document_of(Path(data))
    source = document.source
    root, moved = _root(document)
    finder = Finder(root)
    kind = document.format or _detect_format(document, finder)
    images = _images(document, kind)
    spec = DataSpec(source, finder.root, kind, document.splits, (), (), images, document.long_rows, finder=finder)
    if kind == "coco":
        given = _given_names(spec, document)
        found = coco_classes(source, _jsons(spec), spec.coco, given, document.by_id)
        ids, names, told = found.ids, found.names, found.notices
    else:
        names, told = _names(spec, document)
        ids = tuple(range(len(names)))
    notices = tuple(f"{source}: {notice}" for notice in (*moved, *document.notices, *told))
    spec = dataclasses.replace(spec, names=names, category_ids=ids, notices=notices)
    if val_share and spec.val is None and spec.train is not None:
        spec = _with_val(spec, val_share)
    return dataclasses.replace(spec, notices=(*finder.take_notices(), *spec.notices))


def _built_in(name: str) -> DataSpec:
    names = shapes.VARIANTS[name].names
    splits = {split: (split,) for split in ("train", "val")}
    return DataSpec(
        Path(name), Path(name), "shapes", splits, names, tuple(range(len(names))), finder=Finder(Path(name))
    )


def _root(document: Document) -> tuple[Path, tuple[str, ...]]:
    """(the folder `path` of the YAML, notices); where it is missing, the YAML's own, if the data are found there."""
    folder = document.folder
    root = folder / (document.path or "")
    if is_folder(root):
        return root, ()
    told = f"path: {shown(document.path)} does not exist; taken instead: "
    finder = Finder(folder)
    own = Path((document.path or "").replace("\\", "/")).name
    below = finder.entry(document.path or "", "path")
    if below is not None and is_folder(below):
        return below, (f"{told}{below}",)
    with suppress(SeveralError):  # then nothing tells that it is this folder
        entries = [entry for entries in document.splits.values() for entry in entries]
        if own == folder.resolve().name or any(finder.entry(entry, "") for entry in entries):
            return folder, (f"{told}{folder}, the folder of the YAML",)
    raise DataError(f"{document.source}: path: folder {root} not found; it is relative to the YAML's folder")


def _detect_format(document: Document, finder: Finder) -> str:
    written = [entry for entries in document.splits.values() for entry in entries]
    paths = [finder.entry(entry, str(document.source)) or finder.root / entry for entry in written]
    kind = format_of(paths, finder)
    if kind:
        return kind
    for path in (*paths, finder.root):
        refuse_other_formats(path)
    tail = (
        "Add 'format: yolo', 'coco' or 'voc', or correct the paths. yolo: a folder of images with labels/*.txt, or a "
        ".txt list of images; coco: a .json; voc: an ImageSets list, or a folder of images and .xml."
    )
    head = f"{document.source}: the format of the data is not clear. Found:"
    raise DataError(listed(head, [contents(path) for path in paths], tail))


def _images(document: Document, kind: str) -> Mapping[str, str]:
    images = document.images
    if images is not None and kind != "coco":
        problem = f"images: only the format coco takes this key, and the format here is {kind}; remove it"
        raise_problems(document.source, [problem])
    return dict.fromkeys(document.splits, images) if isinstance(images, str) else images or {}


def _json_of(path: Path) -> Path:
    """COCO: a folder stands for the JSON that lies in it."""
    return coco_in(path) or path if is_folder(path) else path


def _jsons(spec: DataSpec) -> list[Path]:
    """COCO: the JSONs of all splits that are there; raises DataError if none is."""
    written = dict.fromkeys(entry for entries in spec.splits.values() for entry in entries)
    there = {entry: path for entry in written if (path := spec.finder.entry(entry, str(spec.source)))}
    files = [file for path in there.values() if is_file(file := _json_of(path))]
    if files:
        return files
    missing = [f"{spec.root / entry}" + (": no COCO JSON in it" if entry in there else "") for entry in written]
    raise DataError(listed(f"{spec.source}: not found:", missing, "Expected COCO JSON files."))


def _given_names(spec: DataSpec, document: Document) -> Mapping[int, str]:
    """id -> name as the YAML has them, itself or in a file that it names; empty if it has none."""
    if not document.names_file:
        return document.names
    file = spec.finder.entry(document.names_file, str(document.source))
    if file is None:
        raise DataError(f"{document.source}: names: file {spec.root / document.names_file} not found")
    problems: list[str] = []
    names = checked_names(list(read_names(file)), problems)
    raise_problems(document.source, problems)
    return names


def _names(spec: DataSpec, document: Document) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(class names, notices) of YOLO and VOC; from beside the images if the YAML has none."""
    problems: list[str] = []
    names, told = _given_names(spec, document), ""
    if not names:
        written = [entry for entries in spec.splits.values() for entry in entries]
        paths = [path for entry in written if (path := spec.finder.entry(entry, str(document.source)))]
        beside, where = names_beside(spec.finder, paths, spec.format)
        names = checked_names(list(beside) or None, problems)
        told = f"names: [{', '.join(beside)}], from {where}" if beside else ""
    if not names and not problems and document.source.suffix.lower() not in YAML:
        text = yaml_to_write(document.folder, spec.splits)
        raise DataError(f"{document.source}: holds no file with the names of the classes, such as classes.txt. {text}")
    if not names and not problems:
        problems.append("names: missing; expected a list of names, such as names: [cat, dog]")
    check_positions(names, problems)
    raise_problems(document.source, problems)
    return tuple(names.values()), (told,) if told else ()


def _with_val(spec: DataSpec, share: float) -> DataSpec:
    told = (
        f"{spec.source}: no val split: {share:.0%} of the training images, chosen by their names, are held out as val; "
        "name a val split, or set val_share to another share"
    )
    splits, images = {**spec.splits, "val": spec.splits["train"]}, dict(spec.images)
    if "train" in images:
        images["val"] = images["train"]
    return dataclasses.replace(spec, splits=splits, images=images, val_share=share, notices=(*spec.notices, told))
