"""Box losses: one minus an overlap."""

from __future__ import annotations

from torch import Tensor

from gfldet.losses.focal import Reduction, reduced
from gfldet.ops.boxes import IoUKind, aligned_iou


def iou_loss(boxes: Tensor, target: Tensor, kind: IoUKind = "ciou", reduction: Reduction = "none") -> Tensor:
    """1 - IoU, GIoU, DIoU or CIoU of boxes (P, 4) with truths (P, 4), both xyxy in one unit; sources in `ops.boxes`."""
    return reduced(1 - aligned_iou(boxes, target, kind), reduction)
