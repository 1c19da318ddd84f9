"""Does the score say how well a box fits?  The rank correlation of score with IoU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gfldet.metrics.matching import SplitTruths, pairwise_iou
from gfldet.metrics.table import DetectionTable, Floats

PER_TRUTH = 2.0


def score_iou_correlation(
    truths: SplitTruths, detections: DetectionTable, per_truth: float = PER_TRUTH, least_iou: float = 0.0
) -> float:
    """Spearman's correlation of score with IoU, over the `per_truth` x T detections with the highest scores (T truths).

    The IoU of a detection is its highest IoU with a truth of its class in its image, 0 if there is none.  The number of
    detections is fixed and there is no threshold, so a model with low scores has no advantage.  NaN if there are fewer
    than two detections, or if all scores or all IoUs are equal.

    With `least_iou`, only those of these detections count that have at least this IoU.  Why: an object without a label
    gives a detection with a high score and an IoU of 0, even if the score is good; `least_iou` = .5 removes it.
    """
    return score_iou_correlations(truths, detections, (least_iou,), per_truth)[0]


def score_iou_correlations(
    truths: SplitTruths, detections: DetectionTable, least_ious: Sequence[float], per_truth: float = PER_TRUTH
) -> list[float]:
    """`score_iou_correlation` for each of several `least_iou`; the IoUs are computed once."""
    best = np.argsort(-detections.scores, kind="stable")[: int(per_truth * len(truths.classes))]
    table = detections.take(best)
    iou = _best_iou(truths, table)
    return [_spearman(table.scores[iou >= least], iou[iou >= least]) for least in least_ious]


def _best_iou(truths: SplitTruths, detections: DetectionTable) -> Floats:
    """The highest IoU of each detection with a truth of its class in its image."""
    found = np.zeros(len(detections))
    corners = detections.corners()
    order = np.argsort(detections.image, kind="stable")
    images, starts = np.unique(detections.image[order], return_index=True)
    for image, mine in zip(images, np.split(order, starts[1:]), strict=False):  # no image: split gives one empty part
        here = slice(truths.start[image], truths.start[image + 1])
        overlap = pairwise_iou(corners[mine], truths.boxes[here])
        overlap *= detections.classes[mine][:, None] == truths.classes[None, here]
        found[mine] = overlap.max(axis=1, initial=0.0)
    return found


def _spearman(a: Floats, b: Floats) -> float:
    ranks = [_ranks(values) for values in (a, b)]
    if len(a) < 2 or any(rank.std() == 0 for rank in ranks):
        return float("nan")
    first, second = ((rank - rank.mean()) / rank.std() for rank in ranks)
    return float((first * second).mean())


def _ranks(values: Floats) -> Floats:
    """Rank of each value; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean: Floats = np.cumsum(counts) - (counts - 1) / 2
    return mean[inverse]
