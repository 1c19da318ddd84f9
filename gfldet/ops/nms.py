"""Non-maximum suppression of a batch: per class, without a time limit and without silent drops."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfldet.ops.decode import Scored
from gfldet.ops.detections import Detections, chosen


def non_max_suppression(
    predictions: Scored,
    conf: float = 0.25,
    iou: float | None = 0.7,
    max_det: int = 300,
    agnostic: bool = False,
    classes: Tensor | None = None,
) -> list[Detections]:
    """A head's predictions -> the detections of each image, best score first, in px of the input.

    Every (point, class) score above `conf` is a candidate of its own, so one point may give several classes.  A kept
    candidate suppresses those of its class (of any class if `agnostic`) that have a lower score and that it overlaps by
    more than `iou`.  `iou` None suppresses nothing (for heads that give each object once).  The best `max_det` are
    returned.  `classes` (K,) int64 keeps only these classes.
    """
    return [_one_image(predictions, i, conf, iou, max_det, agnostic, classes) for i in range(len(predictions))]


def _one_image(
    predictions: Scored,
    image: int,
    conf: float,
    iou: float | None,
    max_det: int,
    agnostic: bool,
    classes: Tensor | None,
) -> Detections:
    found = predictions.candidates(image, conf, classes)
    scores, order = found.scores.sort(descending=True, stable=True)
    labels, points = found.classes[order], found.points[order]

    def boxes_of(some: NDArray[np.int64]) -> NDArray[np.float32]:
        return predictions.corners(image, torch.from_numpy(some).to(points.device)).cpu().numpy()

    no_boxes = np.empty((len(scores), 0), np.float32)
    ordered = Detections(no_boxes, scores.cpu().numpy(), labels.cpu().numpy(), points.cpu().numpy())
    return chosen(ordered, boxes_of, iou, max_det, agnostic)
