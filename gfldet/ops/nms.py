"""Non-maximum suppression of a batch: per class, without a time limit and without dropping anything unsaid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfldet.ops.decode import Decoded


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Where the detections of one image come from, best score first: (D,) points, classes int64, and scores."""

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
    """Decoded head output -> which points and classes of each image are its detections.

    Every (point, class) score above `conf` is a candidate of its own, so one point may give several classes.  A
    candidate falls when one with a higher score, of its class (of any class if `agnostic`), overlaps it by more than
    `iou`; with `iou` None none falls (for heads that give each object once).  The best `max_det` survivors are
    returned.  `classes` (K,) int64 keeps those classes alone.
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
    if iou is None:
        return Kept(point[:max_det], label[:max_det], score[:max_det])
    from torchvision.ops import batched_nms  # here, because torchvision takes seconds to import

    group = torch.zeros_like(label) if agnostic else label
    # Greedy NMS decides from the top down, so the best few candidates settle the best `max_det`; more are looked at
    # only when too few survive.  The result is that of looking at all of them.
    take = 4 * max_det
    while True:
        boxes = decoded.corners(image, point[:take])
        keep = batched_nms(boxes, score[:take], group[:take], iou)[:max_det]
        if len(keep) == max_det or take >= len(score):
            return Kept(point[keep], label[keep], score[keep])
        take *= 4
