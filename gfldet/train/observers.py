"""Who watches a training run: the terminal, results.csv, and the pictures of what the model was shown."""

from __future__ import annotations

import csv
import io
import math
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from torch import Tensor
from tqdm import tqdm

from gfldet.data.train_set import TrainBatch
from gfldet.messages import warn
from gfldet.store import runs
from gfldet.train.trainer import ITEMS, EpochReport
from gfldet.viz.pictures import Tile, batch_picture, save_picture

COLUMNS = (
    "epoch",
    "time",
    *(f"train/{item}_loss" for item in ITEMS),
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP50",
    "metrics/mAP75",
    "metrics/mAP50-95",
    "lr",
)
PICTURES = 3  # training batches drawn at the start, and again when mosaic closes


class Terminal:
    """A progress bar with the running losses, and a line for each epoch; without a terminal the lines alone."""

    def __init__(self, epochs: int, steps: int, stream: TextIO | None = None) -> None:
        self._epochs, self._steps = epochs, steps
        self._stream = stream or sys.stderr
        self._bar: tqdm[Any] | None = None
        self._head: str | None = "{:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}".format(
            "epoch", *ITEMS, "AP50-95", "AP50", "AP75", "lr", "time"
        )

    def batch(self, epoch: int, number: int, batch: TrainBatch, losses: Tensor) -> None:
        if self._bar is None:
            interactive = self._stream.isatty()
            self._bar = tqdm(total=self._steps, leave=False, disable=not interactive, file=self._stream, unit="step")
            self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}")
        self._bar.update(number + 1 - self._bar.n)
        if not self._bar.disable:
            self._bar.set_postfix({k: f"{v:.3f}" for k, v in zip(ITEMS, losses.tolist(), strict=True)})

    def epoch(self, report: EpochReport) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._head is not None:
            print(self._head)
            self._head = None
        losses = " ".join(f"{report.losses[item]:8.3f}" for item in ITEMS)
        m = report.metrics
        values = (m.map, m.map50, m.map75) if m else (math.nan,) * 3
        metrics = " ".join(f"{'-':>8}" if math.isnan(value) else f"{value:8.4f}" for value in values)
        star = " *" if report.best and m else ""
        minutes, seconds = divmod(int(report.seconds), 60)
        time = f"{minutes:5d}:{seconds:02d}"
        print(f"{report.epoch + 1:>4}/{self._epochs:<4} {losses} {metrics} {report.rate:9.6f} {time}{star}", flush=True)

    def warn(self, message: str) -> None:
        tqdm.write(f"warning: {message}", file=self._stream)


class ResultsCsv:
    """results.csv, a row an epoch; `done` epochs of an earlier part of the run are kept, later rows dropped."""

    def __init__(self, path: Path, done: int = 0) -> None:
        self._path = path
        self._rows = _rows(path, done) if done else []

    def batch(self, epoch: int, number: int, batch: TrainBatch, losses: Tensor) -> None:
        pass

    def epoch(self, report: EpochReport) -> None:
        m = report.metrics
        values = (m.precision, m.recall, m.map50, m.map75, m.map) if m else (math.nan,) * 5
        numbers = (*(report.losses[item] for item in ITEMS), *values)
        cells = [str(report.epoch + 1), f"{report.seconds:.1f}", *(_cell(n) for n in numbers), f"{report.rate:.8g}"]
        self._rows.append(dict(zip(COLUMNS, cells, strict=True)))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self._rows)
        runs.write_aside(self._path, lambda file: file.write(text.getvalue().encode()))

    def warn(self, message: str) -> None:
        pass


def _rows(path: Path, done: int) -> list[dict[str, str]]:
    """The rows of the first `done` epochs, as far as they are there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if set(COLUMNS) == row.keys()]
    return [row for row in rows if str(row["epoch"]).isdecimal() and int(row["epoch"]) <= done]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


class BatchPictures:
    """Pictures of the first training batches, and of the first ones without mosaic: what the model is really shown."""

    def __init__(self, folder: Path, names: tuple[str, ...], epochs: tuple[int, ...]) -> None:
        self._folder, self._names, self._epochs = folder, names, epochs

    def batch(self, epoch: int, number: int, batch: TrainBatch, losses: Tensor) -> None:
        if epoch in self._epochs and number < PICTURES:
            picture = batch_picture(_tiles(batch), self._names)
            save_picture(self._folder / f"train_epoch{epoch + 1}_batch{number + 1}.jpg", picture)

    def epoch(self, report: EpochReport) -> None:
        pass

    def warn(self, message: str) -> None:
        pass


def _tiles(batch: TrainBatch) -> list[Tile]:
    images = batch.images.numpy()
    size = np.array([images.shape[2], images.shape[1]] * 2, dtype=np.float32)
    boxes, owner, classes = batch.bboxes.numpy() * size, batch.batch_idx.numpy(), batch.cls.numpy()[:, 0]
    corners = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1)
    return [
        Tile(image, corners[owner == i], classes[owner == i], caption=name)
        for i, (image, name) in enumerate(zip(images, batch.files, strict=True))
    ]


class Quiet:
    """Says nothing but warnings."""

    def batch(self, *args: Any) -> None:
        pass

    def epoch(self, *args: Any) -> None:
        pass

    def warn(self, message: str) -> None:
        warn(message)
