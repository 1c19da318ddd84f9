"""The criteria of the detectors: head outputs and a batch's truths -> the loss to train with.

    maps (B, 4R + C, H, W) per level -> bins (B, A, 4, R) and class logits (B, A, C)
    bins -> integral -> boxes -> assigner -> positives -> QFL + DFL + CIoU (or other losses in their place)

This file uses no module of `gfldet.nn`: the number of classes, the bins, the strides and the gains are arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gfldet.assigners import Assigner, Assignment, Predictions, TaskAlignedAssigner, Truths
from gfldet.losses import focal
from gfldet.losses.distribution import distribution_focal_loss
from gfldet.losses.iou import iou_loss
from gfldet.ops.boxes import IoUKind, xywh_to_xyxy, xyxy_to_ltrb
from gfldet.ops.decode import HeadOutput, split_maps
from gfldet.ranks.value import ONE, Ranks

ClassTarget = Literal["iou", "alignment", "one"]


@dataclass(frozen=True, slots=True)
class ClassLoss:
    """A classification loss as the criterion uses it.

    `loss` takes logits (B, A, C) and targets (B, A, C) and is element-wise.  `target` is the default target of a
    positive point at its truth's class: the IoU of its box, its alignment, or 1.  All other targets are 0.  `gain` is
    the default weight, made for a box loss weight of 7.5.  A loss that `mines` chooses among the elements, so it also
    takes `counted` (B, A, 1) bool: the points that carry a classification loss; None for all; and `ranks`.
    """

    loss: Callable[..., Tensor]
    target: ClassTarget
    gain: float
    mines: bool = False


def _quality(logits: Tensor, target: Tensor) -> Tensor:
    """QFL with beta 1 and a floor of .1 instead of the paper's 2 and 0.

    With beta 2 the gradient shrinks with the cube of the distance to the target: after a few hundred steps the scores
    of the background are still .05 to .1, and those of positives are .1 away from their target.  Measured in
    gfldet/MEASURED.md, "Trials of QFL".
    """
    return focal.quality_focal_loss(logits, target, beta=1.0, floor=0.1)


CLASS_LOSSES: dict[str, ClassLoss] = {
    "qfl": ClassLoss(_quality, "alignment", 1.5),
    "vfl": ClassLoss(focal.varifocal_loss, "alignment", 3.0),  # PP-YOLOE's 1 : 2.5, times three
    "bce": ClassLoss(focal.cross_entropy, "alignment", 0.5),  # as in YOLOv8
    "focal": ClassLoss(focal.sigmoid_focal_loss, "one", 3.75),  # ATSS's 1 : 2
    "ohem": ClassLoss(focal.ohem, "one", 0.5, mines=True),  # BCE of fewer examples
}


@dataclass(frozen=True, slots=True)
class Gains:
    """Weights of the three parts: box, cls (None: the default of the class loss) and dfl.  ValueError below 0."""

    box: float = 7.5
    cls: float | None = None
    dfl: float = 1.5

    def __post_init__(self) -> None:
        for name, gain in (("box", self.box), ("cls", self.cls), ("dfl", self.dfl)):
            focal.checked(name, 0.0 if gain is None else gain)


@dataclass(frozen=True, slots=True)
class LossItems:
    """`total` () carries gradient; `items` (3,) are box, cls and dfl, detached, with gains; their sum is `total`."""

    total: Tensor
    items: Tensor


@dataclass(frozen=True, slots=True)
class v8DetectionLoss:  # noqa: N801 - users of this family know the criterion by this name
    """QFL with IoU-quality targets, DFL on the bins, CIoU on the integrated boxes, over task-aligned positives.

    QFL's target for a positive point, at its truth's class, is the normalised alignment, as in TOOD: the IoU of the
    truth's best box, and less for points with a worse box or score.  All other targets are 0.  (The plain IoU of each
    box, as in GFL, was measured and found worse.)  Assigners that do not rank points have no alignment; the target is
    then the plain IoU of the (detached) box.

    The alignment also weighs CIoU and DFL.  All three losses are divided by the sum of the alignment over the batch (at
    least 1), as in TOOD.  A point inside an ignore region carries no classification loss unless it is positive.  A
    point that cannot reach its truth's sides with R bins carries no DFL, because a clipped target teaches a wrong side.

    `cls_loss` names an entry of CLASS_LOSSES, and `cls_target` replaces its default target.  If the target is 1, the
    classification loss is divided by the number of positives, which is the sum of these targets.  `iou_loss` chooses
    the overlap, `assigner` the rule for positives.  With `reg_max` 1 a side is one number, and there is no DFL.
    `class_weights` (C numbers) weigh the scores of each class and the boxes of its truths.

    Where several `ranks` have a part of the batch each, what the losses are divided by is summed over all of them.  The
    losses of the parts, and their gradients, then add up to those of the whole batch.
    """

    nc: int
    reg_max: int
    strides: tuple[int, ...]
    gains: Gains = Gains()
    assigner: Assigner = TaskAlignedAssigner()
    cls_loss: str = "qfl"
    iou_loss: IoUKind = "ciou"
    cls_target: ClassTarget | None = None
    class_weights: tuple[float, ...] | None = None
    ranks: Ranks = ONE

    def __call__(self, maps: Sequence[Tensor], batch: Mapping[str, Tensor]) -> LossItems:
        """The loss of per-level maps (B, 4R + C, H, W) on a batch dict.

        The batch holds `batch_idx` (N,), `cls` (N, 1), `bboxes` (N, 4) xywh normalised to the input's width and height,
        and optionally `ignore_idx` (K,), `ignore_bboxes` (K, 4) in the same form.  `boxes_px` and `ignore_px`, xyxy in
        px of the input, take the place of the normalised ones where they are there: our own batches hold these, and the
        same boxes again in the host's memory as `host_boxes_px`.
        """
        head = split_maps(maps, self.reg_max, self.strides)
        size = (head.levels[0].width * head.levels[0].stride, head.levels[0].height * head.levels[0].stride)
        truths = truths_of(batch, size, head.points.device)
        with torch.no_grad():  # the positives' boxes are made again with a gradient, which the others have no use for
            predictions = Predictions(head.logits.detach(), head.boxes())
        positive = self.assigner(predictions, truths, head.levels, reach=reach_of(self.reg_max))
        sums = torch.stack((positive.alignment.sum(), torch.ones_like(positive.alignment).sum()))
        aligned, count = self.ranks.sum(sums).clamp(min=1)
        share = count if self.target == "one" else aligned
        cls = self._classification(head, positive, truths, _ignored(batch, size, head.points)) / share
        box, dfl = (part / aligned for part in self._regression(head, positive, truths))
        gain = CLASS_LOSSES[self.cls_loss].gain if self.gains.cls is None else self.gains.cls
        parts = torch.stack((self.gains.box * box, gain * cls, self.gains.dfl * dfl))
        return LossItems(parts.sum(), parts.detach())

    @property
    def target(self) -> ClassTarget:
        """The target for the score of a positive point."""
        usual = CLASS_LOSSES[self.cls_loss].target
        return self.cls_target or ("iou" if usual == "alignment" and not self.assigner.ranks else usual)

    def _classification(
        self, head: HeadOutput, positive: Assignment, truths: Truths, ignored: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The classification loss (), summed over all points and classes."""
        class_loss = CLASS_LOSSES[self.cls_loss]
        value = {"iou": positive.iou, "alignment": positive.alignment, "one": torch.ones_like(positive.iou)}
        target = torch.zeros_like(head.logits)
        target[positive.image, positive.point, truths.classes[positive.truth]] = value[self.target]
        counted = _counted(head, positive, ignored) if len(ignored[0]) else None
        more = {"counted": counted, "ranks": self.ranks} if class_loss.mines else {}
        loss = class_loss.loss(head.logits, target, **more)
        if self.class_weights is not None:
            loss = loss * loss.new_tensor(self.class_weights)
        if counted is not None:
            loss = loss * counted
        return loss.sum()

    def _regression(self, head: HeadOutput, positive: Assignment, truths: Truths) -> tuple[Tensor, Tensor]:
        """The overlap loss () and DFL (), summed over the positives, weighted by alignment."""
        found = head.at(positive.image, positive.point)
        truth = truths.boxes[positive.truth]
        weight = positive.alignment
        if self.class_weights is not None:
            weight = weight * weight.new_tensor(self.class_weights)[truths.classes[positive.truth]]
        box = (iou_loss(found.boxes(), truth, self.iou_loss) * weight).sum()
        if self.reg_max == 1:
            return box, torch.zeros_like(box)
        sides = xyxy_to_ltrb(found.points, truth) / found.strides
        dfl = distribution_focal_loss(found.bins, sides.clamp(0, self.reg_max - 1)).mean(-1)
        return box, (dfl * weight * positive.reachable).sum()


