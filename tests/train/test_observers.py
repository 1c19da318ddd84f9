"""What a run tells: the table, results.csv and the pictures of its batches."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from gfldet.data.sample import Sample
from gfldet.data.train_set import collate
from gfldet.errors import OutputError
from gfldet.train.events import EndReport, EpochReport, RunFacts, StepReport
from gfldet.train.observers import COLUMNS, BatchPictures, ResultsCsv, Terminal, _tiles


def report(epoch: int, ap: float | None = 0.25, best: bool = True, box: float = 1.5) -> Any:
    metrics = None if ap is None else SimpleNamespace(map=ap, map50=0.5, map75=0.125, precision=0.75, recall=1 / 3)
    return EpochReport(epoch, 62.5 + epoch, {"box": box, "cls": 0.25, "dfl": 100}, 0.0015, metrics, best)  # type: ignore


def facts(folder: Path = Path(), epochs: int = 3, steps: int = 2, done: int = 0, close: int = 5) -> RunFacts:
    plan: Any = SimpleNamespace(epochs=epochs, steps_per_epoch=steps, close_epoch=close)
    return RunFacts(folder, plan, {}, ("cat",), done, done * steps)


def step(epoch: int, number: int, batch: Any = None) -> StepReport:
    return StepReport(epoch, number, 0, torch.tensor([1.0, 2.0, 3.0]), batch, 0.001)


def begun(observer: Any, told: RunFacts) -> Any:
    observer.begin(told)
    return observer


# ----------------------------------------------------------------------------------------------------- the terminal


def test_table_begins_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = begun(Terminal(), facts(epochs=100, steps=7))
    assert capsys.readouterr().out == ""
    terminal.epoch(replace(report(0), left=3605.9))
    terminal.epoch(report(9, best=False))
    terminal.epoch(report(99, ap=float("nan")))
    got = capsys.readouterr()
    assert got.out.splitlines() == [
        "    epoch      box      cls      dfl  AP50-95     AP50     AP75        lr     time     left",
        "   1/100     1.500    0.250  100.000   0.2500   0.5000   0.1250  0.001500     1:02  1:00:05 *",
        "  10/100     1.500    0.250  100.000   0.2500   0.5000   0.1250  0.001500     1:11        -",
        " 100/100     1.500    0.250  100.000        -   0.5000   0.1250  0.001500     2:41        - *",
    ]
    assert got.err == ""


def test_table_without_validation(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = begun(Terminal(), facts(epochs=3, steps=7))
    terminal.epoch(report(0, ap=None))
    head, line = capsys.readouterr().out.splitlines()
    assert line == "   1/3       1.500    0.250  100.000        -        -        -  0.001500     1:02        -"
    assert len(line) == len(head)


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_shows_the_losses_on_a_terminal_alone() -> None:
    for stream, shown in ((Tty(), True), (io.StringIO(), False)):
        terminal = begun(Terminal(stream), facts())
        for number in range(2):
            terminal.step(step(0, number))
        terminal.warn("careful")
        terminal.epoch(report(0))
        text = stream.getvalue()
        assert ("epoch 1/3" in text and "box=1.000" in text and "2/2" in text) == shown
        assert "warning: careful\n" in text


def test_bar_is_gone_when_a_run_ends_in_its_midst() -> None:
    stream = Tty()
    terminal = begun(Terminal(stream), facts())
    terminal.step(step(0, 0))
    terminal.end(EndReport("failed", RuntimeError("no")))
    assert stream.getvalue().rstrip(" ").endswith("\r")  # wiped: what is printed next begins on a clean line


# -------------------------------------------------------------------------------------------------------- results.csv


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_results_hold_a_row_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    results = begun(ResultsCsv(), facts(tmp_path))
    results.epoch(report(0))
    assert len(rows(path)) == 1
    results.epoch(report(1, ap=None))
    first, second = rows(path)
    assert list(first) == list(COLUMNS)
    assert first == {
        "epoch": "1",
        "time": "62.5",
        "train/box_loss": "1.5",
        "train/cls_loss": "0.25",
        "train/dfl_loss": "100",
        "metrics/precision": "0.75",
        "metrics/recall": "0.333333",
        "metrics/mAP50": "0.5",
        "metrics/mAP75": "0.125",
        "metrics/mAP50-95": "0.25",
        "lr": "0.0015",
    }
    assert second["metrics/mAP50-95"] == ""
    assert list(tmp_path.iterdir()) == [path]


def test_results_of_a_resumed_run_keep_what_was_done(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    results = begun(ResultsCsv(), facts(tmp_path))
    for epoch in range(3):
        results.epoch(report(epoch))
    again = begun(ResultsCsv(), facts(tmp_path, done=2))  # the third epoch was told, but its checkpoint was not written
    again.epoch(report(2, box=9.0))
    assert [(row["epoch"], row["train/box_loss"]) for row in rows(path)] == [("1", "1.5"), ("2", "1.5"), ("3", "9")]


@pytest.mark.parametrize("text", ["", "epoch,other\n1,2\n", "\n\n", ",".join(COLUMNS) + "\nx\n"])
def test_results_that_are_none_are_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text)
    begun(ResultsCsv(), facts(tmp_path, done=5)).epoch(report(5))
    assert [row["epoch"] for row in rows(path)] == ["6"]


def test_new_results_replace_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    begun(ResultsCsv(), facts(tmp_path)).epoch(report(4))
    begun(ResultsCsv(), facts(tmp_path)).epoch(report(0))
    assert [row["epoch"] for row in rows(path)] == ["1"]


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"results\.csv: cannot be written \(No such file or directory\)"):
        begun(ResultsCsv(), facts(tmp_path / "gone")).epoch(report(0))


# ------------------------------------------------------------------------------------------------------- the pictures


def test_pictures_of_the_first_batches(tmp_path: Path) -> None:
    box = np.array([[16, 16, 48, 48]], np.float32)
    image = np.zeros((64, 64, 3), np.uint8)
    batch = collate([Sample(image, box, np.array([0]), box[:0])] * 2, ["a.png", "b.png"])
    pictures = begun(BatchPictures(), facts(tmp_path))
    for epoch in (0, 1, 5):
        for number in range(5):
            pictures.step(step(epoch, number, batch))
    pictures.epoch(report(0))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"train_epoch{e}_batch{b}.jpg" for e in (1, 6) for b in (1, 2, 3)]
    picture = cv2.imread(str(tmp_path / names[0]))
    assert picture.shape[1] > picture.shape[0]  # two images side by side
    assert picture.max() > 100  # a box on black


def test_tiles_hold_the_boxes_of_a_batch_in_px() -> None:
    boxes = np.array([[16, 16, 48, 40], [3, 5, 9, 11]], np.float32)
    image = np.zeros((64, 96, 3), np.uint8)
    samples = [Sample(image, boxes[:n], np.zeros(n, np.int64), boxes[:0]) for n in (1, 0, 2)]
    tiles = _tiles(collate(samples, ["a", "b", "c"]))
    assert [tile.boxes.tolist() for tile in tiles] == [boxes[:n].tolist() for n in (1, 0, 2)]
