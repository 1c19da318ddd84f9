"""Results of runs -> tables and charts.

A row of tools/compare is a variant, one of tools/reproduce a data set and a length.  A cell is the mean over the seeds
with its range.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gfldet.experiments import Result

COLUMNS = {
    "AP": "map",
    "AP50": "map50",
    "AP75": "map75",
    "score ~ IoU": "score_iou",
    "the same, IoU ≥ .5": "score_iou_matched",
}
CELL_COLUMNS = {**COLUMNS, "scores above .05": "above_low", "truths found": "found"}


def markdown(results: Sequence[Result], facts: Sequence[str]) -> str:
    """The table, best AP first, under the lines that say how it came about."""
    rows = [[name, *_cells(_of(results, name))] for name in _ranked(results)]
    head = ["variant", *COLUMNS, "training, s", "seeds"]
    return _table(head, rows, facts)


def beside(results: Mapping[str, Sequence[Result]], facts: Sequence[str]) -> str:
    """Several data sets side by side, in the order of running: AP, and the differences from the first variant."""
    head, rows = ["variant"], [[name] for name in _names(next(iter(results.values())))]
    for data, runs in results.items():
        head += [f"{data}: AP", "difference", "AP75", "score ~ IoU"]
        first = _of(runs, rows[0][0])
        for row in rows:
            mine = _of(runs, row[0])
            pairs = [(a, b) for a in mine for b in first if a.seed == b.seed]
            row += [
                cell([run.metrics["map"] for run in mine]),
                "" if mine == first else cell([a.metrics["map"] - b.metrics["map"] for a, b in pairs], sign=True),
                cell([run.metrics["map75"] for run in mine]),
                cell([run.metrics["score_iou"] for run in mine]),
            ]
    return _table(head, rows, [*facts, "a difference from the first variant is taken seed by seed"])


CORRELATION = "score ~ IoU is the rank correlation over the best detections, two for each truth."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], facts: Sequence[str], note: str = CORRELATION) -> str:
    """Rows under the lines that tell how they came about, and above what their cells mean."""
    lines = [*(f"{fact}  " for fact in facts), "", _row(head), _row(["---"] * len(head)), *map(_row, rows)]
    spread = "A cell is the mean over the seeds, ± half the difference of the highest and the lowest."
    return "\n".join([*lines, "", f"{spread} {note}", ""])


def chart(results: Mapping[str, Sequence[Result]], path: Path) -> None:
    """One data set: AP and both correlations of score with IoU side by side; several: the AP of each.

    A small dot a seed, a large one the mean.
    """
    from matplotlib.figure import Figure

    if len(results) == 1:
        runs = next(iter(results.values()))
        titles = {"AP": "AP50-95", "score ~ IoU": "correlation of score with IoU"}
        titles["the same, IoU ≥ .5"] = "the same, where IoU ≥ .5"
        panels = [(title, COLUMNS[column], runs) for column, title in titles.items()]
        names = _ranked(runs)[::-1]
    else:
        panels = [(f"AP50-95 on {data}", "map", runs) for data, runs in results.items()]
        names = _names(panels[0][2])[::-1]
    figure = Figure(figsize=(4.0 * len(panels), 0.8 + 0.42 * len(names)), layout="constrained", dpi=120)
    for ax, (title, key, runs) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for row, name in enumerate(names):
            values = [result.metrics[key] for result in _of(runs, name)]
            ax.plot(values, [row] * len(values), "o", color="#4c78a8", markersize=4)
            ax.plot(_mean(values), row, "o", color="#4c78a8", markersize=9, alpha=0.6)
        ax.set_yticks(range(len(names)), names)
        ax.set_title(title, fontsize=10)
        ax.grid(alpha=0.3)
    figure.savefig(path)


def _of(results: Sequence[Result], name: str) -> list[Result]:
    return [result for result in results if result.variant == name]


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.variant for result in results))


def _ranked(results: Sequence[Result]) -> list[str]:
    return sorted(_names(results), key=lambda name: -_mean([r.metrics["map"] for r in _of(results, name)]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _cells(runs: Sequence[Result]) -> list[str]:
    cells = [cell([run.metrics[key] for run in runs]) for key in COLUMNS.values()]
    return [*cells, f"{_mean([run.seconds for run in runs]):.0f}", ", ".join(str(run.seed) for run in runs)]


def cell(values: Sequence[float], sign: bool = False) -> str:
    """Mean ± half the range; with `sign` a plus before positive ones."""
    return f"{_mean(values):{'+' if sign else ''}.3f} ± {(max(values) - min(values)) / 2:.3f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# ------------------------------------------------------------------------------------- data sets and lengths, one model


@dataclass(frozen=True)
class Cell:
    """The runs of one data set and length; `curves` their results.csv, a file a seed; `peer` the peer's AP, a seed."""

    data: str
    epochs: int
    runs: Sequence[Result]
    curves: Sequence[Path]
    peer: Sequence[float] = ()


def cells_table(cells: Sequence[Cell], facts: Sequence[str]) -> str:
    """A row a cell, under the lines that tell how it came about."""
    head = ["data", "epochs", *CELL_COLUMNS, "training, s", "seeds", "peer's AP"]
    rows = [
        [
            one.data,
            str(one.epochs),
            *(cell([run.metrics.get(key, float("nan")) for run in one.runs]) for key in CELL_COLUMNS.values()),
            f"{_mean([run.seconds for run in one.runs]):.0f}",
            ", ".join(str(run.seed) for run in one.runs),
            cell(one.peer) if one.peer else "",
        ]
        for one in cells
    ]
    return _table(head, rows, facts, "Training with a validation after each epoch.")


def curve(file: Path) -> list[float]:
    """AP after each epoch, from results.csv."""
    with file.open(encoding="utf-8", newline="") as rows:
        return [float(row["metrics/mAP50-95"] or "nan") for row in csv.DictReader(rows)]


def cells_chart(cells: Sequence[Cell], path: Path) -> None:
    """A panel a data set: the mean AP over the seeds against the epochs, and a band from the lowest to the highest."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one.data for one in cells))
    figure = Figure(figsize=(5.0 * len(names), 4.0), layout="constrained", dpi=120)
    for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for number, one in enumerate(c for c in cells if c.data == name):
            curves = [curve(file) for file in one.curves]
            epochs = range(1, one.epochs + 1)
            low, high = ([f(values) for values in zip(*curves, strict=True)] for f in (min, max))
            mean = [_mean(values) for values in zip(*curves, strict=True)]
            ax.fill_between(epochs, low, high, alpha=0.25, color=f"C{number}")
            dot = "o" if one.epochs == 1 else ""  # a line of one point would not show
            ax.plot(epochs, mean, marker=dot, color=f"C{number}", label=f"{one.epochs} epochs")
            for peer in one.peer[:1]:
                ax.axhline(peer, color=f"C{number}", linestyle="--", label=f"the peer after {one.epochs}")
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.set_ylabel("AP50-95 on val")
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(path)
