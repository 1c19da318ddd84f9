"""The correlation of score with IoU: by hand, against scipy, and where it has no meaning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from gfldet.metrics import quality
from gfldet.metrics.coco import evaluate
from gfldet.metrics.matching import SplitTruths, truth_columns
from gfldet.metrics.quality import score_iou_correlation
from gfldet.metrics.table import DetectionTable, read_results

Make = Callable[..., Any]


def found(image: int, category: int, box: tuple[float, ...], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


def correlation(split: Any, detections: list[dict[str, Any]], per_truth: float = 2.0, least_iou: float = 0.0) -> float:
    return score_iou_correlation(truth_columns(split), read_results(split, detections), per_truth, least_iou)


def test_in_order_and_in_reverse(make_split: Make) -> None:
    split = make_split([[(0, (0, 0, 10, 10)), (1, (20, 20, 40, 40))]])
    better_is_higher = [
        found(0, 0, (0, 0, 10, 10), 0.9),
        found(0, 0, (0, 0, 10, 5), 0.5),
        found(0, 1, (0, 0, 10, 10), 0.1),  # right box, wrong class: IoU 0
    ]
    assert correlation(split, better_is_higher) == pytest.approx(1)
    reverse = [{**d, "score": 1 - d["score"]} for d in better_is_higher]
    assert correlation(split, reverse) == pytest.approx(-1)


def test_only_the_best_count(make_split: Make) -> None:
    split = make_split([[(0, (0, 0, 10, 10))]])
    two = [found(0, 0, (0, 0, 10, 10), 0.9), found(0, 0, (0, 0, 10, 5), 0.8)]
    spoiler = found(0, 0, (0, 0, 10, 9), 0.1)
    assert correlation(split, [*two, spoiler]) == pytest.approx(1)
    assert correlation(split, [*two, spoiler], per_truth=3.0) == pytest.approx(0.5)


def test_of_those_that_overlap_a_truth(make_split: Make) -> None:
    split = make_split([[(0, (0, 0, 10, 10)), (0, (50, 50, 60, 60))]])
    unlabelled = found(0, 0, (100, 100, 10, 10), 0.95)
    fitting = [found(0, 0, (0, 0, 10, 10), 0.9), found(0, 0, (50, 50, 10, 8), 0.7), found(0, 0, (50, 50, 10, 6), 0.6)]
    assert correlation(split, [*fitting, unlabelled]) < 0.5
    assert correlation(split, [*fitting, unlabelled], least_iou=0.5) == pytest.approx(1)


def test_equals_scipy_with_ties(make_split: Make) -> None:
    rng = np.random.default_rng(0)
    images = [[(int(rng.integers(2)), (x, x, x + 20, x + 30)) for x in (0, 50, 100)] for _ in range(6)]
    split = make_split(images)
    detections, iou = [], []
    for image, truths in enumerate(images):
        for c, (x, y, _, _) in truths:
            shift = float(rng.integers(0, 12))
            detections.append(found(image, c, (x + shift, y, 20, 30), float(rng.integers(1, 6)) / 10))
            inside = max(0.0, 20 - shift) * 30
            iou.append(inside / (2 * 600 - inside))
    expected = spearmanr([d["score"] for d in detections], iou).statistic
    assert correlation(split, detections) == pytest.approx(expected)


class Counting(np.ndarray):
    """Counts the elements that numpy's functions look at."""

    seen = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(given) for given in inputs]
        Counting.seen += max(given.size for given in plain)
        return getattr(ufunc, method)(*plain, **options)


def test_the_work_grows_with_the_images_and_no_faster() -> None:
    """A scan of all detections for each image would look at 200 x 400 numbers, and takes 31 s for 16,000 images."""
    images, box = 200, np.array([0.0, 0.0, 10.0, 10.0])
    none, start = np.zeros(0, np.int64), np.arange(images + 1)
    boxes, classes = np.tile(box, (images, 1)), np.zeros(images, np.int64)
    truths = SplitTruths(boxes, classes, start, boxes[:0], none, 0 * start)
    number = np.repeat(np.arange(images), 2)
    scores = np.random.default_rng(0).random(2 * images)
    table = DetectionTable(number.view(Counting), 0 * number, np.tile(box, (2 * images, 1)), scores)
    Counting.seen = 0
    assert math.isnan(score_iou_correlation(truths, table))  # all overlaps are equal
    assert Counting.seen < 20 * len(table)


def test_a_validation_computes_the_overlaps_once(make_split: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = quality._best_iou
    monkeypatch.setattr(quality, "_best_iou", lambda *given: calls.append(1) or original(*given))
    split = make_split([[(0, (0, 0, 10, 10)), (0, (50, 50, 60, 60))]])
    detections = [found(0, 0, (0, 0, 10, 10), 0.9), found(0, 0, (50, 50, 10, 8), 0.7), found(0, 0, (9, 9, 10, 6), 0.6)]
    metrics = evaluate(split, detections)
    assert len(calls) == 1
    assert metrics.score_iou == correlation(split, detections)
    assert metrics.score_iou_matched == correlation(split, detections, least_iou=0.5)


def test_without_meaning(make_split: Make) -> None:
    split = make_split([[(0, (0, 0, 10, 10))]])
    assert math.isnan(correlation(split, []))
    assert math.isnan(correlation(split, [found(0, 0, (0, 0, 10, 10), 0.5)]))
    same = [found(0, 0, (0, 0, 10, 10), 0.5), found(0, 0, (0, 0, 10, 5), 0.5)]
    assert math.isnan(correlation(split, same))
    assert math.isnan(correlation(make_split([[]]), []))
