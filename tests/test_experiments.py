"""Experiments: variants as text, folders that keep runs apart, and one small run that is kept and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gfldet.errors import ConfigError
from gfldet.experiments import LOW, Budget, Variant, folder_of, parse_variant, run

NAMED = {
    "QFL + DFL": Variant("QFL + DFL", {}),
    "BCE + DFL": Variant("BCE + DFL", {"cls_loss": "bce"}),
}


def test_a_variant_of_one_s_own() -> None:
    assert parse_variant("BCE + DFL", NAMED).settings == {"cls_loss": "bce"}
    assert parse_variant("mine:cls=2,dgqp=true", NAMED).settings == {"cls": "2", "dgqp": "true"}
    for wrong in ("BCE", "mine:cls", ":cls=2", "mine:=2"):
        with pytest.raises(ValueError, match=r"no such variant|is written NAME:key=value"):
            parse_variant(wrong, NAMED)


def test_no_run_passes_for_another() -> None:
    one = Budget("a.yaml", "gfldet-n", 3, 64, 4, Path("out"))
    others = [replace(one, data="b.yaml"), replace(one, model="gfldet-s"), replace(one, epochs=4)]
    others += [replace(one, imgsz=96), replace(one, batch=8)]
    folders = {folder_of(parse_variant("QFL + DFL", NAMED), seed, one) for seed in (0, 1)}
    folders |= {folder_of(parse_variant("QFL + DFL", NAMED), 0, other) for other in others}
    folders |= {folder_of(parse_variant(f"QFL + DFL:cls={gain}", NAMED), 0, one) for gain in (1, 2)}
    assert len(folders) == 9


@pytest.mark.parametrize(
    ("setting", "curve"), [("epochs", False), ("seed", False), ("device", False), ("imgsz", False), ("patience", True)]
)
def test_a_variant_leaves_the_budget_alone(setting: str, curve: bool, tmp_path: Path) -> None:
    budget = Budget("shapes", "gfldet-n", 1, 64, 4, tmp_path / "out", curve)
    with pytest.raises(ConfigError, match=rf"variant 'mine' sets {setting}: that is the same for all runs"):
        run(Variant("mine", {setting: "3"}), 0, budget)
    assert not budget.out.exists()


@pytest.mark.long
def test_a_run_is_kept_and_read_again(dataset: Callable[[], Any], tiny_yaml: Path, tmp_path: Path) -> None:
    budget = Budget(str(dataset().yaml), str(tiny_yaml), 1, 64, 3, tmp_path / "out")
    variant = Variant("no flip", {"fliplr": 0.0})
    result = run(variant, 0, budget)
    assert (result.variant, result.seed) == ("no flip", 0)
    assert result.seconds >= 0
    assert {"map", "map50", "map75", "score_iou", "found"} <= result.metrics.keys()
    folder = folder_of(variant, 0, budget)
    assert (folder / "weights" / "last.pt").is_file()
    saved = json.loads((budget.out / f"{folder.name}-val" / "predictions.json").read_text(encoding="utf-8"))
    above = [one for one in saved if one["score"] > LOW]
    assert result.metrics["above_low"] == (len(above) / len(saved) if saved else 0)
    kept = folder.with_suffix(".json")
    changed = json.loads(kept.read_text(encoding="utf-8")) | {"seconds": 7.5}
    kept.write_text(json.dumps(changed), encoding="utf-8")
    assert run(variant, 0, budget).seconds == 7.5  # read, not trained again
