"""The page of a validation: its numbers are those of metrics.json, what is in its gallery, how large it gets, and that
it works in Chromium without loading anything.

The browser's test needs what tools/browser sees to; without it it is skipped, unless GFLDET_BROWSER is `required`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfldet.data.image_store import ImageStore
from gfldet.data.images import ImageError
from gfldet.data.records import Record, Split
from gfldet.detect.validate import Validation
from gfldet.machine.shared import Pool
from gfldet.metrics.coco import evaluate
from gfldet.metrics.matching import truth_columns
from gfldet.metrics.table import read_results
from gfldet.metrics.tide import KINDS, error_costs, find_errors
from gfldet.report import run_page as page_module
from gfldet.report.charts import Band, Line, lines, ticks
from gfldet.report.examples import OF_CLASS, PER_KIND, find_mistakes
from gfldet.report.run_page import run_page, write_run_page
from gfldet.report.run_tables import most_confused
from gfldet.report.validation import write_validation

local = pytest.mark.allow_hosts(["127.0.0.1", "::1"])
NAMES = ("cat", '<b>"dog"</b>', "cow")  # a class that would be seen if the page took it for HTML
W, H = 640, 480

Truth = tuple[int, tuple[float, float, float, float]]


def split_of(images: list[list[Truth]], names: tuple[str, ...] = NAMES) -> Split:
    records = [
        Record(
            Path(f"{i}.png"),
            i,
            f"{i}.png",
            W,
            H,
            np.array([box for _, box in truths], np.float32).reshape(-1, 4),
            np.array([c for c, _ in truths], np.int64),
            np.zeros((0, 4), np.float32),
        )
        for i, truths in enumerate(images)
    ]
    return Split("val", tuple(records), names, tuple(10 + c for c in range(len(names))))


def noise(record: Record) -> np.ndarray:
    rng = np.random.default_rng(record.image_id if isinstance(record.image_id, int) else 0)
    return rng.integers(0, 255, (H, W, 3), np.uint8)


def store_of(read: Callable[[Record], np.ndarray] = noise) -> ImageStore:
    return ImageStore((H // 2, W // 2), Pool(0), read)


def validated(split: Split, rows: list[tuple[int, int, tuple[float, float, float, float], float]]) -> Validation:
    found = [
        {"image_id": i, "category_id": 10 + c, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for i, c, (x1, y1, x2, y2), score in rows
    ]
    return Validation(evaluate(split, found), read_results(split, found))


A, B, C, D = (20, 20, 120, 120), (300, 20, 400, 120), (20, 300, 120, 400), (300, 300, 420, 420)
LOOSE = (70, 20, 170, 120)  # IoU 1/3 with A


def one_of_each() -> tuple[Split, Validation]:
    """Two images with right detections, and one with an error of each kind."""
    right = [(i, c, box, 0.9 - 0.01 * i) for i in (0, 1) for c, box in ((0, A), (1, B), (2, C))]
    split = split_of([[(0, A), (1, B), (2, C)], [(0, A), (1, B), (2, C)], [(0, A), (1, B), (2, C), (2, D)]])
    wrong = [
        (2, 0, LOOSE, 0.95),  # loose
        (2, 2, B, 0.94),  # wrong class
        (2, 2, C, 0.93),
        (2, 2, C, 0.92),  # a double
        (2, 1, (500, 20, 560, 80), 0.91),  # a false alarm
        (2, 1, LOOSE, 0.905),  # wrong and loose
        (2, 2, D, 0.05),  # found, but below the threshold that the next ones lead to
        *((0, c, (500, 20 + 40 * k, 530, 50 + 40 * k), 0.1) for c in range(3) for k in range(6)),
    ]
    return split, validated(split, right + wrong)


def figures(text: str) -> list[dict[str, str]]:
    return [
        {"kind": kind, "classes": classes, "score": score, "told": unescape(re.sub("<[^>]*>", "", caption))}
        for kind, classes, score, caption in re.findall(
            r'<figure data-kind="(\w+)" data-classes="([\d ]*)" data-score="([\d.]+)">'
            r".*?<figcaption>(.*?)</figcaption>",
            text,
        )
    ]


def shown_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def test_the_numbers_are_those_of_metrics_json(tmp_path: Path) -> None:
    split, found = one_of_each()
    write_validation(tmp_path, found, split)
    write_run_page(tmp_path / "report.html", found, split, store_of(), "best.pt on data.yaml")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    written = json.loads((tmp_path / "metrics.json").read_text())
    told = dict(re.findall(r'data-metric="(\w+)">([^<]*)<', text))
    assert len(told) == 9
    assert told == {name: shown_number(written[name]) for name in told}
    assert f"{written['images']} images, {written['truths']} truths, 3 classes" in text
    rows = re.findall(r'<tr data-class="(\d+)"><th scope="row">(.*?)</th>(.*?)</tr>', text)
    assert [int(number) for number, _, _ in rows] == [10, 11, 12]
    for (_, name, cells), row in zip(rows, written["per_class"], strict=True):
        assert unescape(name) == row["name"]
        keys = ("precision", "recall", "f1", "best_conf", "ap50", "ap")
        expected = [str(row["images"]), str(row["truths"]), *(shown_number(row[key]) for key in keys), ""]
        assert [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td.*?</td>", cells)] == expected
    matrix = re.search(r'<table class="matrix">.*?</table>', text)
    assert matrix is not None
    assert found.metrics.confusion is not None
    counts = [
        [int(cell or 0) for cell in re.findall("<td[^>]*>([0-9]*)</td>", row)]
        for row in re.findall("<tr>(.*?)</tr>", matrix[0].split("<tbody>")[1])
    ]
    assert counts == found.metrics.confusion.tolist()


def test_the_errors_and_what_they_cost() -> None:
    split, found = one_of_each()
    text = run_page(found, split, store_of(), "x")
    costs = error_costs(split, found.detections)
    rows = re.findall(r'<tr data-error="(\w+)">.*?<td>([\d,]+)</td><td>([^<]*)</td>', text)
    assert rows == [(kind, "1", shown_number(costs[kind])) for kind in KINDS]
    told = {one["kind"]: one for one in figures(text)}
    assert {kind: one["told"] for kind, one in told.items()} == {
        "Miss": "cow found at 0.05 only2.png",
        "Bkg": '<b>"dog"</b> 0.91 on background2.png',
        "Cls": 'cow 0.94 on <b>"dog"</b>, IoU 1.002.png',
        "Loc": "cat 0.95, IoU 0.332.png",
        "Both": '<b>"dog"</b> 0.91 on cat, IoU 0.332.png',
        "Dupe": "cow 0.92, IoU 1.002.png",
    }
    assert {kind: one["classes"] for kind, one in told.items()} == {
        "Miss": "2",
        "Bkg": "1",
        "Cls": "1 2",
        "Loc": "0",
        "Both": "0 1",
        "Dupe": "2",
    }
    assert len(figures(text)) == 6
    assert "<b>&quot;" not in text.replace("<b>&lt;", "")
    assert '<b>"dog"' not in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\(|@import|https?://""", text)


