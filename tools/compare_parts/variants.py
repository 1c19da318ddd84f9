"""The variants: a name, and the settings in which it differs from the others."""

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


def parse(text: str) -> Variant:
    """`NAME` of VARIANTS, or one of one's own: `NAME:key=value,key=value`; ValueError for anything else."""
    name, colon, rest = text.partition(":")
    if not colon:
        for variant in VARIANTS:
            if variant.name == name:
                return variant
        raise ValueError(f"{name!r}: no such variant; there are {', '.join(v.name for v in VARIANTS)}")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not name or any(not key or not equals for key, equals, _ in pairs):
        raise ValueError(f"{text!r}: a variant of your own is written NAME:key=value,key=value")
    return Variant(name, {key: value for key, _, value in pairs})
