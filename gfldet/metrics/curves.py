"""Precision, recall and F1 of each class against the score threshold, and the threshold with the best F1.

Nothing is interpolated: each point of a curve belongs to an actual score s and holds the values of the detections
with score >= s.  A detection is right when it finds a truth of its class at the IoU threshold (`matching.match`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfldet.metrics.matching import Matches, SplitTruths
from gfldet.metrics.table import DetectionTable, Floats


@dataclass(frozen=True)
class Point:
    """The values at the threshold `conf`; `conf` is NaN if no threshold gives a right detection."""

    conf: float
    precision: float
    recall: float
    f1: float


UNDEFINED = Point(float("nan"), float("nan"), float("nan"), float("nan"))
NOTHING_FOUND = Point(float("nan"), 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """One class at every threshold.

    truths  number of truths of the class; if it is 0, recall and F1 are 0 here and `best` is UNDEFINED
    scores  (S,) the distinct scores, falling
    hits    (S,) right detections with at least that score;  kept  (S,) all detections with at least that score
    """

    truths: int
    scores: Floats
    hits: Floats
    kept: Floats

    @property
    def precision(self) -> Floats:
        return self.hits / np.maximum(self.kept, 1)

    @property
    def recall(self) -> Floats:
        return self.hits / max(self.truths, 1)

    @property
    def f1(self) -> Floats:
        """2 P R / (P + R), in a form that gives 0 instead of 0 / 0 where no detection is right."""
        return 2 * self.hits / np.maximum(self.kept + self.truths, 1)

    def best(self) -> Point:
        """The highest threshold among those with the best F1."""
        if not self.truths:
            return UNDEFINED
        if not self.hits.any():
            return NOTHING_FOUND
        return self.at(float(self.scores[self.f1.argmax()]))

    def at(self, conf: float) -> Point:
        """The values of the detections with score >= conf: zeros without detections, UNDEFINED without truths."""
        if not self.truths:
            return UNDEFINED
        kept = int(np.searchsorted(-self.scores, -conf, side="right"))
        if kept == 0:
            return Point(conf, 0.0, 0.0, 0.0)
        return Point(conf, float(self.precision[kept - 1]), float(self.recall[kept - 1]), float(self.f1[kept - 1]))


def class_curves(truths: SplitTruths, detections: DetectionTable, matches: Matches, classes: int) -> tuple[Curve, ...]:
    """A curve for each of the `classes` classes; ignored detections are left out."""
    use = np.flatnonzero(~matches.ignored)
    use = use[np.argsort(-detections.scores[use], kind="stable")]
    scores, found, labels = detections.scores[use], matches.truth[use] >= 0, detections.classes[use]
    counts = np.bincount(truths.classes, minlength=classes)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=classes))[:-1])
    return tuple(_curve(int(counts[c]), scores[rows], found[rows]) for c, rows in enumerate(by_class))


def _curve(truths: int, scores: Floats, found: NDArray[np.bool_]) -> Curve:
    """Falling scores and their hits -> a curve with one point for each distinct score."""
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # the last of each run of equal scores
    return Curve(truths, scores[last], np.cumsum(found, dtype=np.float64)[last], (last + 1).astype(np.float64))


def best_mean(curves: Sequence[Curve]) -> Point:
    """The common threshold of all classes with the best mean F1 over the classes with truths.

    Precision, recall and F1 of the result are means over these classes at this threshold; a class without detections
    there counts as 0.
    """
    curves = [curve for curve in curves if curve.truths]
    if not curves:
        return UNDEFINED
    scores, mean_f1 = mean_f1_curve(curves)
    if not mean_f1.any():
        return NOTHING_FOUND
    conf = float(scores[mean_f1.argmax()])
    points = [curve.at(conf) for curve in curves]
    precision, recall, f1 = (float(np.mean([getattr(p, k) for p in points])) for k in ("precision", "recall", "f1"))
    return Point(conf, precision, recall, f1)


def found_share(curves: Sequence[Curve]) -> float:
    """Recall of all detections of any score, as a mean over the classes with truths; NaN without truths."""
    shares = [float(curve.recall[-1]) if len(curve.scores) else 0.0 for curve in curves if curve.truths]
    return float(np.mean(shares)) if shares else float("nan")


def mean_f1_curve(curves: Sequence[Curve]) -> tuple[Floats, Floats]:
    """Distinct scores of all classes, falling (S,), and the mean F1 of the classes with truths at each (S,)."""
    curves = [curve for curve in curves if curve.truths]
    if not curves:
        return np.zeros(0), np.zeros(0)
    scores = np.concatenate([curve.scores for curve in curves])
    # At a threshold only the F1 of the classes with this score changes, so the mean is the sum of these changes.
    changes = np.concatenate([np.diff(curve.f1, prepend=0.0) for curve in curves])
    order = np.argsort(-scores, kind="stable")
    scores, mean = scores[order], np.cumsum(changes[order]) / len(curves)
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    return scores[last], mean[last]
