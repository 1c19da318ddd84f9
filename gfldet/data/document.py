"""The data YAML as it is written: its keys, and what each may hold.  No file but the YAML is read here.

Keys: `path` (relative to the YAML; the YAML's own folder if absent), `train`, `val`, `test`, `names`, `format`,
`images` (COCO only: one folder, or one per split), `kpt_shape` (YOLO: the label rows hold keypoints after the box).
`nc` must match the names.  Capitals do not matter, and `valid` and
`validation` are `val`.  Other programs write other keys.  These have no effect and are told, unless one is so like a
key of ours that it must be a slip.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gfldet.data.formats import nearest
from gfldet.data.formats.keypoints import KptShape
from gfldet.data.recognise import FORMATS
from gfldet.data.split_words import SPLIT_WORDS, SPLITS
from gfldet.errors import DataError, counted, listed, shown
from gfldet.files import read_text, read_yaml

KEYS = ("path", *SPLITS, "names", "format", "images", "nc", "kpt_shape")
SILENT = ("download", "roboflow", "flip_idx")  # of other programs, in nearly every file of theirs
SLIP = 0.78  # likeness to a key, from which another key must be a slip of it
MEANT = {"classes": "names", "class_names": "names", "root": "path", "num_classes": "nc", "trainval": "train"}
LONGEST_SLIP = 20  # letters
MAX_KEYS = 1000
_NAMES_FILE = re.compile(r"\S.*\.(names|txt|json|labels)", re.IGNORECASE)
_NO_BLANK = re.compile(r"^\s*[\w'\"-]+:(?![\s/\\]|$)\S+", re.MULTILINE)
NO_BLANK = "a blank is missing after the colon: write '0: cat', not '0:cat'"


@dataclass(frozen=True)
class Document:
    """What a data YAML says, or what stands for one where there is none.

    source      what messages name: the YAML, or the file or folder that stands for it
    folder      `path` is relative to it
    path        the root as written; None: `folder`
    splits      split -> its entries as written
    names       id -> name in the order of the ids; empty if none are given
    names_file  a file with the names, as written, in place of `names`
    by_id       whether the names came with ids
    format      "yolo", "coco" or "voc"; None: to be found out
    images      COCO: a folder, or split -> folder, as written
    long_rows   YOLO: what rows of more than five values are: (K, 2 or 3) a box with keypoints, "polygons"; None: the
                rows show it
    notices     what was passed over
    """

    source: Path
    folder: Path
    path: str | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    names_file: str | None = None
    by_id: bool = False
    format: str | None = None
    images: str | Mapping[str, str] | None = None
    long_rows: KptShape | Literal["polygons"] | None = None
    notices: tuple[str, ...] = ()


def read_document(source: Path) -> Document:
    """Reads a data YAML; raises DataError with all its mistakes at once."""
    written = _mapping(source)
    problems: list[str] = []
    notices: list[str] = []
    keys = _keys(written, problems, notices)
    splits = {split: _entries(split, keys[split], problems) for split in SPLITS if keys.get(split) is not None}
    if not splits:
        problems.append("no split; expected 'train' and 'val', each with a folder or a file")
    names = keys.get("names")
    names_file = names.strip() if isinstance(names, str) and _NAMES_FILE.fullmatch(names.strip()) else None
    found = {} if names_file else read_names(names, problems)
    kind = keys.get("format")
    if kind is not None and kind not in FORMATS:
        problems.append(f"format: {shown(kind)} is not one of {', '.join(FORMATS)}.{nearest(kind, FORMATS)}")
    if found and keys.get("nc", len(found)) != len(found):
        problems.append(
            f"nc: {shown(keys['nc'])} does not match the {counted(len(found), 'name')}; remove 'nc' or correct it"
        )
    path, images = keys.get("path"), keys.get("images")
    if path is not None and not isinstance(path, str):
        problems.append(f"path: expected a folder, got {shown(path)}")
    per_split = isinstance(images, dict) and all(k in SPLITS and isinstance(v, str) for k, v in images.items())
    if images is not None and not isinstance(images, str) and not per_split:
        problems.append(f"images: expected a folder, or a folder for each of train and val, got {shown(images)}")
    long_rows = _long_rows(keys, problems)
    raise_problems(source, problems)
    return Document(
        source,
        source.parent,
        path,
        splits,
        found,
        names_file,
        isinstance(names, dict),
        kind,
        images,
        long_rows,
        tuple(notices),
    )


def raise_problems(source: Path, problems: list[str]) -> None:
    """DataError that lists the problems, if there are any."""
    if problems:
        raise DataError(
            listed(f"{source}: cannot be used as a data YAML:", problems, "Correct the file and try again.")
        )


def _mapping(source: Path) -> dict[Any, Any]:
    try:
        document = read_yaml(source, DataError).value
    except DataError as error:
        place = _NO_BLANK.search(read_text(source, DataError)) if "is not valid YAML" in str(error) else None
        if place is None:
            raise
        raise DataError(f"{error}; {NO_BLANK} ({shown(place[0].strip())})") from None
    if isinstance(document, dict) and len(document) <= MAX_KEYS:
        return document
    hint = f"; {NO_BLANK}" if isinstance(document, str) and _NO_BLANK.search(document) else ""
    raise DataError(f"{source}: expected 'key: value' lines with train, val and names{hint}")


def _keys(written: Mapping[Any, Any], problems: list[str], notices: list[str]) -> dict[str, Any]:
    """The values by our own keys; what is no key of ours is a problem if it looks like a slip, else a notice."""
    found: dict[str, Any] = {}
    spelling: dict[str, Any] = {}
    foreign = []
    for key, value in written.items():
        word = key.strip().casefold() if isinstance(key, str) else key
        known = SPLIT_WORDS.get(word, word) if isinstance(word, str) else None
        if known in KEYS:
            if known in found and None not in (value, found[known]) and value != found[known]:
                problems.append(f"{shown(key, quoted=False)}: means the same as {spelling[known]}; remove one of them")
            if found.get(known) is None:
                found[known], spelling[known] = value, key
        elif known in SILENT:
            continue
        elif guess := _slip(word):
            allowed = f"allowed are {', '.join(KEYS)}"
            problems.append(f"{shown(key, quoted=False)}: unknown key; {allowed}. Did you mean {guess!r}?")
        else:
            foreign.append(shown(key, quoted=False))
    if foreign:
        notices.append(f"{', '.join(foreign[:20])}: no key of gfldet's, without effect")
    return found


def _slip(word: object) -> str | None:
    """The key of ours that an unknown key is a slip of, or another word for."""
    if not isinstance(word, str):
        return None
    same = next((key for key in KEYS if len(key) > 2 and sorted(key) == sorted(word)), None)
    close = difflib.get_close_matches(word, KEYS, 1, SLIP) if len(word) <= LONGEST_SLIP else []
    return MEANT.get(word) or same or (close[0] if close else None)


def _long_rows(keys: Mapping[str, Any], problems: list[str]) -> KptShape | Literal["polygons"] | None:
    """What `kpt_shape` says of label rows that are longer than a box."""
    shape = keys.get("kpt_shape")
    if shape is None:
        return "polygons" if "kpt_shape" in keys else None
    numbers = isinstance(shape, list) and [type(value) for value in shape] == [int, int]
    if numbers and shape[0] > 0 and shape[1] in (2, 3):
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


def read_names(value: object, problems: list[str]) -> dict[int, str]:
    """id -> name in the order of the ids; empty if there are no names or if they are wrong."""
    if value is None:
        return {}
    pairs = [(_id(key), name) for key, name in _pairs(value)]
    turned = "; write the id before the name, as in '0: cat'" if any(type(name) is int for _, name in pairs) else ""
    wrong = [f"names: id {shown(key)} is not a whole number{turned}" for key, _ in pairs if type(key) is not int]
    wrong += [
        f"names: {shown(name)} (id {shown(key)}) is not text; put it in quotes"
        for key, name in pairs
        if type(name) not in (str, int, float) or name == ""
    ]
    texts = [str(name) for _, name in pairs if type(name) in (str, int, float)]
    wrong += [f"names: {shown(text)} appears {n} times" for text, n in Counter(texts).items() if n > 1]
    wrong += [f"names: id {shown(key)} is given {n} times" for key, n in Counter(k for k, _ in pairs).items() if n > 1]
    if not pairs:
        hint = f"; write names: [{shown(value, quoted=False)}]" if isinstance(value, str) and "," in value else ""
        wrong.append(f"names: expected a list of names, or id: name lines, got {shown(value)}{hint}")
    if any(isinstance(text, str) and re.match(r"['\"]?\d+['\"]?:\S", text) for text in (value, *texts)):
        wrong = [f"names: {NO_BLANK}, got {shown(value)}"]
    problems += wrong
    return {} if wrong else {int(key): str(name) for key, name in sorted(pairs)}


def _pairs(value: object) -> list[tuple[Any, Any]]:
    """(id, name) of a list of names, of `id: name` lines, or of a list of such lines."""
    if isinstance(value, dict):
        return list(value.items())
    if not isinstance(value, list):
        return []
    if value and all(isinstance(one, dict) and len(one) == 1 for one in value):
        return [pair for one in value for pair in one.items()]
    return list(enumerate(value))


def _id(key: Any) -> Any:
    """An id; text of digits, as in '0': cat, is a number."""
    return int(key) if isinstance(key, str) and key.strip().isdecimal() and len(key) < 20 else key


def check_positions(names: Mapping[int, str], problems: list[str]) -> None:
    """YOLO and VOC classes are positions: ids 0..C-1 without a gap."""
    gaps = [str(i) for i in range(len(names)) if i not in names]  # where one is missing, another is too large
    if not gaps:
        return
    told = (
        f"names: ids must run from 0 to {len(names) - 1} without a gap; "
        f"got {shown(min(names))} to {shown(max(names))}, missing {', '.join(gaps[:20])}"
    )
    if min(names) == 1 and max(names) == len(names):
        told += ". Write them as a list if the labels count classes from 0; add '0: background' if they count from 1"
    problems.append(told)
