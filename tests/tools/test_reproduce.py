"""tools/reproduce: a whole small table with its chart, one cell when quick, and its reading of results.csv."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.long
def test_a_whole_table(
    dataset: Any, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from measure import reproduce
    from measure.report import curve

    out = tmp_path / "out"
    words = [str(dataset().yaml), "--model", str(tiny_yaml), "--epochs", "1", "2", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", ["tools/reproduce", *words, "--imgsz", "64", "--batch", "3", "--out", str(out)])
    assert reproduce.main() == 0
    table = capsys.readouterr().out
    assert table.count("\n| data | ") == 3  # the head, and a row for each length
    assert (out / "table.md").read_text(encoding="utf-8") == table.removesuffix("\n")
    assert (out / "chart.png").stat().st_size > 1000
    curves = sorted((out / "data").glob("*/results.csv"))
    assert sorted(len(curve(file)) for file in curves) == [1, 1, 2, 2]


def test_quick_is_one_cell() -> None:
    from measure.reproduce import arguments

    given = arguments(["a.yaml", "b.yaml", "--quick"])
    assert (given.data, given.epochs, given.seeds) == (["a.yaml"], [30], [0])


def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from measure import reproduce

    words = [str(tmp_path / "none.yaml"), "--quick", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["tools/reproduce", *words])
    assert reproduce.main() == 2
    assert "none.yaml" in capsys.readouterr().err.splitlines()[-1]