@dataclass(frozen=True, slots=True)
class E2EDetectLoss:
    """The criterion of an end-to-end head: the same loss on its two sets of maps, added with equal weight.

    `one_to_many` assigns many points to a truth: this trains the features.  `one_to_one` assigns one point by the same
    metric: this makes NMS unnecessary (Wang et al., YOLOv10, NeurIPS 2024, section 3.1).
    """

    one_to_many: v8DetectionLoss
    one_to_one: v8DetectionLoss

    @classmethod
    def of(cls, one_to_many: v8DetectionLoss) -> E2EDetectLoss:
        """Both branches from the first; the second assigns one point.  ValueError if the assigner does not rank."""
        assigner = one_to_many.assigner
        if not isinstance(assigner, TaskAlignedAssigner):
            raise ValueError(
                "an end-to-end head needs an assigner that ranks points for both branches: TaskAlignedAssigner"
            )
        return cls(one_to_many, replace(one_to_many, assigner=replace(assigner, topk=1)))

    def __call__(
        self, maps: Mapping[str, Sequence[Tensor]] | Sequence[Tensor], batch: Mapping[str, Tensor]
    ) -> LossItems:
        """The loss of the maps under `one2many` and `one2one`.

        In eval mode the head gives a list instead, the maps of the one-to-one branch; the loss is that of this branch.
        """
        if not isinstance(maps, Mapping):
            return self.one_to_one(maps, batch)
        many, one = self.one_to_many(maps["one2many"], batch), self.one_to_one(maps["one2one"], batch)
        return LossItems(many.total + one.total, many.items + one.items)


