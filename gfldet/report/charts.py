"""Histograms and curves as SVG, for pages: no library, no script; colours come from the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT, FOOT, HEAD = 300, 150, 34, 14  # of a chart, of the labels below its bars, of the numbers above them


def bars(title: str, labels: Sequence[str], counts: Sequence[int]) -> str:
    """A <figure> of upright bars, each with its count above and its label below."""
    step = WIDTH / max(len(counts), 1)
    tallest = max(counts, default=0) or 1
    parts = []
    for number, (label, count) in enumerate(zip(labels, counts, strict=True)):
        height = (HEIGHT - FOOT - HEAD) * count / tallest
        x, top = number * step, HEIGHT - FOOT - height
        middle = f"{x + step / 2:.1f}"
        parts.append(
            f'<g><title>{escape(label)}: {count}</title><rect x="{x + step * 0.08:.1f}" y="{top:.1f}" '
            f'width="{step * 0.84:.1f}" height="{height:.1f}"/>'
            f'<text x="{middle}" y="{top - 3:.1f}" text-anchor="middle">{count or ""}</text>'
            f'<text x="{middle}" y="{HEIGHT - FOOT + 12}" text-anchor="middle">{escape(label)}</text></g>'
        )
    return _figure(title, HEIGHT, parts)


def rows(title: str, labels: Sequence[str], counts: Sequence[int]) -> str:
    """A <figure> of lying bars, for labels that are words."""
    tallest = max(counts, default=0) or 1
    parts = []
    for number, (label, count) in enumerate(zip(labels, counts, strict=True)):
        y, width = 16 * number, 150 * count / tallest
        short = label if len(label) <= 18 else f"{label[:17]}…"
        parts.append(
            f'<g><title>{escape(label)}: {count}</title><text x="96" y="{y + 11}" text-anchor="end">{escape(short)}'
            f'</text><rect x="102" y="{y + 2}" width="{width:.1f}" height="11"/>'
            f'<text x="{106 + width:.1f}" y="{y + 11}">{count}</text></g>'
        )
    return _figure(title, 16 * len(parts) + 4, parts)


def _figure(title: str, height: int, parts: Sequence[str]) -> str:
    picture = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
    return f"<figure>{picture}{''.join(parts)}</svg><figcaption>{escape(title)}</figcaption></figure>"


# --------------------------------------------------------------------------------------------------------------- lines

LEFT, RIGHT, TOP, BOTTOM = 40, 352, 10, 190  # the plane of a chart of lines
LINES_WIDTH, LINES_HEIGHT = 364, 222
_MARKED = 20  # up to this number of points each has a dot, so that a single one is seen

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Line:
    """A line of a chart: its name in the legend, its points, and the class that gives it its look in the style."""

    label: str
    x: ArrayLike
    y: ArrayLike
    look: str


@dataclass(frozen=True, eq=False)
class Band:
    """What lies between two lines over the same x, with its name in the legend."""

    label: str
    x: ArrayLike
    low: ArrayLike
    high: ArrayLike


def lines(
    title: str, x_label: str, x: Range, y: Range, shown: Sequence[Line], band: Band | None = None, mark: float = np.nan
) -> str:
    """A <figure> of lines over x, with a legend; `x` and `y` are the ranges of the axes, `mark` an x to mark."""
    parts = [*_axis(x, across=True), *_axis(y, across=False)]
    parts.append(f'<text class="name" x="{RIGHT}" y="{LINES_HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    named = [(line.look, line.label) for line in shown]
    if band is not None:
        around = [*_points(band.x, band.high, x, y), *_points(band.x, band.low, x, y)[::-1]]
        parts.append(f'<polygon class="band" points="{" ".join(around)}"/>')
        named.append(("band", band.label))
    if np.isfinite(mark):
        at = _place(mark, x, (LEFT, RIGHT))
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
    for line in reversed(shown):  # the first lies on top
        points = _points(line.x, line.y, x, y)
        parts.append(f'<polyline class="{line.look}" points="{" ".join(points)}"/>')
        if len(points) <= _MARKED:
            dots = (point.split(",") for point in points)
            parts += [f'<circle class="{line.look}" cx="{cx}" cy="{cy}" r="2.5"/>' for cx, cy in dots]
    view = f"0 0 {LINES_WIDTH} {LINES_HEIGHT}"
    picture = f'<svg class="chart lines" viewBox="{view}" role="img" aria-label="{escape(title)}">'
    legend = "".join(f'<li><i class="{look}"></i>{escape(label)}</li>' for look, label in named)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>{picture}{''.join(parts)}</svg>"
        f'<ul class="legend">{legend}</ul></figure>'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, six at most; whole ones where these reach."""
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-12) / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    step = max(step, 1.0) if high - low >= 2 else step
    return [round(step * n, 12) for n in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)]


def _axis(of: Range, across: bool) -> list[str]:
    """The lines of the grid, with their numbers."""
    parts = []
    for value in ticks(*of):
        if across:
            at = _place(value, of, (LEFT, RIGHT))
            where = f'x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{BOTTOM}"'
            label = f'<text x="{at:.1f}" y="{BOTTOM + 14}" text-anchor="middle">{value:g}</text>'
        else:
            at = _place(value, of, (BOTTOM, TOP))
            where = f'x1="{LEFT}" x2="{RIGHT}" y1="{at:.1f}" y2="{at:.1f}"'
            label = f'<text x="{LEFT - 5}" y="{at + 3.5:.1f}" text-anchor="end">{value:g}</text>'
        parts.append(f'<line class="grid" {where}/>{label}')
    return parts


def _points(x: ArrayLike, y: ArrayLike, x_range: Range, y_range: Range) -> list[str]:
    """The finite points as SVG has them."""
    columns = np.column_stack((np.asarray(x, np.float64), np.asarray(y, np.float64)))
    rows = columns[np.isfinite(columns).all(axis=1)].tolist()
    return [f"{_place(a, x_range, (LEFT, RIGHT)):.1f},{_place(b, y_range, (BOTTOM, TOP)):.1f}" for a, b in rows]


def _place(value: float, of: Range, to: tuple[int, int]) -> float:
    """A value of the range `of` as a coordinate in the range `to`, within it."""
    share = (value - of[0]) / ((of[1] - of[0]) or 1.0)
    return to[0] + min(max(share, 0.0), 1.0) * (to[1] - to[0])
