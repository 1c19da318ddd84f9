"""Loggers: what all of them log, what becomes of one that fails, and of one whose package is missing."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gfldet import cli
from gfldet.config.load import resolve
from gfldet.errors import ConfigError
from gfldet.train import prepare
from gfldet.train.events import EndReport, EpochReport, Observers, RunFacts
from gfldet.train.loggers import Logger, files_of, make_loggers
from gfldet.train.observers import COLUMNS, BatchPictures, Quiet, ResultsCsv


class Written(Logger):
    """A tool that writes down what it is given; it fails at `fails`."""

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.fails = fails
        self.calls: list[tuple[Any, ...]] = []

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.fails:
            raise OSError("the server is gone")

    def open(self, facts: RunFacts) -> str:
        self._note("open", facts.epoch)
        return "here"

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._note("numbers", epoch, dict(numbers))

    def log_files(self, pictures: Sequence[Path], page: Path | None, epoch: int) -> None:
        self._note("files", epoch, [path.name for path in pictures], page)

    def close(self, report: EndReport) -> None:
        self._note("close", report.reason)


def facts(folder: Path, done: int = 0, verbose: bool = False) -> RunFacts:
    plan: Any = SimpleNamespace(epochs=9, steps_per_epoch=2)
    return RunFacts(folder, plan, {"verbose": verbose, "lr0": 0.5}, ("cat",), done, 2 * done)


METRICS: Any = SimpleNamespace(precision=0.75, recall=0.5, map50=math.nan, map75=0.125, map=0.25)


def report(epoch: int, metrics: Any = METRICS) -> EpochReport:
    return EpochReport(epoch, 62.5, {"box": 1.5, "cls": 0.25, "dfl": math.nan}, 0.0015, metrics, best=True)


# ------------------------------------------------------------------------------------------------- what all of them do


def test_numbers_are_those_of_results_csv_as_far_as_they_are_numbers(tmp_path: Path) -> None:
    logger, results = Written(), ResultsCsv()
    for observer in (logger, results):
        observer.begin(facts(tmp_path, done=3))
        observer.epoch(report(3))
        observer.epoch(report(4, None))
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    logged = [call[1:] for call in logger.calls if call[0] == "numbers"]
    assert [epoch for epoch, _ in logged] == [4, 5]
    for row, (_, numbers) in zip(rows, logged, strict=True):
        assert numbers == {name: float(row[name]) for name in COLUMNS[1:] if row[name]}
    assert list(logged[1][1]) == ["time", "train/box_loss", "train/cls_loss", "lr"]


def test_the_end_logs_the_best_weights_and_the_files(tmp_path: Path) -> None:
    logger = Written()
    logger.begin(facts(tmp_path))
    logger.epoch(report(0))
    for name in ("b.png", "a.jpg", "metrics.json", "report.html"):
        (tmp_path / name).touch()
    logger.end(EndReport("patience", metrics=METRICS))
    assert logger.calls[2:] == [
        ("numbers", 1, {"best/precision": 0.75, "best/recall": 0.5, "best/mAP75": 0.125, "best/mAP50-95": 0.25}),
        ("files", 1, ["a.jpg", "b.png"], tmp_path / "report.html"),
        ("close", "patience"),
    ]


def test_a_run_that_breaks_off_is_closed_without_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    logger = Written()
    logger.begin(facts(tmp_path))
    logger.end(EndReport("interrupted", KeyboardInterrupt()))
    assert logger.calls == [("open", 0), ("close", "interrupted")]


def test_what_never_began_has_no_end() -> None:
    logger = Written()
    logger.end(EndReport("failed", OSError()))
    assert logger.calls == []


@pytest.mark.parametrize(("fails", "calls"), [("open", 2), ("numbers", 3), ("files", 6), ("close", 6)])
def test_one_that_fails_is_told_of_once_closed_and_left_out(
    fails: str, calls: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, other = Written(fails), Written()
    observers = Observers((broken, other))
    observers.begin(facts(tmp_path))
    observers.epoch(report(0))
    observers.epoch(report(1))
    observers.end(EndReport("finished", metrics=METRICS))
    assert len(other.calls) == 6
    assert len(broken.calls) == calls
    how = "finished" if calls == 6 else "failed"
    assert [call for call in broken.calls if call[0] == "close"] == [broken.calls[-1]] == [("close", how)]
    told = "warning: observer Written: left out from here on, as it raised OSError: the server is gone\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("verbose", "told"), [(True, "log: here\n"), (False, "")])
def test_where_it_logs_is_told(verbose: bool, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Written().begin(facts(tmp_path, verbose=verbose))
    assert capsys.readouterr().out == told


def test_files_of_a_folder(tmp_path: Path) -> None:
    assert files_of(tmp_path) == ([], None)
    (tmp_path / "report.html").touch()
    assert files_of(tmp_path) == ([], tmp_path / "report.html")


# ----------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("csv", ("csv",)),
        ("none", ("csv",)),
        (False, ("csv",)),
        ("wandb, MLflow,wandb", ("wandb", "mlflow")),
        (["csv", "tensorboard"], ("csv", "tensorboard")),
    ],
)
def test_words_of_the_setting(given: Any, read: tuple[str, ...]) -> None:
    assert resolve("train", {"log": given}).log == read  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", ["comet", "", True, ["csv", 3]])
def test_other_words_are_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"log.*csv, tensorboard, mlflow or wandb"):
        resolve("train", {"log": given})


def test_csv_alone_needs_nothing() -> None:
    assert make_loggers(()) == make_loggers(("csv",)) == []
    kinds = [type(observer) for observer in prepare.own_observers(resolve("train", {"verbose": False}))]  # type: ignore
    assert kinds == [ResultsCsv, Quiet, BatchPictures]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("tensorboard", "tensorboard"),
        ("csv,mlflow", "mlflow"),
        ("wandb,tensorboard,mlflow", "wandb,tensorboard,mlflow"),
    ],
)
def test_missing_packages_end_the_command_before_it_reads_anything(
    given: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gfldet.store.runs.claim_folder", lambda *_: pytest.fail("a folder was made"))
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    for package in ("tensorboard", "mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["train", "model=gfldet-n", "data=gone.yaml", f"log={given}", "device=cpu", "threads=1"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"gfldet: log={words}: not installed, or broken (")
    assert told.endswith(f"); pip install 'gfldet[{words}]'\n")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