def reach_of(reg_max: int) -> float:
    """The longest side that `reg_max` bins express, in strides; infinite if a side is one number."""
    return reg_max - 1 if reg_max > 1 else math.inf


def truths_of(batch: Mapping[str, Tensor], size: tuple[int, int], device: torch.device) -> Truths:
    """The batch dict's truths in pixels of an input of `size` (width, height)."""
    boxes = _corners_in_px(batch, "boxes_px", "bboxes", size, device)
    return Truths(
        boxes=boxes,
        classes=batch["cls"].to(device).reshape(-1).long(),
        image=batch["batch_idx"].to(device).reshape(-1).long(),
        host=boxes if boxes.device.type == "cpu" else batch.get("host_boxes_px"),
    )


def _ignored(batch: Mapping[str, Tensor], size: tuple[int, int], points: Tensor) -> tuple[Tensor, Tensor]:
    """Image and point (P,) of every point inside an ignore region of its image."""
    if not len(batch.get("ignore_idx", ())):
        nothing = torch.zeros(0, dtype=torch.int64, device=points.device)
        return nothing, nothing
    regions = _corners_in_px(batch, "ignore_px", "ignore_bboxes", size, points.device)
    sides = xyxy_to_ltrb(points[None], regions[:, None])  # (K, A, 4); regions are few, unlike truths
    region, point = (sides.amin(-1) > 0).nonzero(as_tuple=True)
    return batch["ignore_idx"].to(points.device).long()[region], point


def _counted(head: HeadOutput, positive: Assignment, ignored: tuple[Tensor, Tensor]) -> Tensor:
    """Which points (B, A, 1) carry a classification loss: positive ones, and all outside the ignore regions."""
    counted = torch.ones_like(head.logits[..., 0], dtype=torch.bool)
    counted[ignored] = False
    counted[positive.image, positive.point] = True
    return counted.unsqueeze(-1)


def _corners_in_px(
    batch: Mapping[str, Tensor], px: str, normalised: str, size: tuple[int, int], device: torch.device
) -> Tensor:
    """Boxes (N, 4) xyxy in px: those under the key `px`, or else the xywh under `normalised`, converted."""
    if px in batch:
        return batch[px].to(device).float().reshape(-1, 4)
    scale = torch.tensor([*size, *size], dtype=torch.float32, device=device)
    return xywh_to_xyxy(batch[normalised].to(device).float().reshape(-1, 4)) * scale
