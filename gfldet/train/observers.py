"""Who watches a training run: the terminal, results.csv, and the pictures of what the model was shown."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from gfldet.data.train_set import TrainBatch
from gfldet.errors import counted
from gfldet.files import MAX_TEXT, Unreadable, contents
from gfldet.messages import warn
from gfldet.metrics.coco import DetectionMetrics
from gfldet.train.events import ITEMS, EndReport, EpochReport, Observer, PlanReport, RunFacts, StepReport
from gfldet.train.timing import in_words
from gfldet.viz.pictures import Tile, batch_picture, save_picture
from gfldet.writing import write_aside

_EPOCH = re.compile("[0-9]{1,9}")
METRICS = {
    "metrics/precision": "precision",
    "metrics/recall": "recall",
    "metrics/mAP50": "map50",
    "metrics/mAP75": "map75",
    "metrics/mAP50-95": "map",
}
"""The columns of the metrics, each with its name in DetectionMetrics."""
COLUMNS = ("epoch", "time", *(f"train/{item}_loss" for item in ITEMS), *METRICS, "lr")
RESULTS = "results.csv"
PICTURES = 3  # training batches drawn at the start, and again when mosaic closes


class Terminal(Observer):
    """A progress bar with the running losses, and a line for each epoch; without a terminal the lines alone."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._epochs = self._steps = 0
        self._stream = stream or sys.stderr
        self._bar: tqdm[Any] | None = None
        self._head: str | None = "{:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8}".format(
            "epoch", *ITEMS, "AP50-95", "AP50", "AP75", "lr", "time", "left"
        )

    def begin(self, facts: RunFacts) -> None:
        self._epochs, self._steps = facts.plan.epochs, facts.plan.steps_per_epoch

    def step(self, report: StepReport) -> None:
        if self._bar is None:
            interactive = self._stream.isatty()
            self._bar = tqdm(total=self._steps, leave=False, disable=not interactive, file=self._stream, unit="step")
            self._bar.set_description(f"epoch {report.epoch + 1}/{self._epochs}")
        drawn = self._bar.update(report.number + 1 - self._bar.n)
        if not self._bar.disable and (drawn or report.number == 0):  # to read the losses makes a GPU wait
            self._bar.set_postfix({k: f"{v:.3f}" for k, v in zip(ITEMS, report.losses.tolist(), strict=True)})

    def epoch(self, report: EpochReport) -> None:
        self._close_bar()
        if self._head is not None:
            print(self._head)
            self._head = None
        losses = " ".join(f"{report.losses[item]:8.3f}" for item in ITEMS)
        m = report.metrics
        values = (m.map, m.map50, m.map75) if m else (math.nan,) * 3
        metrics = " ".join(f"{'-':>8}" if math.isnan(value) else f"{value:8.4f}" for value in values)
        star = " *" if report.best and m else ""
        times = f"{in_words(report.seconds):>8} {in_words(report.left):>8}"
        print(
            f"{report.epoch + 1:>4}/{self._epochs:<4} {losses} {metrics} {report.rate:9.6f} {times}{star}", flush=True
        )

    def planned(self, report: PlanReport) -> None:
        plan, self._epochs = report.plan, report.plan.epochs
        if report.too_long:
            self.warn(told_of_length(report))
        else:
            tqdm.write(told_of_length(report), file=sys.stdout)
        if self._bar is not None:
            self._bar.set_description(self._bar.desc.partition("/")[0] + f"/{plan.epochs}")

    def end(self, report: EndReport) -> None:
        self._close_bar()

    def warn(self, message: str) -> None:
        tqdm.write(f"warning: {message}", file=self._stream)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def told_of_length(report: PlanReport) -> str:
    """How many epochs a run with `time` has, in words."""
    plan, each = report.plan, in_words(report.epoch_seconds)
    if report.too_long:
        return (
            f"time={report.hours:g}: an epoch takes {each} and does not fit into that, with what comes before and "
            "after it; the run ends after one epoch"
        )
    return f"time={report.hours:g}: {counted(plan.epochs, 'epoch')} in all, at {each} each; {plan.of_length()}"


class ResultsCsv(Observer):
    """results.csv in the run folder, a row an epoch; of a resumed run the rows of the epochs done are kept."""

    def __init__(self) -> None:
        self._path: Path | None = None  # until the run has begun there is no folder to write to
        self._rows: list[dict[str, str]] = []

    def begin(self, facts: RunFacts) -> None:
        self._path = facts.folder / RESULTS
        self._rows = _rows(self._path, facts.epoch) if facts.epoch else []

    def epoch(self, report: EpochReport) -> None:
        if self._path is None:
            return
        row = {name: _cell(value) for name, value in numbers_of(report).items()}
        row |= {"epoch": str(report.epoch + 1), "time": f"{report.seconds:.1f}", "lr": f"{report.rate:.8g}"}
        self._rows.append(row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self._rows)
        write_aside(self._path, lambda file: file.write(text.getvalue().encode()))


def numbers_of(report: EpochReport) -> dict[str, float]:
    """The numbers of an epoch by COLUMNS, but for the first; NaN for metrics that it does not have."""
    losses = {f"train/{item}_loss": report.losses[item] for item in ITEMS}
    return {"time": report.seconds, **losses, **metrics_by_name(report.metrics), "lr": report.rate}


def metrics_by_name(metrics: DetectionMetrics | None) -> dict[str, float]:
    """The metrics by METRICS; NaN where there are none."""
    return {column: math.nan if metrics is None else getattr(metrics, name) for column, name in METRICS.items()}


def _rows(path: Path, done: int) -> list[dict[str, str]]:
    """The rows of the first `done` epochs, as far as they are there and can be read."""
    try:
        text = contents(path, MAX_TEXT).decode("utf-8", "replace")
        rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if set(COLUMNS) == row.keys()]
    except (Unreadable, csv.Error):
        return []
    return [row for row in rows if _EPOCH.fullmatch(str(row["epoch"])) and int(row["epoch"]) <= done]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


class BatchPictures(Observer):
    """Pictures of the first training batches, and of the first ones without mosaic: what the model is really shown."""

    def __init__(self) -> None:
        self._facts: RunFacts | None = None

    def begin(self, facts: RunFacts) -> None:
        self._facts = facts

    def planned(self, report: PlanReport) -> None:
        if self._facts:
            self._facts = replace(self._facts, plan=report.plan)

    def step(self, report: StepReport) -> None:
        facts = self._facts
        if facts and report.epoch in (0, facts.plan.close_epoch) and report.number < PICTURES:
            picture = batch_picture(_tiles(report.batch), facts.names)
            save_picture(facts.folder / f"train_epoch{report.epoch + 1}_batch{report.number + 1}.jpg", picture)


def _tiles(batch: TrainBatch) -> list[Tile]:
    images = batch.images.numpy()
    boxes, owner, classes = batch.boxes_px.numpy(), batch.batch_idx.numpy(), batch.cls.numpy()[:, 0]
    return [
        Tile(image, boxes[owner == i], classes[owner == i], caption=name)
        for i, (image, name) in enumerate(zip(images, batch.files, strict=True))
    ]


class Quiet(Observer):
    """Prints nothing but warnings."""

    def planned(self, report: PlanReport) -> None:
        if report.too_long:
            self.warn(told_of_length(report))

    def warn(self, message: str) -> None:
        warn(message)
