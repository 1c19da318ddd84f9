"""The numbers of a validation as HTML: the metrics, the kinds of error with their costs, the classes, who is taken for
whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gfldet.metrics.coco import ClassMetrics, DetectionMetrics
from gfldet.metrics.table import Ints
from gfldet.metrics.tide import KINDS, Kind
from gfldet.report.document import safe
from gfldet.report.examples import Mistakes

MOST_CONFUSED = 20  # classes in the confusion matrix of a page
CLASSES = 2000  # rows of the table; with more classes those with the most truths
PAIRS = 10  # of classes, beside a matrix that does not show all
NAME = 40  # letters of a class name

TITLES: dict[Kind, str] = {
    "Miss": "Misses",
    "Bkg": "False alarms",
    "Cls": "Wrong classes",
    "Loc": "Loose boxes",
    "Both": "Wrong and loose",
    "Dupe": "Doubles",
}
MEANINGS: dict[Kind, str] = {
    "Miss": "objects that no detection is about",
    "Bkg": "detections where no object is labelled (IoU up to .1)",
    "Cls": "on an object of another class (IoU .5 and more)",
    "Loc": "of the right class, but the box fits badly (IoU .1 to .5)",
    "Both": "near an object of another class (IoU .1 to .5)",
    "Dupe": "on an object that a surer detection has found",
}


def number(value: float) -> str:
    """A number of a validation to three digits, as the terminal shows it."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def name_of(name: str) -> str:
    """A class name as HTML."""
    return safe(name, NAME)


def headline(metrics: DetectionMetrics) -> str:
    """The metrics of all classes together."""
    groups: dict[str, dict[str, str]] = {
        "Average precision": {"map": "AP50-95", "map50": "AP50", "map75": "AP75"},
        "AP50-95 by size": {"map_small": "small", "map_medium": "medium", "map_large": "large"},
        f"At score ≥ {number(metrics.best_conf)}, the best F1": {
            "precision": "precision",
            "recall": "recall",
            "f1": "F1",
        },
    }
    return "".join(
        f"<section><h3>{title}</h3><dl>{''.join(_metric(metrics, *one) for one in group.items())}</dl></section>"
        for title, group in groups.items()
    )


def _metric(metrics: DetectionMetrics, name: str, label: str) -> str:
    return f'<div><dt>{label}</dt><dd data-metric="{name}">{number(getattr(metrics, name))}</dd></div>'


def error_table(mistakes: Mistakes, costs: Mapping[Kind, float]) -> str:
    """How many errors of each kind there are, and what they cost; each kind leads to its examples."""
    most = max((value for value in costs.values() if value > 0), default=1.0)
    rows = []
    for kind in KINDS:
        cost = costs[kind]
        width = 100 * max(cost, 0.0) / most if math.isfinite(cost) else 0.0
        rows.append(
            f'<tr data-error="{kind}"><th scope="row"><a href="#errors-{kind}">{TITLES[kind]}</a> '
            f'<span class="code">{kind}</span><span class="what">{MEANINGS[kind]}</span></th>'
            f"<td>{mistakes.counts[kind]:,}</td><td>{number(cost)}</td>"
            f'<td class="bar"><i style="width:{width:.1f}%"></i></td></tr>'
        )
    names = ("kind", f"count at score ≥ {mistakes.conf:.3f}", "AP50 they cost")
    columns = "".join(f'<th scope="col">{name}</th>' for name in names)
    head = f'<thead><tr>{columns}<td class="bar"></td></tr></thead>'
    return _scrolled(f'<table class="errors">{head}<tbody>{"".join(rows)}</tbody></table>', "kinds of error")