def test_both_boxes_lie_where_they_are_in_the_picture() -> None:
    """The store has the images at half their size."""
    split, found = one_of_each()
    text = run_page(found, split, store_of(), "x")
    card = next(part for part in text.split("<figure ") if part.startswith('data-kind="Loc"'))
    part = [float(v) for v in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', card).groups()]  # type: ignore[union-attr]
    boxes = {
        kind: [float(v) for v in numbers]
        for kind, *numbers in re.findall(
            r'<rect class="(truth|found)" x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)"/>', card
        )
    }
    assert boxes["found"][0] - boxes["truth"][0] == pytest.approx((LOOSE[0] - A[0]) / 2)
    assert boxes["truth"][2:] == boxes["found"][2:] == [50, 50]
    assert all(x >= 0 and x + w <= part[0] and y >= 0 and y + h <= part[1] for x, y, w, h in boxes.values())


def test_the_worst_come_first_and_no_class_takes_all() -> None:
    images: list[list[Truth]] = [[(0, A), (1, B)] for _ in range(60)]
    split = split_of(images)
    rows = [(i, 0, D, 0.9 - 0.001 * i) for i in range(60)]
    rows += [(i, 1, D, 0.5 - 0.001 * i) for i in range(6)]
    rows += [(i, 0, A, 0.8) for i in range(60)] + [(i, 1, B, 0.8) for i in range(40)] + [(50, 1, B, 0.1)]
    mistakes = find_mistakes(split, validated(split, rows).detections, 0.3)
    assert mistakes.counts == {"Miss": 20, "Bkg": 66, "Cls": 0, "Loc": 0, "Both": 0, "Dupe": 0}
    assert mistakes.right == 100
    alarms = mistakes.examples["Bkg"]
    scores = [mistakes.detections.scores[one.found] for one in alarms]
    assert scores == sorted(scores, reverse=True)
    of_class = [mistakes.classes(one) for one in alarms]
    assert len(alarms) == PER_KIND
    assert of_class.count([1]) == 6 > OF_CLASS
    misses = mistakes.examples["Miss"]
    assert [one.image for one in misses[-1:]] == [50]  # the one that a lower score finds
    assert [one.found for one in misses[:-1]] == [-1] * 19


def test_the_kinds_at_a_threshold_are_those_of_the_detections_above_it() -> None:
    split, found = one_of_each()
    truths = truth_columns(split)
    for conf in (0.01, 0.5, 0.935, 0.99):
        mistakes = find_mistakes(split, found.detections, conf)
        errors = find_errors(truths, found.detections.take(found.detections.scores >= conf))
        told = [int((errors.kind == number).sum()) for number in range(1, len(KINDS))]
        assert [mistakes.counts[kind] for kind in KINDS] == [int(errors.missed.sum()), *told]


def test_images_that_are_gone_are_left_out_and_told() -> None:
    split, found = one_of_each()

    def gone(record: Record) -> np.ndarray:
        raise ImageError(record.path, "it is gone")

    text = run_page(found, split, store_of(gone), "x")
    assert figures(text) == []
    assert "cannot be read any more: 2.png." in text


def test_the_page_stays_below_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 classes with all errors there are; pictures go round the kinds."""
    names = tuple(f"{'é<' * 50}{c}" for c in range(40))
    split = split_of([[(c, A), ((c + 1) % 40, B)] for c in range(40) for _ in range(3)], names)
    rows = []
    for i in range(120):
        rows += [(i, i // 3, LOOSE, 0.9), (i, i // 3, B, 0.8), (i, 7, (500, 400, 540, 440), 0.7)]
    monkeypatch.setattr(page_module, "PICTURE_BYTES", 600_000)
    text = run_page(validated(split, rows), split, store_of(), "x")
    assert 500_000 < len(text.encode()) < 800_000
    shown = [one["kind"] for one in figures(text)]
    assert {shown.count(kind) for kind in ("Bkg", "Cls", "Loc")} <= {shown.count("Bkg"), shown.count("Bkg") - 1}


@pytest.mark.parametrize("rows", [[], [(0, 0, A, 0.9)]])
@pytest.mark.parametrize("truths", [[], [(0, A)]])
def test_little_to_show(rows: list[Any], truths: list[Truth]) -> None:
    split = split_of([truths, []])
    text = run_page(validated(split, rows), split, store_of(), "x")
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text)


def test_the_most_confused_of_many_classes() -> None:
    matrix = np.diag([5] * 30 + [0])
    matrix[3, 8], matrix[8, 3], matrix[20, 3], matrix[7, 30], matrix[30, 9] = 4, 2, 1, 6, 3
    shown, counts = most_confused(matrix, 3)
    assert shown == [3, 8, 20]
    assert counts.tolist() == [
        [5, 4, 0, 0, 0],
        [2, 5, 0, 0, 0],
        [1, 0, 5, 0, 0],
        [0, 0, 0, 135, 6],
        [0, 0, 0, 3, 0],
    ]
    assert most_confused(matrix, 30)[1] is matrix


@pytest.mark.long
def test_many_classes_stay_readable() -> None:
    names = tuple(f"class {c}" for c in range(1203))
    boxes = [(x, y, x + 50, y + 50) for x in range(0, 600, 60) for y in (0, 100, 200)]
    split = split_of(
        [[(30 * i + k, box) for k, box in enumerate(boxes) if 30 * i + k < 1203] for i in range(41)], names
    )
    rows = [
        (i, c + (c % 40 == 0), (x1, y1, x2, y2), 0.9)
        for i, record in enumerate(split.records)
        for c, (x1, y1, x2, y2) in zip(record.classes.tolist(), record.boxes.tolist(), strict=True)
    ]
    text = run_page(validated(split, rows), split, store_of(), "x")
    assert len(text.encode()) < 3_000_000
    assert text.count("<polyline") < 10
    matrix = re.search(r'<table class="matrix">.*?</table>', text)
    assert matrix is not None
    assert matrix[0].count("<tr>") == 23  # the names, 20 classes, the others, the background
    assert "other classes" in matrix[0]


def test_training_curves(tmp_path: Path) -> None:
    split, found = one_of_each()
    results = tmp_path / "results.csv"
    results.write_text("epoch,train/box_loss,metrics/mAP50,lr\n1,2.5,0.1,0.01\n2,1.5,,0.005\n")
    text = run_page(found, split, store_of(), "x", results)
    assert [title in text for title in ("Training losses", "Validation of each epoch", "Learning rate")] == [True] * 3
    assert "<h1>Training run</h1>" in text
    text = run_page(found, split, store_of(), "x")
    assert "<h2>Training" not in text
    assert "<h1>Validation</h1>" in text


def test_lines_lie_where_their_numbers_are() -> None:
    line = Line("a<b", [0, 0.5, 1], [0, 1, np.nan], "s0")
    text = lines("t<", "x", (0, 1), (0, 1), [line], Band("band", [0, 1], [0, 0], [1, 1]), mark=0.5)
    assert 'class="s0" points="40.0,190.0 196.0,10.0"' in text
    assert 'class="mark" x1="196.0"' in text
    assert 'class="band" points="40.0,10.0 352.0,10.0 352.0,190.0 40.0,190.0"' in text
    assert "a&lt;b" in text
    assert "t&lt;" in text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 30, [5, 10, 15, 20, 25, 30]),
        (1, 3, [1, 2, 3]),
        (0, 0.0032, [0, 0.001, 0.002, 0.003]),
        (1, 1, [1]),
    ],
)
def test_round_numbers_on_the_axes(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------- in Chromium


@pytest.mark.long
@local
def test_the_page_in_a_browser(chromium: Callable[..., Any], page: Callable[..., Any], tmp_path: Path) -> None:
    split, found = one_of_each()
    file = tmp_path / "report.html"
    write_run_page(file, found, split, store_of(), "x")
    browser = chromium("window-size=1200,900")
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    browser.get(file.as_uri())
    shown = page(browser)
    measured = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    (busy,) = (one["value"] for one in measured if one["name"] == "TaskDuration")
    assert busy < 2  # seconds of a processor, whatever else the machine does

    def visible() -> list[str]:
        return shown.visible("figure[data-kind]", "kind")

    assert visible() == list(KINDS)
    assert shown.loaded() == 0
    assert shown.errors() == []
    shown.choose("kind", "Loc")
    assert visible() == ["Loc"]
    assert browser.find_element("id", "shown").text == "1 of 6 pictures are shown"
    shown.choose("kind", "")
    shown.choose("class", "1")
    assert visible() == ["Bkg", "Cls", "Both"]
    shown.choose("from", "0.92")
    assert visible() == ["Cls"]
    browser.find_element("css selector", "a[href='#errors-Miss']").send_keys("\n")
    assert visible() == list(KINDS)
    first = "return document.querySelector('.sortable tbody th').textContent"
    head = browser.find_element("css selector", ".sortable button")
    head.send_keys("\n")
    head.send_keys("\n")
    assert browser.execute_script(first) == "cow"
    wide = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert browser.execute_script(wide)
    browser.set_window_size(400, 800)
    assert browser.execute_script(wide)
    assert shown.backgrounds() == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
