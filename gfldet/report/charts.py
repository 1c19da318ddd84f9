"""Histograms as SVG, for pages: no library, no script; colours come from the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

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
