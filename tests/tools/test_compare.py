"""tools/compare: its variants, its table, and a whole small comparison that is not trained twice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gfldet.config.load import resolve


def test_help_names_every_variant(capsys: pytest.CaptureFixture[str]) -> None:
    from measure import compare
    from measure.variants import NAMED

    with pytest.raises(SystemExit) as left:
        compare.arguments(["--help"])
    assert left.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in NAMED)


def test_variants_are_settings_that_exist() -> None:
    from measure.variants import SETS

    variants = [variant for chosen in SETS.values() for variant in chosen]
    assert all(len({variant.name for variant in chosen}) == len(chosen) >= 8 for chosen in SETS.values())
    for variant in variants:
        settings = resolve("train", variant.settings)
        defaults = resolve("train", {})
        assert all(getattr(settings, key) != getattr(defaults, key) for key in variant.settings), variant.name


def test_the_table_has_means_and_ranges_best_first() -> None:
    from measure.report import markdown

    from gfldet.experiments import Result

    def result(name: str, seed: int, ap: float) -> Result:
        others = {"map50": 0.8, "map75": 0.5, "score_iou": 0.6, "score_iou_matched": 0.4}
        return Result(name, seed, {"map": ap, **others}, 10.0 + seed)

    runs = [result("a", 0, 0.3), result("b", 0, 0.5), result("a", 1, 0.4), result("b", 1, 0.5)]
    rows = markdown(runs, ["data: x"]).splitlines()
    assert rows[0].startswith("data: x")
    means = " ± 0.000 | ".join(["0.500", "0.800", "0.500", "0.600", "0.400"])
    assert rows[4] == f"| b | {means} ± 0.000 | 10 | 0, 1 |"
    assert rows[5].startswith("| a | 0.350 ± 0.050 |")


def test_several_data_sets_stand_side_by_side() -> None:
    from measure.report import beside

    from gfldet.experiments import Result

    def result(name: str, seed: int, ap: float) -> Result:
        return Result(name, seed, {"map": ap, "map75": 0.5, "score_iou": 0.6}, 10.0)

    one = [result("default", 0, 0.3), result("no mosaic", 0, 0.5), result("default", 1, 0.4)]
    two = [result("default", 0, 0.7), result("no mosaic", 0, 0.6), result("default", 1, 0.8)]
    rows = beside({"cells": one, "cards": two}, ["data: x"]).splitlines()
    assert rows[3].startswith("| variant | cells: AP | difference | AP75 | score ~ IoU | cards: AP | difference |")
    rest = "0.500 ± 0.000 | 0.600 ± 0.000"
    assert rows[5] == f"| default | 0.350 ± 0.050 |  | {rest} | 0.750 ± 0.050 |  | {rest} |"
    mosaic = f"| no mosaic | 0.500 ± 0.000 | +0.200 ± 0.000 | {rest} | 0.600 ± 0.000 | -0.100 ± 0.000 | {rest} |"
    assert rows[6] == mosaic  # the difference is that of seed 0, which both have


@pytest.mark.long
def test_a_comparison_of_two_data_sets(
    dataset: Any, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from measure import compare

    out = tmp_path / "out"
    data = dataset().yaml
    again = data.with_name("again.yaml")
    again.write_bytes(data.read_bytes())
    words = ["default", "no flip", "--data", str(data), str(again), "--model", str(tiny_yaml)]
    words += ["--epochs", "1", "--seeds", "0", "--imgsz", "64", "--batch", "3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["tools/compare", *words])
    assert compare.main() == 0
    table = capsys.readouterr().out
    assert f"| variant | {data.stem}: AP | difference |" in table
    assert "| no flip |" in table
    assert (out / "chart.png").stat().st_size > 1000
    assert len(list(out.glob("*/weights/last.pt"))) == 4
    with pytest.raises(SystemExit, match="2"):
        compare.arguments(["--data", "a/x.yaml", "b/x.yaml"])


def test_variants_are_named_or_of_one_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    from measure import compare
    from measure.variants import RECIPE, VARIANTS

    named, own = compare.arguments(["BCE + DFL", "mine:cls=2,dgqp=true"]).variants
    assert named.settings == {"cls_loss": "bce"}
    assert own.settings == {"cls": "2", "dgqp": "true"}
    assert compare.arguments([]).variants == list(VARIANTS)
    assert compare.arguments(["--set", "recipe"]).variants == list(RECIPE)
    for wrong in ("BCE", "mine:cls", ":cls=2", "mine:=2"):
        with pytest.raises(SystemExit, match="2"):
            compare.arguments([wrong])
        assert wrong in capsys.readouterr().err


def test_a_length_for_all_data_sets_or_one_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    from measure import compare

    two = ["--data", "cells.yaml", "cards.yaml", "--epochs"]
    assert compare.arguments([*two, "24", "16"]).epochs == [24, 16]
    assert compare.arguments([*two, "24"]).epochs == [24, 24]
    with pytest.raises(SystemExit, match="2"):
        compare.arguments([*two, "24", "16", "8"])
    assert "3 lengths for 2 data sets" in capsys.readouterr().err


@pytest.mark.long
def test_a_whole_comparison(
    dataset: Any, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from measure import compare

    out = tmp_path / "out"
    words = ["QFL + DFL", "mine:end2end=true", "--data", str(dataset().yaml), "--model", str(tiny_yaml)]
    words += ["--epochs", "1", "--seeds", "0", "1", "--imgsz", "64", "--batch", "3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["tools/compare", *words])
    assert compare.main() == 0
    table = capsys.readouterr().out
    assert "| QFL + DFL |" in table
    assert "| mine |" in table
    assert (out / "table.md").read_text(encoding="utf-8") == table.removesuffix("\n")
    assert (out / "chart.png").stat().st_size > 1000
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/weights/last.pt")}
    assert len(before) == 4
    assert compare.main() == 0  # what is there is not trained again
    assert {file: file.stat().st_mtime_ns for file in out.glob("*/weights/last.pt")} == before


def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from measure import compare

    words = ["QFL", "--data", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["tools/compare", *words])
    assert compare.main() == 2
    assert "none.yaml" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit, match="2"):
        compare.arguments(["GFL"])
