"""Defaults of a run that starts from weights, other than those of a run from nothing: it is to keep what it was given.

What the user sets, and what a run or a model YAML sets, stays.  How the numbers were found is in RECIPE.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gfldet.config.schema import TrainSettings
from gfldet.messages import Tell
from gfldet.store.transfer import Extent
from gfldet.train.schedule import DEFAULT_LR

RATES: Mapping[str, float] = {"muon": 8e-4, "adamw": 8e-4, "sgd": 3e-3}  # for IMAGES training images
IMAGES, FEWEST = 400, 100  # the rate goes with their number, from FEWEST on
HEAD_FROM_NOTHING = 4  # times the rate where the whole head is fresh: it has everything to learn
DECAY = 0.02  # a faster decay towards zero takes away what the weights know
EMA_PART = 3.0  # the average goes back over a third of the steps: it smooths what so few images make of each epoch


def fine_tuning(
    settings: TrainSettings, extent: Extent | None, images: int, half_side: float | None, tell: Tell
) -> TrainSettings:
    """The settings of a run that starts from weights, of which `extent` was taken over; what is derived is told.

    `images` is the number of training images, `half_side` the median half side of their boxes in pixels of the training
    frame, None without boxes.
    """
    if settings.recipe == "scratch" or extent in (None, "parts"):
        return settings
    defaults: dict[str, Any] = {
        "lr0": rate(settings.optimizer, images, HEAD_FROM_NOTHING if extent == "body" else 1),
        "weight_decay": DECAY,
        "ema_part": EMA_PART,
        "mosaic": round(whole_share(half_side, settings.height_width), 2),
    }
    derived = {name: value for name, value in defaults.items() if name not in settings.origins}
    if derived:
        shown = " ".join(f"{name}={value:g}" for name, value in derived.items())
        tell(f"fine-tuning: {shown}, since the run starts from weights; recipe=scratch leaves that out")
    return replace(settings, **derived, origins={**settings.origins, **dict.fromkeys(derived, "weights")})


def rate(optimizer: str, images: int, times: float = 1) -> float:
    """The full rate for so many training images: in proportion to their number, up to that of a run from nothing.

    A few images soon have nothing more to teach, and at a high rate the weights forget faster than they learn; many
    images bear a rate at which more is learnt.
    """
    share = max(images, FEWEST) / IMAGES
    return min(DEFAULT_LR[optimizer], float(f"{RATES[optimizer] * share * times:.2g}"))


def whole_share(half_side: float | None, frame: tuple[int, int]) -> float:
    """The share of a mosaic's objects, of this half side in pixels, that no seam cuts and no border.

    Along a side of S pixels an object of a pixels is cut by the border with a chance of about a / S and by the seam
    with another: 1 - 2 a / S of them are whole, and so along the other side.  A mosaic shows many small objects, which
    is good, and cuts large ones, which starts to unlearn what they look like.
    """
    if half_side is None:
        return 1.0
    share = 1.0
    for side in frame:
        share *= max(0.0, 1 - 4 * half_side / side)
    return share
