"""TIDE: the kind of each error, and what each kind costs in AP50.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
arXiv 2008.08115.  A detection that is not right is an error of one kind, by its IoU with the truths of its image:

    Loc   a truth of its own class, from .1 to .5: the box is loose
    Cls   a truth of another class, .5 and more: the class is wrong
    Dupe  a truth of its own class, .5 and more, that a higher score has found: a double
    Bkg   no truth, more than .1: a false alarm
    Both  a truth of another class, from .1 to .5

The first that holds in this order, which is that of the authors' program, is the kind.  A truth is a Miss where no
detection finds it and no Loc or Cls detection is about it.

The cost of a kind is what AP50 would gain without its errors.  Loc and Cls errors become right; where the truth is
found already, or by a higher score of the same kind, they are left out, as Dupe, Bkg and Both errors are.  Truths that
are a Miss do not count.  Where this leaves a class no truth, the paper does not say what its AP is: here it is 1.

hotcoco has these costs too, but gives each missed truth a detection above all others, which raises the precision of
the class; the paper warns of that.  Letters: N detections, T truths of the split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from gfldet.metrics.coco import image_numbers
from gfldet.metrics.matching import SplitTruths, match, pairwise_iou, truth_columns
from gfldet.metrics.table import DetectionTable, Floats, Ints

if TYPE_CHECKING:
    from gfldet.data.records import Split

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU
MAX_DET = 100  # of an image and class, as in COCO's AP

Kind = Literal["Miss", "Bkg", "Cls", "Loc", "Both", "Dupe"]
KINDS: tuple[Kind, ...] = ("Miss", "Bkg", "Cls", "Loc", "Both", "Dupe")
MISS, BKG, CLS, LOC, BOTH, DUPE = range(len(KINDS))
RIGHT, IGNORED = -1, -2  # what a detection is that is no error

_RECALL = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Errors:
    """What each detection is, and which truths are missed.

    kind    (N,) position in KINDS, or RIGHT or IGNORED (it lies in an ignore region)
    truth   (N,) row of the truth that it finds, or that its error is about; -1 for none
    missed  (T,) bool
    """

    kind: Ints
    truth: Ints
    missed: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ErrorCosts:
    """ap50: that of all detections; cost: what it would gain without the errors of a kind.  NaN without truths."""

    ap50: float
    cost: Mapping[Kind, float]


def find_errors(truths: SplitTruths, detections: DetectionTable) -> Errors:
    """The kinds of these detections; those below a threshold are to be left out before."""
    matches = match(truths, detections, FOREGROUND)
    kind = np.where(matches.truth >= 0, RIGHT, np.where(matches.ignored, IGNORED, BKG))
    truth, corners = matches.truth.copy(), detections.corners()
    wrong = np.flatnonzero(kind == BKG)
    wrong = wrong[np.argsort(detections.image[wrong], kind="stable")]
    images, starts = np.unique(detections.image[wrong], return_index=True)
    for image, rows in zip(images, np.split(wrong, starts[1:]), strict=False):  # no image: split gives one empty part
        here = slice(truths.start[image], truths.start[image + 1])
        if here.stop > here.start:
            overlap = pairwise_iou(corners[rows], truths.boxes[here])
            own = detections.classes[rows][:, None] == truths.classes[None, here]
            kind[rows], about = _kinds(overlap, own)
            truth[rows] = np.where(about >= 0, about + here.start, -1)
    missed = np.ones(len(truths.classes), np.bool_)
    missed[truth[np.isin(kind, (RIGHT, CLS, LOC))]] = False
    return Errors(kind, truth, missed)


def _kinds(overlap: Floats, own: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """(D, M) IoU, and whether detection and truth have one class -> (D,) kinds, and the truth of each or -1."""
    same, other = np.where(own, overlap, 0.0), np.where(own, 0.0, overlap)
    best_same, best_other = same.max(axis=1), other.max(axis=1)
    conditions = [
        (best_same >= BACKGROUND) & (best_same < FOREGROUND),
        best_other >= FOREGROUND,
        best_same >= FOREGROUND,
        best_other <= BACKGROUND,
    ]
    kind = np.select(conditions, [LOC, CLS, DUPE, BKG], BOTH)
    about = np.where(np.isin(kind, (LOC, DUPE)), same.argmax(axis=1), other.argmax(axis=1))
    return kind, np.where(kind == BKG, -1, about)


def error_costs(split: Split, detections: DetectionTable) -> ErrorCosts:
    """What each kind of error costs; AP50 as COCO has it, over all detections of whatever score."""
    truths = truth_columns(split)
    table = _measured(detections, image_numbers(split))
    errors = find_errors(truths, table)
    counts = np.bincount(truths.classes, minlength=len(split.names))
    right, kept = errors.kind == RIGHT, errors.kind != IGNORED
    ap50 = _mean_ap(table.classes, right, kept, counts, counts)
    without: dict[Kind, float] = {}
    for number, kind in enumerate(KINDS):
        if kind == "Miss":
            left = counts - np.bincount(truths.classes[errors.missed], minlength=len(counts))
            without[kind] = _mean_ap(table.classes, right, kept, counts, left)
            continue
        repaired = _repaired(errors, number) if kind in ("Cls", "Loc") else np.zeros(0, np.int64)
        now_right, now_kept, labels = right.copy(), kept & (errors.kind != number), table.classes.copy()
        now_right[repaired] = now_kept[repaired] = True
        labels[repaired] = truths.classes[errors.truth[repaired]]
        without[kind] = _mean_ap(labels, now_right, now_kept, counts, counts)
    return ErrorCosts(ap50, {kind: value - ap50 for kind, value in without.items()})


def _measured(detections: DetectionTable, numbers: Ints) -> DetectionTable:
    """What COCO's AP counts, in its order: the best MAX_DET of each image and class, by falling score, equal ones by
    the `numbers` of their images."""
    order = np.lexsort((-detections.scores, detections.classes, detections.image))
    groups = np.column_stack((detections.image, detections.classes))[order]
    first = np.flatnonzero((np.diff(groups, axis=0, prepend=-1) != 0).any(axis=1))
    place = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    table = detections.take(np.sort(order[place < MAX_DET]))
    return table.take(np.lexsort((numbers[table.image], -table.scores)))


def _repaired(errors: Errors, number: int) -> Ints:
    """Rows of the errors of a kind that become right: for each truth that is not found, the one of the highest score;
    the rows are sorted by falling score."""
    found = np.zeros(len(errors.missed), np.bool_)
    found[errors.truth[errors.kind == RIGHT]] = True
    rows = np.flatnonzero(errors.kind == number)
    rows = rows[~found[errors.truth[rows]]]
    return rows[np.unique(errors.truth[rows], return_index=True)[1]]


def _mean_ap(
    labels: Ints, right: NDArray[np.bool_], kept: NDArray[np.bool_], counts: Ints, truths_left: Ints
) -> float:
    """Mean AP over the classes that have truths (`counts`), with recall by `truths_left`; NaN if none has."""
    labels, right = labels[kept], right[kept]
    ends = np.cumsum(np.bincount(labels, minlength=len(counts)))
    by_class = np.split(np.argsort(labels, kind="stable"), ends[:-1])
    values = [_ap(right[by_class[c]], int(truths_left[c])) for c in np.flatnonzero(counts)]
    return float(np.mean(values)) if values else float("nan")


def _ap(right: NDArray[np.bool_], truths: int) -> float:
    """COCO's AP of detections by falling score: the mean over 101 recalls of the best precision at this or more."""
    if truths == 0:
        return 1.0
    hits = np.cumsum(right)
    best = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(np.append(best, 0.0)[np.searchsorted(hits / truths, _RECALL)].mean())
