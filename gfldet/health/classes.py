"""Findings about classes: without boxes, rare, nearly all, or one class under two names."""

from __future__ import annotations

import re

import numpy as np

from gfldet.data.records import Finding
from gfldet.errors import counted
from gfldet.health.codes import KINDS
from gfldet.health.survey import Ints, Survey

RARE = 20  # boxes in train
DOMINANT = 0.8  # share of the boxes of train


def boxes_by_class(survey: Survey, split: str) -> Ints:
    """(C,) how many truths of each class a split has."""
    of_split = np.array([picture.split == split for picture in survey.pictures], bool)
    truths = survey.truths
    chosen = of_split[truths.picture] if len(truths.picture) else np.zeros(0, bool)
    return np.bincount(truths.classes[chosen], minlength=len(survey.names)).astype(np.int64)


def findings_of_classes(survey: Survey) -> list[Finding]:
    """All findings about classes."""
    found = _alike(survey)
    counts = boxes_by_class(survey, "train")
    if not counts.sum():
        return found
    for name, count in sorted(zip(survey.names, counts.tolist(), strict=True), key=lambda pair: pair[1]):
        if not count:
            text = f"train: class {name!r} has no box, so it cannot be learned"
            found.append(_finding("class-without-boxes", text, name))
        elif count < RARE:
            text = (
                f"train: class {name!r} has {count} of {counted(counts.sum(), 'box')}; few examples are learned badly"
            )
            found.append(_finding("class-rare", text, name, count))
        elif count > DOMINANT * counts.sum() and len(counts) > 1:
            text = (
                f"train: {count / counts.sum():.0%} of the boxes are of class {name!r}; class_weights=auto or "
                "repeat_share help the others"
            )
            found.append(_finding("class-dominant", text, name, count))
    return found


def _finding(code: str, text: str, label: str, count: int = 1) -> Finding:
    return Finding(code, KINDS[code].severity, text, count=count, split="train", label=label)


def _alike(survey: Survey) -> list[Finding]:
    """A finding for each class whose name is that of an earlier one but for case, blanks, hyphens and underscores."""
    first: dict[str, str] = {}
    found = []
    for name in survey.names:
        word = re.sub(r"[\s_\-‐-―.]+", "", name).casefold() or name
        earlier = first.setdefault(word, name)
        if earlier != name:
            text = f"classes {earlier!r} and {name!r} have nearly the same name; one class should have one name"
            found.append(Finding("class-names-alike", "warning", text, survey.spec.source, label=name))
    return found
