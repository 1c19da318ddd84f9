"""The page of a validation: one HTML file that holds all it shows, and loads nothing.

It stays below 10 MB by this rule, which it tells: at most PER_KIND pictures of each kind of error and PICTURE_BYTES of
them in all, which go round the kinds, the worst of each first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gfldet.data.image_store import ImageStore
from gfldet.data.records import Split
from gfldet.detect.validate import Validation
from gfldet.errors import counted, plain, shown
from gfldet.metrics.coco import DetectionMetrics
from gfldet.metrics.curves import Curve
from gfldet.metrics.tide import KINDS, Kind, error_costs
from gfldet.report.charts import Band, Line, lines
from gfldet.report.document import bytes_of, document, safe, select, write_document
from gfldet.report.examples import OF_CLASS, PER_KIND, Example, Mistakes, find_mistakes
from gfldet.report.run_pictures import Gallery, make_gallery
from gfldet.report.run_tables import TITLES, class_table, confusion, error_table, headline, number
from gfldet.viz.plots import at_thresholds, envelope, results_panels

REPORT = "report.html"
PICTURE_BYTES = 7_000_000
NAMED_LINES = 7  # up to this number of classes each has a line of its own
SOURCE = "Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020"
UNREADABLE = 5  # images that are named


def write_run_page(
    path: Path, found: Validation, split: Split, store: ImageStore, subject: str, results: Path | None = None
) -> None:
    """Write the page of a validation; OutputError if it cannot be written.

    subject  what was measured on which data, for the title
    results  the results.csv of the run, if it is a training run
    """
    write_document(path, run_page(found, split, store, subject, results))


def run_page(found: Validation, split: Split, store: ImageStore, subject: str, results: Path | None = None) -> str:
    """The page as HTML."""
    metrics, title = found.metrics, "Training run" if results else "Validation"
    mistakes = find_mistakes(split, found.detections, metrics.working_conf)
    gallery = make_gallery(mistakes, split, store)
    cards = _fitting(mistakes, gallery)
    costs = error_costs(split, found.detections, mistakes.every)
    numbers = ((metrics.images, "image"), (metrics.truths, "truth"), (len(split.names), "class"))
    size = f"{split.name}: {', '.join(counted(*number) for number in numbers)}"
    body = (
        f"<h1>{title}</h1><p>{safe(subject)}</p><p class='faint'>{size}</p>",
        f'<div class="headline">{headline(metrics)}</div>',
        f"<h2>Errors</h2>{error_table(mistakes, costs)}{_about_errors(mistakes)}",
        f'<h2>Curves</h2><div class="charts">{"".join(_curves(metrics, split.names))}</div>',
        f'<h2>Training</h2><div class="charts">{"".join(_training(results))}</div>' if results else "",
        f"<h2>Classes</h2><p class='faint'>Precision, recall and F1 at the score where the F1 of the class is best.</p>"
        f"{class_table(metrics.per_class)}",
        _confusion(metrics, split.names),
        f"<h2>The worst errors</h2>{_filter(mistakes, cards, split.names)}",
        *(_section(kind, mistakes.counts[kind], cards[kind]) for kind in KINDS),
        _rule(gallery),
    )
    return document(f"{title}: {safe(subject)}", "run", body)


def _fitting(mistakes: Mistakes, gallery: Gallery) -> dict[Kind, list[tuple[Example, str]]]:
    """The cards that are on the page, as far as the rule allows."""
    cards: dict[Kind, list[tuple[Example, str]]] = {kind: [] for kind in KINDS}
    left = PICTURE_BYTES
    for place in range(PER_KIND):
        for kind in KINDS:
            for example in mistakes.examples[kind][place : place + 1]:
                card = gallery.cards.get(example, "")
                left -= bytes_of(card)
                if card and left >= 0:
                    cards[kind].append((example, card))
    return cards


# -------------------------------------------------------------------------------------------------------------- curves


def _curves(metrics: DetectionMetrics, names: Sequence[str]) -> Iterator[str]:
    curves = {c: curve for c, curve in enumerate(metrics.curves) if curve.truths}
    grid, thresholds = np.linspace(0, 1, 101), np.linspace(0, 1, 201)
    by_class = {c: envelope(curve.recall, curve.precision, grid) for c, curve in curves.items()}
    drawn: list[Line] = []
    band = None
    if curves:
        label = f"all classes, AP50 {number(metrics.map50)}"
        drawn.append(Line(label, grid, np.mean([*by_class.values()], axis=0), "all"))
    if 1 < len(curves) <= NAMED_LINES:
        drawn += [
            Line(f"{_text(names[c])}, {number(metrics.per_class[c].ap50)}", grid, line, f"s{place}")
            for place, (c, line) in enumerate(by_class.items())
        ]
    elif len(curves) > NAMED_LINES:
        low, high = np.percentile([*by_class.values()], (10, 90), axis=0)
        band = Band("four of five classes", grid, low, high)
    unit = (0.0, 1.0)
    yield lines("Precision against recall, IoU .5", "recall", unit, unit, drawn, band)
    means = [
        Line(name, thresholds, _mean_at([*curves.values()], name.lower(), thresholds), f"s{place}")
        for place, name in enumerate(("Precision", "Recall", "F1"))
    ]
    title = f"Means over the classes, best F1 at {number(metrics.best_conf)}"
    yield lines(title, "score threshold", unit, unit, means if curves else [], mark=metrics.best_conf)


def _mean_at(curves: Sequence[Curve], name: str, thresholds: np.ndarray) -> np.ndarray:
    """The mean over the classes of a value at each score threshold."""
    values = [at_thresholds(curve.scores, getattr(curve, name), thresholds) for curve in curves]
    return np.mean(values or [np.zeros_like(thresholds)], axis=0)


def _training(results: Path) -> Iterator[str]:
    epochs, panels = results_panels(results)
    titles = ("Training losses", "Validation of each epoch", "Learning rate")
    for title, of_panel in zip(titles, panels, strict=True):
        top = max((float(np.nanmax(y)) for y in of_panel.values()), default=1.0)
        height = 1.0 if title.startswith("Validation") else 1.05 * top
        drawn = [Line(name, epochs, y, f"s{place}") for place, (name, y) in enumerate(of_panel.items())]
        if drawn:
            yield lines(title, "epoch", (float(epochs.min()), float(epochs.max())), (0.0, height), drawn)


def _text(name: str) -> str:
    return plain(shown(name, 24, quoted=False))


# -------------------------------------------------------------------------------------------------------- what is told


def _about_errors(mistakes: Mistakes) -> str:
    return (
        f'<p class="faint">{counted(mistakes.right, "right detection")}. An error has one kind, by the rules of '
        f"<abbr title='{SOURCE}'>TIDE</abbr>. What a kind costs is what AP50 would gain without it, over "
        "detections of every score. A miss that a lower score finds costs nothing. The gains do not add up.</p>"
    )


def _confusion(metrics: DetectionMetrics, names: Sequence[str]) -> str:
    if metrics.confusion is None:
        return ""
    return (
        f"<h2>Confusion</h2><p class='faint'>Rows are the true classes, columns what they are taken for at score ≥ "
        f"{metrics.working_conf:.3f}. The shade is the share of the row. Objects that are missed are in the last "
        f"column, false alarms in the last row.</p>{confusion(metrics.confusion, names)}"
    )


def _filter(mistakes: Mistakes, cards: dict[Kind, list[tuple[Example, str]]], names: Sequence[str]) -> str:
    """The choices; the script shows them, since they do nothing without it."""
    classes = sorted({c for of_kind in cards.values() for example, _ in of_kind for c in mistakes.classes(example)})
    kinds: dict[str, str] = {kind: TITLES[kind] for kind in KINDS if cards[kind]}
    score = '<input type="number" id="{}" min="0" max="1" step="0.05" value="{}">'
    return (
        f'<form id="filter" hidden><label>kind {select("kind", kinds)}</label>'
        f"<label>class {select('class', {str(c): names[c] for c in classes})}</label>"
        f"<label>score from {score.format('from', 0)}</label><label>to {score.format('to', 1)}</label>"
        '<span id="shown" class="faint" aria-live="polite"></span></form>'
        '<p class="legend faint"><span><i class="truth"></i>truth</span><span><i class="found"></i>detection</span>'
        "<span>thin: others of the image</span></p>"
    )


def _section(kind: Kind, count: int, cards: Sequence[tuple[Example, str]]) -> str:
    told = f"the worst {len(cards)} of {count:,}" if len(cards) < count else f"{count:,}"
    return (
        f'<section class="kind" id="errors-{kind}"><h3>{TITLES[kind]} <span class="faint">{told}</span></h3>'
        f'<div class="cards">{"".join(card for _, card in cards)}</div></section>'
    )


def _rule(gallery: Gallery) -> str:
    gone = ""
    if gallery.unreadable:
        names = ", ".join(safe(name, 80) for name in gallery.unreadable[:UNREADABLE])
        more = f" and {len(gallery.unreadable) - UNREADABLE} more" if len(gallery.unreadable) > UNREADABLE else ""
        gone = f'<p id="unreadable">Left out, since their images cannot be read any more: {names}{more}.</p>'
    return (
        f'{gone}<p class="faint">The surest errors are the worst; of misses those that no detection finds at any '
        f"score. This page stays below 10 MB: it has at most {PER_KIND} pictures of a kind, in rounds of {OF_CLASS} of "
        f"each class, and {PICTURE_BYTES / 1e6:g} MB of pictures. They are as large as "
        "the model saw them.</p>"
    )
