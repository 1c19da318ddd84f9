"""The splits of a data set, and the words that people and programs use for them."""

from __future__ import annotations

import re
from collections.abc import Sequence

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""A word, in lower case -> the split that it means."""


def split_word(folders: Sequence[str]) -> str | None:
    """The split that the folders of a path name, by the last that is such a word: `images/train2017` is train."""
    for folder in reversed(folders):
        split = SPLIT_WORDS.get(folder.casefold().rstrip("0123456789"))
        if split:
            return split
    return None


def split_in(text: str) -> str | None:
    """The split that is part of a name, by its last such word: `instances_val2017`, `obj_train_data`."""
    return split_word(re.findall(r"[^\W\d_]+", text.replace("\\", "/")))
