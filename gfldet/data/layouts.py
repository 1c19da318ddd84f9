"""What stands for a data YAML where `data=` is none: a folder, a COCO JSON, Darknet's obj.data.

A folder that holds one data YAML stands for it.  Otherwise the splits are found by the words train, val (valid,
validation) and test in the names of COCO JSONs, of VOC's ImageSets lists, of lists of images, or of folders with
images.  Where that is not clear, the error holds the text of a YAML to write.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gfldet.data import shapes
from gfldet.data.document import Document, read_document
from gfldet.data.images import IMAGE_SUFFIXES, find_files, find_images
from gfldet.data.recognise import is_coco, refuse_other_formats
from gfldet.data.split_words import SPLIT_WORDS, SPLITS, split_in, split_word
from gfldet.data.text import list_lines, read_lines
from gfldet.errors import DataError, shown
from gfldet.files import exists, is_file, is_folder, is_root, listing

YAML = frozenset({".yaml", ".yml"})
USUAL = ("data", "dataset")  # stems of a data YAML that is taken although there are others
SKIPPED = {"notes.json"}
BESIDE_IMAGES = ("annotations", "labels")  # folders of JSONs; the images are beside such a folder, not in it

Splits = dict[str, tuple[str, ...]]


def document_of(data: Path) -> Document:
    """The document of a data YAML, or of what stands for one; raises DataError if it is none of these."""
    suffix = data.suffix.lower()
    if is_folder(data):
        return _of_folder(data)
    if not exists(data):
        built_in = ", ".join(shapes.VARIANTS)
        name = shown(str(data), 300, quoted=False)
        raise DataError(f"{name}: no such data YAML; expected a file, a folder, or a built-in set: {built_in}")
    if suffix == ".json":
        return _of_json(data)
    if suffix == ".data":
        return _of_darknet(data)
    if suffix == ".txt" and Path(next(iter(list_lines(data)), "")).suffix.lower() in IMAGE_SUFFIXES:
        return Document(data, data.parent, splits={"train": (data.name,)}, notices=(_told(f"train: {data.name}"),))
    if suffix not in YAML:
        refuse_other_formats(data)
    if suffix in (".zip", ".tar", ".gz", ".7z", ".rar"):
        raise DataError(f"{data}: is an archive; unpack it, and give the folder")
    if suffix in IMAGE_SUFFIXES:
        raise DataError(f"{data}: is an image; give the folder that holds the images and their labels")
    if suffix == ".xml":
        raise DataError(f"{data}: holds the labels of one image; give the folder of the images and their .xml files")
    return read_document(data)


def _of_json(file: Path) -> Document:
    if not is_coco(file):
        refuse_other_formats(file)
        raise DataError(f"{file}: is not a COCO file; expected the lists images, annotations and categories")
    beside = file.parent.name.casefold() in BESIDE_IMAGES
    root = file.absolute().parent.parent if beside else file.parent
    entry = file.absolute().relative_to(root).as_posix() if beside else file.name
    return Document(file, root, splits={"train": (entry,)}, format="coco", notices=(_told(f"train: {entry}"),))


def _of_darknet(file: Path) -> Document:
    """Darknet's obj.data: `train = data/train.txt`, `valid = ...`, `names = data/obj.names`."""
    rows = [line.partition("=") for line in read_lines(file) if "=" in line]
    values = {key.strip().casefold(): value.strip() for key, _, value in rows}
    splits = {SPLIT_WORDS[key]: (value,) for key, value in values.items() if key in SPLIT_WORDS and value}
    if "train" not in splits:
        raise DataError(f"{file}: expected 'train = ...', 'valid = ...' and 'names = ...', as Darknet writes")
    return Document(file, file.parent, splits=splits, names_file=values.get("names"))


def _of_folder(folder: Path) -> Document:
    if is_root(folder):
        raise DataError(f"{folder}: is the root of the file system; name the folder of the data")
    yaml = _yaml_in(folder)
    if yaml is not None:
        return read_document(yaml)
    darknet = find_files(folder, frozenset({".data"}), recursive=False)
    if len(darknet) == 1:
        return _of_darknet(darknet[0])
    for find in (_coco_splits, _voc_splits, _list_splits, _image_splits):
        splits = find(folder)
        if splits:
            return Document(folder, folder, splits=splits, notices=(_told(_lines(splits)),))
    refuse_other_formats(folder)
    raise DataError(f"{folder}: holds neither a data YAML nor images; expected one of them")


def _yaml_in(folder: Path) -> Path | None:
    """The data YAML of a folder, or of the one subfolder that has any."""
    own = find_files(folder, YAML, recursive=False)
    subfolders = [] if own else [path for path in listing(folder) if is_folder(path) and path.name[0] != "."]
    below = [file for sub in subfolders for file in find_files(sub, YAML, recursive=False)]
    found = [file for file in own or below if _has_splits(file)]
    usual = [file for file in found if file.stem in USUAL]
    if len(found) > 1 and len(usual) != 1:
        raise DataError(f"{folder}: holds several data YAMLs; give one of them: {', '.join(map(str, found[:10]))}")
    return next(iter([*usual, *found]), None)


