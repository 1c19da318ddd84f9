"""Non-maximum suppression of a batch: per class, without a time limit and without dropping anything unsaid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfldet.ops.boxes import xywh_to_xyxy


@dataclass(frozen=True, slots=True)
class Detections:
    """What is left of one image, best score first: boxes (D, 4) xyxy, scores (D,), classes (D,) int64."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def non_max_suppression(
    decoded: Tensor,
    conf: float = 0.25,
    iou: float | None = 0.7,
    max_det: int = 300,
    agnostic: bool = False,
    classes: Tensor | None = None,
) -> list[Detections]:
    """Decoded head output (B, 4 + C, A), boxes xywh in pixels, to the detections of each image.

    Every (point, class) score above `conf` is a candidate of its own, so one point may give several classes.  A
    candidate falls when one with a higher score, of its class (of any class if `agnostic`), overlaps it by more than
    `iou`; with `iou` None none falls (for heads that give each object once).  The best `max_det` survivors are
    returned.  `classes` (K,) int64 keeps those classes alone.
    """
    return [_one_image(image, conf, iou, max_det, agnostic, classes) for image in decoded.float().transpose(1, 2)]


def _one_image(
    image: Tensor, conf: float, iou: float | None, max_det: int, agnostic: bool, classes: Tensor | None
) -> Detections:
    """One image (A, 4 + C) -> its detections."""
    scores = image[:, 4:]
    wanted = scores > conf
    if classes is not None:
        allowed = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        allowed[classes] = True
        wanted &= allowed
    point, label = wanted.nonzero(as_tuple=True)
    score, order = scores[point, label].sort(descending=True, stable=True)
    point, label = point[order], label[order]
    if iou is None:
        point, score, label = point[:max_det], score[:max_det], label[:max_det]
        return Detections(xywh_to_xyxy(image[point, :4]), score, label)
    from torchvision.ops import batched_nms  # here, because torchvision takes seconds to import

    group = torch.zeros_like(label) if agnostic else label
    # Greedy NMS decides from the top down, so the best few candidates settle the best `max_det`; more are looked at
    # only when too few survive.  The result is that of looking at all of them.
    take = 4 * max_det
    while True:
        boxes = xywh_to_xyxy(image[point[:take], :4])
        keep = batched_nms(boxes, score[:take], group[:take], iou)[:max_det]
        if len(keep) == max_det or take >= len(score):
            return Detections(boxes[keep], score[keep], label[keep])
        take *= 4
