"""One run: a variant trained with one seed within a budget, validated with its last weights, kept in a file."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compare_parts.report import Result
from compare_parts.variants import Variant
from gfldet import Model

LOW = 0.05  # a score that a threshold of use would leave out


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


def run(variant: Variant, seed: int, budget: Budget) -> Result:
    """Train and validate, or read what an earlier call with this budget found; its files are in `folder_of`."""
    folder = folder_of(variant, seed, budget)
    file = folder.with_suffix(".json")
    if file.is_file():
        return Result(**json.loads(file.read_text(encoding="utf-8")))
    out = str(budget.out)
    quiet: dict[str, Any] = {"project": out, "plots": False, "verbose": False, "exist_ok": True, "device": "cpu"}
    data: dict[str, Any] = {"data": budget.data, "imgsz": budget.imgsz, "batch": budget.batch}
    lasting: dict[str, Any] = {"patience": 0} if budget.curve else {}  # without validation there is none to lose
    began = time.perf_counter()
    Model(budget.model).train(
        **data,
        **quiet,
        **lasting,
        **variant.settings,
        epochs=budget.epochs,
        seed=seed,
        val=budget.curve,
        name=folder.name,
    )
    seconds = time.perf_counter() - began
    found = Model(folder / "weights" / "last.pt").val(**data, **quiet, name=f"{folder.name}-val")
    plain = {key: math.nan if value is None else value for key, value in found.to_dict().items()}
    metrics = {key: value for key, value in plain.items() if isinstance(value, float)}
    predictions = json.loads((budget.out / f"{folder.name}-val" / "predictions.json").read_text(encoding="utf-8"))
    metrics["above_low"] = sum(one["score"] > LOW for one in predictions) / max(len(predictions), 1)
    result = Result(variant.name, seed, metrics, round(seconds, 1))
    file.write_text(json.dumps(asdict(result), indent=2), encoding="utf-8")
    return result


def folder_of(variant: Variant, seed: int, budget: Budget) -> Path:
    """The run folder of a variant and a seed, named after all that the run depends on: none passes for another."""
    settings = "-".join(f"{key}={value}" for key, value in variant.settings.items())
    common = f"{Path(budget.data).stem}-{Path(budget.model).stem}-{budget.imgsz}-{budget.batch}-{budget.epochs}"
    words = f"{variant.name}-{settings}-{common}-{seed}".lower()
    return budget.out / "".join(c if c.isalnum() else "-" for c in words)
