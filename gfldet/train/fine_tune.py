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

# Adam's steps are as long as a gradient is sure; Muon's are long in every direction, and forget.
WHOLE: Mapping[str, Any] = {"optimizer": "adamw", "lr0": 5e-4, "ema_part": 3.0}
RATES = {"adamw": 5e-4, "muon": 5e-4, "sgd": 2e-3}


def fine_tuning(settings: TrainSettings, extent: Extent | None, tell: Tell) -> TrainSettings:
    """The settings of a run that starts from weights, of which `extent` was taken over; what is derived is told."""
    if settings.recipe == "scratch" or extent in (None, "parts"):
        return settings
    derived = {name: value for name, value in WHOLE.items() if name not in settings.origins}
    if "lr0" in derived:
        derived["lr0"] = RATES[derived.get("optimizer", settings.optimizer)]
    if derived:
        shown = " ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in derived.items()
        )
        tell(f"fine-tuning: {shown}, since the run starts from weights; recipe=scratch has the defaults without")
    return replace(settings, **derived, origins={**settings.origins, **dict.fromkeys(derived, "weights")})
