"""Cells of runs (a data set, a number of epochs, seeds) -> the table, and the chart of AP against epochs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import compare_parts.report
from compare_parts.report import Result, cell

COLUMNS = {**compare_parts.report.COLUMNS, "scores above .05": "above_low", "truths found": "found"}


@dataclass(frozen=True)
class Cell:
    """The runs of one data set and length; `curves` their results.csv, a file a seed; `peer` the peer's AP, a seed."""

    data: str
    epochs: int
    runs: Sequence[Result]
    curves: Sequence[Path]
    peer: Sequence[float] = ()


def markdown(cells: Sequence[Cell], facts: Sequence[str]) -> str:
    """A row a cell, under the lines that say how it came about."""
    head = ["data", "epochs", *COLUMNS, "training, s", "seeds", "peer's AP"]
    rows = [
        [
            one.data,
            str(one.epochs),
            *(cell([run.metrics.get(key, float("nan")) for run in one.runs]) for key in COLUMNS.values()),
            f"{sum(run.seconds for run in one.runs) / len(one.runs):.0f}",
            ", ".join(str(run.seed) for run in one.runs),
            cell(one.peer) if one.peer else "",
        ]
        for one in cells
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    note = "A cell is the mean over the seeds, ± half the difference of the highest and the lowest. Training with a "
    note += "validation after each epoch."
    return "\n".join([*(f"{fact}  " for fact in facts), "", *lines, "", note, ""])


def curve(file: Path) -> list[float]:
    """AP after each epoch, from results.csv."""
    with file.open(encoding="utf-8", newline="") as rows:
        return [float(row["metrics/mAP50-95"] or "nan") for row in csv.DictReader(rows)]


def chart(cells: Sequence[Cell], path: Path) -> None:
    """A panel a data set: the mean AP over the seeds against the epochs, and a band from the lowest to the highest."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one.data for one in cells))
    figure = Figure(figsize=(5.0 * len(names), 4.0), layout="constrained", dpi=120)
    for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for number, one in enumerate(c for c in cells if c.data == name):
            curves = [curve(file) for file in one.curves]
            epochs = range(1, one.epochs + 1)
            low, high = ([f(values) for values in zip(*curves, strict=True)] for f in (min, max))
            mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
            ax.fill_between(epochs, low, high, alpha=0.25, color=f"C{number}")
            ax.plot(epochs, mean, color=f"C{number}", label=f"{one.epochs} epochs")
            for peer in one.peer[:1]:
                ax.axhline(peer, color=f"C{number}", linestyle="--", label=f"the peer after {one.epochs}")
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("epoch")
        ax.set_ylabel("AP50-95 on val")
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(path)
