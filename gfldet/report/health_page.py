"""The page of a data check: one HTML file that holds all it shows, and loads nothing.

It stays below 10 MB by this rule, which it tells: at most PICTURES of each kind and PICTURE_BYTES of pictures in all,
which go round the kinds, the worst of each first; then lines of text, ROWS of each kind and TEXT_BYTES in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np

from gfldet.data.records import SEVERITIES, Finding
from gfldet.errors import plain, shown
from gfldet.health.check import Health
from gfldet.health.classes import boxes_by_class
from gfldet.health.codes import kind_of
from gfldet.health.survey import SPLITS, Survey
from gfldet.report.charts import bars, rows
from gfldet.report.document import bytes_of, document, safe, select, write_document
from gfldet.report.health_pictures import Pictures
from gfldet.report.health_text import size_counts, split_numbers, summary

PICTURES = 12  # of a kind
PICTURE_BYTES = 7_000_000
ROWS = 300  # of a kind
TEXT_BYTES = 2_000_000
CLASSES = 12  # in the chart


@dataclass
class _Kind:
    """The findings of a kind, and what of them is on the page: pictures as HTML for the first ones, then lines."""

    findings: list[Finding]
    cards: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def write_page(health: Health, path: Path) -> None:
    """Write the page of a check; OutputError if it cannot be written."""
    write_document(path, page(health))


def page(health: Health) -> str:
    """The page as HTML."""
    kinds = [_Kind(list(group)) for _, group in groupby(health.findings, key=lambda finding: finding.code)]
    _fill(kinds, Pictures(health.survey))
    source = safe(str(health.survey.spec.source))
    body = (
        f"<h1>Data check</h1><p>{source}</p><p>{escape(summary(health))}</p>",
        _splits(health.survey),
        f'<div class="charts">{"".join(_charts(health.survey))}</div>',
        _filter(health, kinds),
        *map(_section, kinds),
        _rule(),
    )
    return document(f"Data check: {source}", "health", body)


def _fill(kinds: Sequence[_Kind], pictures: Pictures) -> None:
    """Puts pictures and lines on the page, as far as the rule allows."""
    left = PICTURE_BYTES
    for number in range(PICTURES):
        for kind in kinds:
            if number != len(kind.cards) or number >= len(kind.findings) or left <= 0:
                continue
            picture = pictures.of(kind.findings[number])
            card = _card(kind.findings[number], picture)
            left -= bytes_of(card) if picture else 0
            if picture and left > 0:
                kind.cards.append(card)
    left = TEXT_BYTES
    for kind in kinds:
        for finding in kind.findings[len(kind.cards) :][:ROWS]:
            line = _line(finding)
            left -= bytes_of(line)
            if left < 0:
                return
            kind.lines.append(line)


def _data(finding: Finding) -> str:
    code, label = escape(finding.code), escape(plain(finding.label or ""))
    return f'class="{finding.severity}" data-severity="{finding.severity}" data-code="{code}" data-label="{label}"'


def _card(finding: Finding, picture: str) -> str:
    return f"<figure {_data(finding)}>{picture}<figcaption>{safe(finding.text)}</figcaption></figure>"


def _line(finding: Finding) -> str:
    return f"<li {_data(finding)}>{safe(finding.text)}</li>"


def _section(kind: _Kind) -> str:
    first = kind.findings[0]
    what = kind_of(first.code, first.severity)
    absent = len(kind.findings) - len(kind.cards) - len(kind.lines)
    more = f'<p class="faint">and {absent} more, which the JSON lists (json=FILE)</p>' if absent else ""
    return (
        f'<section class="kind {first.severity}"><h2><span class="severity">{first.severity}</span> '
        f'{escape(what.title)}: {len(kind.findings)} <span class="code">{escape(first.code)}</span></h2>'
        f'<p class="faint">{escape(what.advice)}</p><div class="cards">{"".join(kind.cards)}</div>'
        f"<ul>{''.join(kind.lines)}</ul>{more}</section>"
    )


def _filter(health: Health, kinds: Sequence[_Kind]) -> str:
    boxes = "".join(
        f'<label class="{severity}"><input type="checkbox" value="{severity}" checked> '
        f'<span class="severity">{severity}</span> {health.counts[severity]}</label>'
        for severity in SEVERITIES
    )
    codes = {kind.findings[0].code: kind.findings[0].code for kind in kinds}
    labels = sorted({finding.label for kind in kinds for finding in kind.findings[: PICTURES + ROWS] if finding.label})
    return (
        f'<form id="filter">{boxes}<label>kind {select("code", codes)}</label>'
        f"<label>class {select('label', {label: label for label in labels})}</label>"
        '<span id="shown" class="faint"></span></form>'
    )


def _splits(survey: Survey) -> str:
    head = "<tr><th>split</th><th>images</th><th>readable</th><th>without boxes</th><th>boxes</th></tr>"
    lines = "".join(
        f"<tr><td>{name}</td>{''.join(f'<td>{number:,}</td>' for number in numbers.values())}</tr>"
        for name, numbers in split_numbers(survey).items()
    )
    return f"<table>{head}{lines}</table>"


def _charts(survey: Survey) -> Iterator[str]:
    truths = survey.truths
    height, width = survey.frame
    size = f"{height}" if height == width else f"{height},{width}"
    names, counts = zip(*size_counts(survey), strict=True)
    short = [name.replace("under ", "<").replace(" to ", "–").replace(" and more", "+") for name in names]
    yield bars(f"longer side of the boxes at imgsz={size}, px", short, counts)
    sides = np.maximum(truths.sides, 1e-6)
    edges = (0, 1 / 5, 1 / 3, 1 / 1.5, 1.5, 3, 5, np.inf)
    shapes, _ = np.histogram(sides[:, 0] / sides[:, 1], edges)
    yield bars("width of the boxes / height", ("<1:5", "1:5", "1:3", "1:1", "3:2", "3:1", ">5:1"), shapes.tolist())
    each = np.bincount(truths.picture, minlength=len(survey.pictures)) if survey.pictures else np.zeros(0, int)
    many, _ = np.histogram(each, (0, 1, 2, 3, 6, 11, 21, 51, np.inf))
    yield bars("boxes of an image", ("0", "1", "2", "3–5", "6–10", "11–20", "21–50", ">50"), many.tolist())
    of_class = sum(boxes_by_class(survey, name) for name in SPLITS)
    order = np.argsort(-np.asarray(of_class), kind="stable")[:CLASSES]
    cut = f" (the {CLASSES} most frequent of {len(survey.names)})" if len(survey.names) > CLASSES else ""
    labels = [plain(shown(survey.names[n], 60, quoted=False)) for n in order]
    yield rows(f"boxes of each class{cut}", labels, [int(np.asarray(of_class)[n]) for n in order])


def _rule() -> str:
    return (
        f'<p class="faint">The worst of each kind come first. This page stays below 10 MB: it has at most {PICTURES} '
        f"pictures of a kind and {PICTURE_BYTES / 1e6:g} MB of pictures, then at most {ROWS} lines of a kind and "
        f"{TEXT_BYTES / 1e6:g} MB of text. json=FILE lists all findings. Boxes: red is the one meant, blue are the "
        "others of the image.</p>"
    )
