"""The criterion of the GFL detector: head outputs and a batch's truths -> one number to step on.

    maps (B, 4R + C, H, W) per level -> bins (B, A, 4, R) and class logits (B, A, C)
    bins -> integral -> boxes -> assigner -> positives -> QFL + DFL + CIoU

It knows no module of `nn`: the number of classes, the bins, the strides and the gains arrive as arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gfldet.assigners import Assignment, Predictions, TaskAlignedAssigner, Truths
from gfldet.losses.distribution import distribution_focal_loss, integral
from gfldet.losses.focal import quality_focal_loss
from gfldet.losses.iou import iou_loss
from gfldet.ops.boxes import ltrb_to_xyxy, xywh_to_xyxy, xyxy_to_ltrb
from gfldet.ops.points import Grid, anchor_points, grids


@dataclass(frozen=True, slots=True)
class Gains:
    """Weights of the three parts.  QFL's sum is small (its gradient fades as the score nears the IoU), hence cls = 3
    beside YOLOv8's 7.5 and 1.5, which go with BCE at .5."""

    box: float = 7.5
    cls: float = 3.0
    dfl: float = 1.5


@dataclass(frozen=True, slots=True)
class LossItems:
    """`total` () to backward on; `items` (3,) detached: box, cls and dfl, gains included, so that they sum to total."""

    total: Tensor
    items: Tensor


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """Head maps, flat over levels: `bins` (B, A, 4, R) and `logits` (B, A, C), `points` (A, 2), `strides` (A, 1)."""

    bins: Tensor
    logits: Tensor
    points: Tensor
    strides: Tensor
    levels: tuple[Grid, ...]

    def boxes(self) -> Tensor:
        """Decoded boxes (B, A, 4) xyxy in pixels."""
        return ltrb_to_xyxy(self.points, integral(self.bins) * self.strides)


def split_maps(maps: Sequence[Tensor], reg_max: int, strides: Sequence[int]) -> HeadOutput:
    """Per-level maps (B, 4 * reg_max + C, H, W) -> bins and class logits over all A points, in float32."""
    levels = grids([(m.shape[2], m.shape[3]) for m in maps], strides)
    points, stride = anchor_points(levels, maps[0].device)
    flat = torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], dim=1).float()
    bins = flat[..., : 4 * reg_max].unflatten(-1, (4, reg_max))
    return HeadOutput(bins, flat[..., 4 * reg_max :], points, stride, levels)


@dataclass(frozen=True, slots=True)
class v8DetectionLoss:  # noqa: N801 - the name under which this family knows its criterion
    """QFL with IoU-quality targets, DFL on the bins, CIoU on the integrated boxes, over task-aligned positives.

    QFL's target is the plain IoU of a positive point's (detached) box with its truth, at the truth's class, and 0
    elsewhere.  CIoU and DFL are weighted by the normalised alignment.  All three are divided by the alignment's sum
    over the batch (at least 1), as in TOOD.  Points inside ignore regions that answer for no truth carry no loss, and
    points that cannot reach their truth's sides with R bins carry no DFL (a clipped target would teach a wrong side).
    """

    nc: int
    reg_max: int
    strides: tuple[int, ...]
    gains: Gains = Gains()
    assigner: TaskAlignedAssigner = TaskAlignedAssigner()

    def __call__(self, maps: Sequence[Tensor], batch: Mapping[str, Tensor]) -> LossItems:
        """The loss of per-level maps (B, 4R + C, H, W) on a batch dict.

        The batch holds `batch_idx` (N,), `cls` (N, 1), `bboxes` (N, 4) xywh normalised to the input's width and height,
        and optionally `ignore_idx` (K,), `ignore_bboxes` (K, 4) in the same form.
        """
        head = split_maps(maps, self.reg_max, self.strides)
        size = (head.levels[0].width * head.levels[0].stride, head.levels[0].height * head.levels[0].stride)
        truths = truths_of(batch, size, head.points.device)
        boxes = head.boxes()
        predictions = Predictions(head.logits.detach(), boxes.detach())
        positive = self.assigner(predictions, truths, head.levels, reach=self.reg_max - 1)
        normaliser = positive.alignment.sum().clamp(min=1)
        cls = self._classification(head, positive, truths, _ignored(batch, size, head.points)) / normaliser
        box, dfl = self._regression(head, boxes, positive, truths)
        parts = torch.stack(
            (self.gains.box * box / normaliser, self.gains.cls * cls, self.gains.dfl * dfl / normaliser)
        )
        return LossItems(parts.sum(), parts.detach())

    def _classification(
        self, head: HeadOutput, positive: Assignment, truths: Truths, ignored: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Summed QFL () over all points and classes."""
        target = torch.zeros_like(head.logits)
        target[positive.image, positive.point, truths.classes[positive.truth]] = positive.iou
        loss = quality_focal_loss(head.logits, target)
        if len(ignored[0]):
            weight = torch.ones_like(loss[..., 0])
            weight[ignored] = 0
            weight[positive.image, positive.point] = 1
            loss = loss * weight.unsqueeze(-1)
        return loss.sum()

    def _regression(
        self, head: HeadOutput, boxes: Tensor, positive: Assignment, truths: Truths
    ) -> tuple[Tensor, Tensor]:
        """Summed CIoU loss () and DFL () over the positives, weighted by alignment."""
        at = (positive.image, positive.point)
        truth = truths.boxes[positive.truth]
        box = (iou_loss(boxes[at], truth, "ciou") * positive.alignment).sum()
        sides = xyxy_to_ltrb(head.points[positive.point], truth) / head.strides[positive.point]
        dfl = distribution_focal_loss(head.bins[at], sides.clamp(0, self.reg_max - 1)).mean(-1)
        return box, (dfl * positive.alignment * positive.reachable).sum()


def truths_of(batch: Mapping[str, Tensor], size: tuple[int, int], device: torch.device) -> Truths:
    """The batch dict's truths in pixels of an input of `size` (width, height)."""
    scale = torch.tensor([*size, *size], dtype=torch.float32, device=device)
    return Truths(
        boxes=xywh_to_xyxy(batch["bboxes"].to(device).float().reshape(-1, 4)) * scale,
        classes=batch["cls"].to(device).reshape(-1).long(),
        image=batch["batch_idx"].to(device).reshape(-1).long(),
    )


def _ignored(batch: Mapping[str, Tensor], size: tuple[int, int], points: Tensor) -> tuple[Tensor, Tensor]:
    """Image and point (P,) of every point inside an ignore region of its image."""
    if "ignore_bboxes" not in batch or not len(batch["ignore_bboxes"]):
        nothing = torch.zeros(0, dtype=torch.int64, device=points.device)
        return nothing, nothing
    scale = torch.tensor([*size, *size], dtype=torch.float32, device=points.device)
    regions = xywh_to_xyxy(batch["ignore_bboxes"].to(points.device).float()) * scale
    sides = xyxy_to_ltrb(points[None], regions[:, None])  # (K, A, 4); regions are few, unlike truths
    region, point = (sides.amin(-1) > 0).nonzero(as_tuple=True)
    return batch["ignore_idx"].to(points.device).long()[region], point
