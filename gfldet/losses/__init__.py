"""Losses: pure functions from logits (`focal`, `distribution`, `iou`), some of them as the modules that people know
(`modules`), and the detectors' criteria (`detection`)."""

from __future__ import annotations

from gfldet.losses.detection import E2EDetectLoss, Gains, v8DetectionLoss
from gfldet.losses.distribution import distribution_focal_loss
from gfldet.losses.focal import (
    balanced_cross_entropy,
    cross_entropy,
    generalized_focal_loss,
    ohem,
    quality_focal_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
    varifocal_loss,
)
from gfldet.losses.iou import iou_loss
from gfldet.losses.modules import FocalLoss, MultiClassFocalLoss
from gfldet.ops.decode import integral

__all__ = [
    "E2EDetectLoss",
    "FocalLoss",
    "Gains",
    "MultiClassFocalLoss",
    "balanced_cross_entropy",
    "cross_entropy",
    "distribution_focal_loss",
    "generalized_focal_loss",
    "integral",
    "iou_loss",
    "ohem",
    "quality_focal_loss",
    "sigmoid_focal_loss",
    "softmax_focal_loss",
    "v8DetectionLoss",
    "varifocal_loss",
]