def _has_splits(file: Path) -> bool:
    """Whether a YAML names a split, by its text alone; one that cannot be read counts, so that it is told."""
    try:
        lines = read_lines(file)
    except DataError:
        return True
    return any(SPLIT_WORDS.get(line.partition(":")[0].strip("'\" ").casefold()) for line in lines if ":" in line)


def _coco_splits(folder: Path) -> Splits:
    """COCO JSONs by the split in their names, or in those of their folders."""
    files = [file for file in find_files(folder, frozenset({".json"})) if file.name not in SKIPPED and is_coco(file)]
    instances = [file for file in files if file.stem.startswith("instances")]  # not the captions and key points
    return _by_split(folder, instances or files, "COCO JSON")


def _voc_splits(folder: Path) -> Splits:
    """The lists of ImageSets/Main: train.txt and val.txt, else trainval.txt; of all years that lie there."""
    splits: Splits = {}
    for main in sorted(path for path in folder.glob("**/ImageSets/Main") if is_folder(path)):
        lists = {stem: main / f"{stem}.txt" for stem in ("train", "val", "test", "trainval")}
        there = {stem: file.relative_to(folder).as_posix() for stem, file in lists.items() if is_file(file)}
        if "train" not in there and "trainval" in there:
            there["train"] = there["trainval"]
        for split in SPLITS:
            if split in there:
                splits[split] = (*splits.get(split, ()), there[split])
    return splits


def _list_splits(folder: Path) -> Splits:
    """Lists of images: train.txt, val.txt and test.txt."""
    texts = find_files(folder, frozenset({".txt"}), recursive=False)
    files = [file for file in texts if file.stem.casefold() in SPLIT_WORDS]
    train = any(SPLIT_WORDS[file.stem.casefold()] == "train" for file in files)
    return _by_split(folder, files, "list") if train else {}


def _image_splits(folder: Path) -> Splits:
    """Folders with images, by the word of their split; if none has one, all images are for training."""
    folders = sorted({image.parent for image in find_images(folder)})
    inside = {path: path.relative_to(folder).parts for path in folders}
    if not folders:
        return {}
    if not any(split_in("/".join(parts)) for parts in inside.values()):
        return {"train": (_common(folder, folders),)}
    of_split: dict[str | None, list[Path]] = {}
    for path, parts in inside.items():
        of_split.setdefault(split_word(parts) or split_in("/".join(parts)), []).append(path)
    entries = {split: (_common(folder, paths),) for split, paths in of_split.items() if split}
    for split, (entry,) in entries.items():
        others = [path for other, paths in of_split.items() if other != split for path in paths]
        if any((folder / entry) in (path, *path.parents) for path in others):
            raise _unclear(folder, "the folders with images do not tell the splits apart", entries)
    if None in of_split or "train" not in entries:
        raise _unclear(folder, "not every folder with images names its split", entries)
    return {split: entries[split] for split in SPLITS if split in entries}


def _common(root: Path, folders: Sequence[Path]) -> str:
    return Path(os.path.commonpath(folders)).relative_to(root).as_posix()


def _by_split(folder: Path, files: Sequence[Path], kind: str) -> Splits:
    """split -> the one file that names it; a single file without a word is for training."""
    inside = [file.relative_to(folder).as_posix() for file in files]
    if len(inside) == 1:
        return {"train": (inside[0],)}
    found: dict[str | None, list[str]] = {}
    for name in inside:
        found.setdefault(split_in(name), []).append(name)
    several = next((names for split, names in found.items() if split is None or len(names) > 1), None)
    if several or (found and "train" not in found):
        example = {split: (names[0],) for split, names in found.items() if split}
        raise _unclear(folder, f"which {kind} belongs to which split is not clear: {', '.join(inside[:10])}", example)
    return {split: tuple(found[split]) for split in SPLITS if split in found}


def _unclear(folder: Path, reason: str, splits: Mapping[str, tuple[str, ...]]) -> DataError:
    example = {"train": ("images/train",), "val": ("images/val",), **splits}
    return DataError(f"{folder}: {reason}. {yaml_to_write(folder, example)}")


def yaml_to_write(folder: Path, splits: Mapping[str, tuple[str, ...]]) -> str:
    """What to do where it is not clear what a folder holds: the text of a data YAML for it."""
    text = f"{_lines(splits, chr(10))}\nnames: [the, names, of, the, classes]  # not needed for COCO"
    return f"Write {folder / 'data.yaml'}, such as\n{text}"


def _lines(splits: Mapping[str, tuple[str, ...]], joint: str = "; ") -> str:
    texts = {split: entries[0] if len(entries) == 1 else f"[{', '.join(entries)}]" for split, entries in splits.items()}
    return joint.join(f"{split}: {text}" for split, text in texts.items())


def _told(what: str) -> str:
    return f"no data YAML here; read as if one said: {what}"
