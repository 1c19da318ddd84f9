"""The variants that tools/compare knows by name."""

from __future__ import annotations

from collections.abc import Mapping

from gfldet.experiments import Variant

VARIANTS = (
    Variant("QFL + DFL", {}),
    Variant("BCE + DFL", {"cls_loss": "bce"}),
    Variant("BCE (target 1) + DFL", {"cls_loss": "bce", "cls_target": "one"}),
    Variant("focal + DFL", {"cls_loss": "focal"}),
    Variant("varifocal + DFL", {"cls_loss": "vfl"}),
    Variant("OHEM + DFL", {"cls_loss": "ohem"}),
    Variant("QFL", {"dfl": 0.0}),
    Variant("QFL + DFL + DGQP", {"dgqp": True}),
    Variant("end-to-end", {"end2end": True}),
)

# The default recipe first, then each of its ingredients off, or as others have it.
RECIPE = (
    Variant("default", {}),
    Variant("AdamW", {"optimizer": "adamw"}),
    Variant("half the rate", {"lr0": 0.0015}),
    Variant("momentum of .95", {"momentum": 0.95}),
    Variant("weight decay of .02", {"weight_decay": 0.02}),
    Variant("cosine from the start", {"flat": 0.0}),
    Variant("no warm-up", {"warmup_steps": 0}),
    Variant("no averaged weights", {"ema_decay": 0.0}),
    Variant("no mosaic", {"mosaic": 0.0}),
    Variant("mosaic in half the images", {"mosaic": 0.5}),
    Variant("mosaic to the end", {"close_mosaic": 0}),
    Variant("mixup in 15 %", {"mixup": 0.15}),
    Variant("no change of colours", {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}),
    Variant("no change of size", {"scale": 0.0}),
    Variant("no flip", {"fliplr": 0.0}),
    Variant("BCE for QFL", {"cls_loss": "bce"}),
    Variant("varifocal for QFL", {"cls_loss": "vfl"}),
    Variant("plain IoU as target", {"cls_target": "iou"}),
    Variant("no DFL", {"dfl": 0.0}),
    Variant("GIoU for CIoU", {"iou_loss": "giou"}),
    Variant("13 points a truth", {"tal_topk": 13}),
)

SETS: Mapping[str, tuple[Variant, ...]] = {"losses": VARIANTS, "recipe": RECIPE}
NAMED: Mapping[str, Variant] = {variant.name: variant for variants in SETS.values() for variant in variants}
