"""The variants: a name, and the settings in which it differs from the default ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """`settings` as `gfldet train` takes them."""

    name: str
    settings: Mapping[str, Any]


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


def parse(text: str) -> Variant:
    """`NAME` of one of SETS, or one of one's own: `NAME:key=value,key=value`; ValueError for anything else."""
    name, colon, rest = text.partition(":")
    if not colon:
        named = {variant.name: variant for variants in SETS.values() for variant in variants}
        if name in named:
            return named[name]
        raise ValueError(f"{name!r}: no such variant; there are {', '.join(named)}")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not name or any(not key or not equals for key, equals, _ in pairs):
        raise ValueError(f"{text!r}: a variant of your own is written NAME:key=value,key=value")
    return Variant(name, {key: value for key, _, value in pairs})
