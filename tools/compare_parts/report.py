"""Results of runs -> a table and a chart, a row a variant, means over seeds with their range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = {
    "AP": "map",
    "AP50": "map50",
    "AP75": "map75",
    "score ~ IoU": "score_iou",
    "the same, IoU ≥ .5": "score_iou_matched",
}


@dataclass(frozen=True)
class Result:
    """One run: which, its metrics by the names of metrics.json, and the seconds of its training."""

    variant: str
    seed: int
    metrics: dict[str, float]
    seconds: float


def markdown(results: Sequence[Result], facts: Sequence[str]) -> str:
    """The table, best AP first, under the lines that say how it came about."""
    rows = [[name, *_cells(_of(results, name))] for name in _ranked(results)]
    head = ["variant", *COLUMNS, "training, s", "seeds"]
    lines = [*(f"{fact}  " for fact in facts), "", _row(head), _row(["---"] * len(head)), *map(_row, rows)]
    spread = (
        "A cell is the mean over the seeds, ± half the difference of the highest and the lowest. score ~ IoU is the "
        "rank correlation over the best detections, two for each truth."
    )
    return "\n".join([*lines, "", spread, ""])


def chart(results: Sequence[Result], path: Path) -> None:
    """AP and both correlations of score with IoU side by side: a small dot a seed, a large one the mean."""
    from matplotlib.figure import Figure

    names = _ranked(results)[::-1]
    panels = {
        "AP": "AP50-95",
        "score ~ IoU": "correlation of score with IoU",
        "the same, IoU ≥ .5": "the same, where IoU ≥ .5",
    }
    figure = Figure(figsize=(12.0, 0.8 + 0.42 * len(names)), layout="constrained", dpi=120)
    for ax, title in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for row, name in enumerate(names):
            values = [result.metrics[COLUMNS[title]] for result in _of(results, name)]
            ax.plot(values, [row] * len(values), "o", color="#4c78a8", markersize=4)
            ax.plot(_mean(values), row, "o", color="#4c78a8", markersize=9, alpha=0.6)
        ax.set_yticks(range(len(names)), names)
        ax.set_title(panels[title], fontsize=10)
        ax.grid(alpha=0.3)
    figure.savefig(path)


def _of(results: Sequence[Result], name: str) -> list[Result]:
    return [result for result in results if result.variant == name]


def _ranked(results: Sequence[Result]) -> list[str]:
    names = list(dict.fromkeys(result.variant for result in results))
    return sorted(names, key=lambda name: -_mean([r.metrics["map"] for r in _of(results, name)]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _cells(runs: Sequence[Result]) -> list[str]:
    cells = [cell([run.metrics[key] for run in runs]) for key in COLUMNS.values()]
    return [*cells, f"{_mean([run.seconds for run in runs]):.0f}", ", ".join(str(run.seed) for run in runs)]


def cell(values: Sequence[float]) -> str:
    """Mean ± half the range."""
    return f"{_mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
