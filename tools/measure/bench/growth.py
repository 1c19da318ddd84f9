"""Rows and a picture of how costs grow: each series of `scales` at all its sizes, the slope of its last step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from measure.bench.scales import SIZES, WHAT
from measure.bench.setup import Bench
from measure.bench.table import Row

POWER = {"side": 2}  # of its sizes, with which the cost of a series goes where it is linear in the pixels
LINEAR = 1.2  # the most that a slope may be: what is measured once is good to a fifth


def scale_rows(bench: Bench) -> Iterator[Row]:
    """One row for each series: seconds at its largest size."""
    found: dict[str, list[tuple[int, float]]] = {}
    for what, sizes in SIZES.items():
        for size in sizes[: 2 if bench.quick else None]:
            repeats = bench.repeats or 3
            answer = bench.ours.ask("scale", what=what, size=size, repeats=repeats if size < 100_000 else 1)
            found.setdefault(what, []).append((size, median(answer["seconds"])))
        slope = last_slope(found[what]) / POWER.get(what, 1)
        told = ", ".join(f"{size:,}: {_seconds(seconds)}" for size, seconds in found[what])
        note = f"{told}; grows as the power {slope:.2f}" + (" of the pixels" if what in POWER else "")
        size, seconds = found[what][-1]
        broken = f"more than linear: {note}" if slope > LINEAR else ""
        yield Row(f"{WHAT[what]}: {size:,}", "s", [seconds], note=note, broken=broken)
    if bench.plot:
        draw(bench.plot, found)


def last_slope(series: Sequence[tuple[int, float]]) -> float:
    """The power by which the cost grows from the last size but one to the last."""
    (a, before), (b, after) = series[-2:]
    return math.log(after / before) / math.log(b / a)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def draw(path: Path, found: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """A panel for each series, both axes logarithmic, beside a dashed line that is linear."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), dpi=110, layout="constrained")
    for number, (what, series) in enumerate(found.items(), 1):
        ax = figure.add_subplot(2, 3, number)
        sizes, seconds = zip(*series, strict=True)
        line = [seconds[-1] * (size / sizes[-1]) ** POWER.get(what, 1) for size in sizes]
        label = "linear in the pixels" if what in POWER else "linear"
        ax.loglog(sizes, line, color="0.6", linestyle="--", label=label)
        ax.loglog(sizes, seconds, marker="o", label="measured")
        ax.set_title(WHAT[what], fontsize=8)
        ax.set_ylabel("s")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
        ax.set_xticks([], minor=True)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(path)
