"""`gfldet tune` with the real Optuna, from the command line: killed and gone on with, and what it found, used."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gfldet import cli
from gfldet.tune.records import load

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("optuna") is None, reason="the package optuna is not installed"),
]


@pytest.fixture
def words(dataset: Callable[..., Any], tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tune of three trials of two epochs on 6 images, as a command line has it."""
    monkeypatch.chdir(tmp_path)
    given = {"model": tiny_yaml, "data": dataset().yaml, "imgsz": 64, "batch": 3, "epochs": 2, "trials": 3}
    given |= {"threads": 1, "workers": 0, "device": "cpu"}
    return ["tune", *(f"{name}={value}" for name, value in given.items())]


def aps(folder: Path) -> list[tuple[int, int, float | None]]:
    return [(run.trial, run.seed, run.ap) for run in load(folder).runs]


def test_a_tune_and_a_training_with_what_it_found(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    folder = Path("runs/tune")
    assert "varied: lr0 0.001 to 0.009, mosaic 0 to 1, scale 0 to 0.75, fliplr 0 or 0.5, flipud 0 or 0.5\n" in told
    assert "gain " in told
    assert told.endswith("Results are in runs/tune\n")
    runs = load(folder).runs
    assert [run.trial for run in runs[:3]] == [0, 1, 2]
    assert len(runs) == 7
    assert all(run.state == "done" and len(run.curve) == 2 for run in runs)
    with (folder / "trials/001-seed0/results.csv").open(newline="") as file:
        curve = [float(row["metrics/mAP50-95"]) for row in csv.DictReader(file)]
    assert list(runs[1].curve) == pytest.approx(curve, rel=1e-5)
    assert runs[1].ap == max(runs[1].curve)
    args = (folder / "trials/001-seed0/args.yaml").read_text()
    assert f"\nmosaic: {runs[1].changes['mosaic']}\n" in args
    assert cli.main(["train", f"cfg={folder / 'best.yaml'}", "epochs=1", "verbose=false", "plots=false"]) == 0
    assert cli.main(["val", f"model={folder / 'best.pt'}", "verbose=false", "plots=false"]) == 0
    metrics = json.loads(Path("runs/val/metrics.json").read_text())
    assert metrics["map"] == pytest.approx(max(run.ap or 0.0 for run in runs), abs=1e-6)


def test_a_tune_that_is_killed_comes_to_the_same(words: list[str]) -> None:
    # A process that kills itself as the second trial's first epoch ends.
    script = """
import os, signal, sys
from gfldet import cli
from gfldet.tune import search
def die(trial, epoch, ap):
    os.kill(os.getpid(), signal.SIGKILL)
search.Trial.hopeless = die
cli.main(sys.argv[1:])
"""
    killed = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, check=False, timeout=110)
    assert killed.returncode == -9
    records = load(Path("runs/tune"))
    assert [run.state for run in records.runs] == ["done", "running"]
    assert cli.main([*words, "verbose=false"]) == 0
    assert not Path("runs/tune2").exists()
    assert load(Path("runs/tune")).find(1, 0).changes == records.runs[1].changes  # type: ignore[union-attr]
    assert cli.main([*words, "verbose=false", "name=whole"]) == 0
    assert aps(Path("runs/tune")) == aps(Path("runs/whole"))
