"""Experiments: variants of the settings, each trained with equal budgets and seeds, measured, and kept in a file."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gfldet.errors import ConfigError, OutputError
from gfldet.model import Model

LOW = 0.05  # a score that a threshold of use would leave out


@dataclass(frozen=True)
class Variant:
    """A name, and the settings in which it differs from the default ones, as `gfldet train` takes them."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """What all runs that are compared have in common.  With `curve` the AP is measured after each epoch too."""

    data: str
    model: str
    epochs: int
    imgsz: int
    batch: int
    out: Path
    curve: bool = False


@dataclass(frozen=True)
class Result:
    """One run: its variant and seed, its metrics by the names of metrics.json, and the seconds of its training.

    `metrics["above_low"]` is the share of the detections that score above LOW.
    """

    variant: str
    seed: int
    metrics: dict[str, float]
    seconds: float


def run(variant: Variant, seed: int, budget: Budget) -> Result:
    """Train and validate, or read what an earlier call with this budget found; its files are in `folder_of`.

    ConfigError for a variant that sets what the budget has in common for all; and whatever `Model.train` raises.
    """
    folder = folder_of(variant, seed, budget)
    file = folder.with_suffix(".json")
    if file.is_file():
        return Result(**json.loads(file.read_text(encoding="utf-8")))
    out = str(budget.out)
    quiet: dict[str, Any] = {"project": out, "plots": False, "verbose": False, "exist_ok": True, "device": "cpu"}
    data: dict[str, Any] = {"data": budget.data, "imgsz": budget.imgsz, "batch": budget.batch}
    lasting: dict[str, Any] = {"patience": 0} if budget.curve else {}  # without validation there is none to lose
    length: dict[str, Any] = {"epochs": budget.epochs, "seed": seed, "val": budget.curve, "name": folder.name}
    common = {**data, **quiet, **lasting, **length}
    if taken := sorted(variant.settings.keys() & common.keys()):
        raise ConfigError(
            f"variant {variant.name!r} sets {', '.join(taken)}: that is the same for all runs that are compared; "
            "leave it out, and give the budget another value"
        )
    began = time.perf_counter()
    Model(budget.model).train(**common, **variant.settings)
    seconds = time.perf_counter() - began
    found = Model(folder / "weights" / "last.pt").val(**data, **quiet, name=f"{folder.name}-val")
    plain = {key: math.nan if value is None else value for key, value in found.to_dict().items()}
    metrics = {key: value for key, value in plain.items() if isinstance(value, float)}
    predictions = json.loads((budget.out / f"{folder.name}-val" / "predictions.json").read_text(encoding="utf-8"))
    metrics["above_low"] = sum(one["score"] > LOW for one in predictions) / max(len(predictions), 1)
    result = Result(variant.name, seed, metrics, round(seconds, 1))
    try:
        file.write_text(json.dumps(asdict(result), indent=2), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{file}: cannot be written ({error.strerror or error}); free space or choose another out"
        ) from error
    return result


def folder_of(variant: Variant, seed: int, budget: Budget) -> Path:
    """The run folder of a variant and a seed, named after all that the run depends on: none passes for another.

    Data and model count by the stems of their files: where two files share one, give each an `out` of its own.
    """
    settings = "-".join(f"{key}={value}" for key, value in variant.settings.items())
    common = f"{Path(budget.data).stem}-{Path(budget.model).stem}-{budget.imgsz}-{budget.batch}-{budget.epochs}"
    words = f"{variant.name}-{settings}-{common}-{seed}".lower()
    return budget.out / "".join(c if c.isalnum() else "-" for c in words)


def parse_variant(text: str, named: Mapping[str, Variant]) -> Variant:
    """The text `NAME` is one of `named`, `NAME:key=value,key=value` one of your own; ValueError for anything else."""
    name, colon, rest = text.partition(":")
    if not colon:
        if name in named:
            return named[name]
        raise ValueError(f"{name!r}: no such variant; there are {', '.join(named)}")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not name or any(not key or not equals for key, equals, _ in pairs):
        raise ValueError(f"{text!r}: a variant of your own is written NAME:key=value,key=value")
    return Variant(name, {key: value for key, _, value in pairs})
