"""Non-maximum suppression of a batch: per class, without a time limit and without silent drops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfldet.ops.decode import Decoded


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The detections of one image, best score first: points (D,) int64, classes (D,) int64 and scores (D,)."""

    points: Tensor
    classes: Tensor
    scores: Tensor


def non_max_suppression(
    decoded: Decoded,
    conf: float = 0.25,
    iou: float | None = 0.7,
    max_det: int = 300,
    agnostic: bool = False,
    classes: Tensor | None = None,
) -> list[Kept]:
    """Decoded head output -> the points and classes that are the detections of each image.

    Every (point, class) score above `conf` is a candidate of its own, so one point may give several classes.  A kept
    candidate suppresses those of its class (of any class if `agnostic`) that have a lower score and that it overlaps by
    more than `iou`.  `iou` None suppresses nothing (for heads that give each object once).  The best `max_det` are
    returned.  `classes` (K,) int64 keeps only these classes.
    """
    return [_one_image(decoded, i, conf, iou, max_det, agnostic, classes) for i in range(len(decoded))]


def _one_image(
    decoded: Decoded,
    image: int,
    conf: float,
    iou: float | None,
    max_det: int,
    agnostic: bool,
    classes: Tensor | None,
) -> Kept:
    scores = decoded.scores[image].float().T  # (A, C)
    wanted = scores > conf
    if classes is not None:
        allowed = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        allowed[classes] = True
        wanted &= allowed
    point, label = wanted.nonzero(as_tuple=True)
    score, order = scores[point, label].sort(descending=True, stable=True)
    point, label = point[order], label[order]
    if iou is None or not len(score):
        return Kept(point[:max_det], label[:max_det], score[:max_det])
    from torchvision.ops import batched_nms  # here, because torchvision takes seconds to import

    group = torch.zeros_like(label) if agnostic else label
    # Greedy NMS goes from the highest score down, so a few candidates decide the best `max_det`.  More are taken only
    # when too few survive.  The result is the same as with all candidates.
    take = 4 * max_det
    while True:
        boxes = decoded.corners(image, point[:take])
        # Classes are set apart by shifts of the largest coordinate, so no coordinate may be below 0.
        boxes = boxes - boxes.amin().clamp(max=0)
        keep = batched_nms(boxes, score[:take], group[:take], iou)[:max_det]
        if len(keep) == max_det or take >= len(score):
            return Kept(point[keep], label[keep], score[keep])
        take *= 4