def class_table(classes: Sequence[ClassMetrics]) -> str:
    """A row for each class, as the terminal shows it."""
    names = ("class", "images", "truths", "precision", "recall", "F1", "at score", "AP50", "AP50-95")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    most = sorted(range(len(classes)), key=lambda c: -classes[c].truths)[:CLASSES]
    rows = "".join(_class_row(classes[c]) for c in sorted(most))
    left_out = f"<p class='faint'>The {CLASSES:,} classes with the most truths.</p>" if len(classes) > CLASSES else ""
    table = f'<table class="sortable"><thead><tr>{head}<th></th></tr></thead><tbody>{rows}</tbody></table>'
    return left_out + _scrolled(table, "classes")


def _class_row(row: ClassMetrics) -> str:
    values = (row.precision, row.recall, row.f1, row.best_conf, row.ap50, row.ap)
    cells = "".join(f"<td>{number(value)}</td>" for value in values)
    width = 0.0 if math.isnan(row.ap) else 100 * row.ap
    return (
        f'<tr data-class="{row.category_id}"><th scope="row">{name_of(row.name)}</th><td>{row.images:,}</td>'
        f'<td>{row.truths:,}</td>{cells}<td class="bar"><i style="width:{width:.1f}%"></i></td></tr>'
    )


def confusion(matrix: Ints, names: Sequence[str]) -> str:
    """The confusion matrix; of many classes that of the most confused ones, and the pairs that are confused most."""
    shown, counts = most_confused(matrix, MOST_CONFUSED)
    others = ["other classes"] if len(shown) < len(names) else []
    labels = [*(name_of(names[c]) for c in shown), *others, "background"]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th scope="col"><span>{label}</span></th>' for label in labels)
    rows = []
    for row, label in enumerate(labels):
        cells = (_cell(counts[row, column], share[row, column], row == column) for column in range(len(labels)))
        rows.append(f'<tr><th scope="row">{label}</th>{"".join(cells)}</tr>')
    table = f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    pairs = _pairs(matrix, names) if others else ""
    return f'<div class="beside">{_scrolled(table, "confusion matrix")}{pairs}</div>'


def _cell(count: int, share: float, right: bool) -> str:
    of_class = " class='right'" if right else ""
    return f'<td{of_class} style="--share:{share:.3f}">{count:,}</td>' if count else "<td></td>"


def most_confused(matrix: Ints, most: int) -> tuple[list[int], Ints]:
    """The classes that are confused with others most, in their order, and the matrix of them, of all others together,
    and of the background; with `most` classes or fewer the whole matrix."""
    classes = len(matrix) - 1
    if classes <= most:
        return list(range(classes)), matrix
    between = matrix[:classes, :classes] - np.diag(np.diagonal(matrix)[:classes])
    wrong = between.sum(axis=0) + between.sum(axis=1)
    shown = np.sort(np.argsort(-wrong, kind="stable")[:most])
    group = np.full(len(matrix), most)  # of each row and column: its own, that of the others, that of the background
    group[shown], group[classes] = np.arange(most), most + 1
    counts = np.zeros((most + 2, most + 2), np.int64)
    np.add.at(counts, (group[:, None], group[None, :]), matrix)
    return shown.tolist(), counts


def _pairs(matrix: Ints, names: Sequence[str]) -> str:
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    most = np.argsort(-between, axis=None, kind="stable")[:PAIRS]
    rows = "".join(
        f"<tr><td>{name_of(names[true])}</td><td>{name_of(names[taken])}</td><td>{between[true, taken]:,}</td></tr>"
        for true, taken in zip(*(place.tolist() for place in np.unravel_index(most, between.shape)), strict=True)
        if between[true, taken]
    )
    head = '<thead><tr><th scope="col">true</th><th scope="col">taken for</th><th scope="col">times</th></tr></thead>'
    return f'<table class="pairs">{head}<tbody>{rows}</tbody></table>' if rows else ""


def _scrolled(table: str, label: str) -> str:
    """A table that may be wider or longer than its place; the keyboard reaches it."""
    return f'<div class="scrolled" tabindex="0" role="region" aria-label="{label}">{table}</div>'
