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

The cost of a kind is what AP50 would gain without its errors, as hotcoco computes it.  Loc and Cls errors become right;
where the truth is found already, or by a higher score of the same kind, they are left out, as Dupe, Bkg and Both errors
are.  Truths that are a Miss do not count.

Letters: N detections, T truths of the split, D detections and M truths of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from gfldet.metrics.coco import run_hotcoco
from gfldet.metrics.matching import SplitTruths, match, pairwise_iou, truth_columns
from gfldet.metrics.table import DetectionTable, Floats, Ints

if TYPE_CHECKING:
    from gfldet.data.records import Split

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU

Kind = Literal["Miss", "Bkg", "Cls", "Loc", "Both", "Dupe"]
KINDS: tuple[Kind, ...] = ("Miss", "Bkg", "Cls", "Loc", "Both", "Dupe")
MISS, BKG, CLS, LOC, BOTH, DUPE = range(len(KINDS))
RIGHT, IGNORED = -1, -2  # what a detection is that is no error


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

    def take(self, rows: Ints) -> Errors:
        """What these detections are where they are the only ones; no detection changes what a surer one is."""
        kind, truth = self.kind[rows], self.truth[rows]
        return Errors(kind, truth, _missed(kind, truth, len(self.missed)))


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
    return Errors(kind, truth, _missed(kind, truth, len(truths.classes)))


def _missed(kind: Ints, truth: Ints, truths: int) -> NDArray[np.bool_]:
    """(T,) whether no detection is about a truth; `kind` and `truth` as in `Errors`."""
    missed = np.ones(truths, np.bool_)
    missed[truth[np.isin(kind, (RIGHT, CLS, LOC))]] = False
    return missed


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


def error_costs(split: Split, detections: DetectionTable, errors: Errors | None = None) -> dict[Kind, float]:
    """What AP50 would gain without the errors of each kind, over detections of every score; NaN without truths.

    `errors` are those of `find_errors`, where they are known.  Where all truths of a class are a Miss, the paper does
    not say what AP is without them, and hotcoco leaves it at 0, as if they cost nothing.  Here it is 1.
    """
    truths = truth_columns(split)
    if not len(truths.classes):
        return dict.fromkeys(KINDS, float("nan"))
    gains = run_hotcoco(split, detections).tide_errors(FOREGROUND, BACKGROUND)["delta_ap"]
    costs: dict[Kind, float] = {kind: float(gains[kind]) for kind in KINDS}
    there = np.unique(truths.classes)
    errors = errors or find_errors(truths, detections)
    left = np.unique(truths.classes[~errors.missed])
    costs["Miss"] += 1 - len(left) / len(there)
    return costs
