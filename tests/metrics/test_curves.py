"""Precision, recall, F1 and the best threshold, worked by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from gfldet.metrics.curves import Curve, best_mean, class_curves, found_share, mean_f1_curve
from gfldet.metrics.matching import Matches, SplitTruths
from gfldet.metrics.table import DetectionTable


def curve(truths, *points):
    """Points (score, hits, kept)."""
    scores, hits, kept = np.array(points, float).reshape(-1, 3).T
    return Curve(truths, scores, hits, kept)


def columns(rows, truth_classes, ignored=()):
    """Rows (class, score, right?) of one image."""
    classes, scores, right = (
        (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0, int),) * 3
    )
    n = len(rows)
    detections = DetectionTable(np.zeros(n, int), classes.astype(int), np.zeros((n, 4)), scores.astype(float))
    labels = np.array(truth_classes, int)
    none = np.zeros((0, 4))
    truths = SplitTruths(
        np.zeros((len(labels), 4)), labels, np.array([0, len(labels)]), none, np.zeros(0, np.int64), np.array([0, 0])
    )
    flags = np.isin(np.arange(n), list(ignored))
    return truths, detections, Matches(np.where(right.astype(bool), 0, -1), flags)


def test_a_curve_by_hand():
    # class 0, 4 truths: right .9, wrong .8, right .7, right .6, wrong .5
    rows = [(0, 0.7, 1), (0, 0.9, 1), (1, 0.95, 0), (0, 0.5, 0), (0, 0.8, 0), (0, 0.6, 1)]
    first, second = class_curves(*columns(rows, [0, 0, 0, 0, 1]), classes=2)
    np.testing.assert_allclose(first.scores, [0.9, 0.8, 0.7, 0.6, 0.5])
    np.testing.assert_allclose(first.precision, [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(first.recall, [1 / 4, 1 / 4, 2 / 4, 3 / 4, 3 / 4])
    np.testing.assert_allclose(first.f1, [2 / 5, 2 / 6, 4 / 7, 6 / 8, 6 / 9])
    best = first.best()
    assert (best.conf, best.precision, best.recall, best.f1) == (0.6, 0.75, 0.75, 0.75)
    assert second.truths == 1
    assert second.hits.tolist() == [0]


def test_equal_scores_are_one_threshold():
    first, _ = class_curves(*columns([(0, 0.5, 1), (0, 0.5, 0), (0, 0.5, 0), (0, 0.4, 1)], [0, 0]), classes=2)
    np.testing.assert_allclose(first.scores, [0.5, 0.4])
    np.testing.assert_allclose(first.precision, [1 / 3, 2 / 4])


def test_ignored_detections_leave_no_trace():
    first, _ = class_curves(*columns([(0, 0.9, 1), (0, 0.8, 0), (0, 0.7, 1)], [0, 0], ignored=[1]), classes=2)
    np.testing.assert_allclose(first.scores, [0.9, 0.7])
    np.testing.assert_allclose(first.precision, [1, 1])


def test_the_highest_of_equally_good_thresholds_wins():
    best = curve(2, (0.9, 1, 1), (0.6, 1, 2), (0.3, 2, 4)).best()  # F1 2/3, 1/2, 2/3
    assert best.conf == 0.9


def test_values_at_any_threshold():
    line = curve(4, (0.9, 1, 1), (0.5, 2, 4))
    assert (line.at(0.95).precision, line.at(0.95).recall) == (0, 0)
    assert line.at(0.9).precision == 1
    assert line.at(0.6).precision == 1
    assert line.at(0.5).precision == 0.5
    assert line.at(0.0).recall == 0.5


def test_undefined_and_hopeless_classes():
    without_truths = curve(0, (0.9, 0, 1)).best()
    assert all(math.isnan(v) for v in (without_truths.conf, without_truths.precision, without_truths.f1))
    for line in (curve(3), curve(3, (0.9, 0, 1))):
        assert math.isnan(line.best().conf)
        assert (line.best().precision, line.best().recall, line.best().f1) == (0, 0, 0)


def test_one_threshold_for_all_classes_by_hand():
    # F1 of a: 1 at .8, 2/3 at .4 and .3; of b: 0 above .6, 2/3 at .6, 4/5 at .3
    a = curve(1, (0.8, 1, 1), (0.4, 1, 2))
    b = curve(3, (0.7, 0, 0), (0.6, 2, 3), (0.3, 2, 2))
    unused = curve(0, (0.9, 0, 9))
    scores, f1 = mean_f1_curve([a, unused, b])
    np.testing.assert_allclose(scores, [0.8, 0.7, 0.6, 0.4, 0.3])
    np.testing.assert_allclose(f1, [1 / 2, 1 / 2, 5 / 6, 2 / 3, (2 / 3 + 4 / 5) / 2])
    point = best_mean([a, unused, b])
    assert point.conf == 0.6
    assert point.precision == pytest.approx((1 + 2 / 3) / 2)
    assert point.recall == pytest.approx((1 + 2 / 3) / 2)
    assert point.f1 == pytest.approx(5 / 6)


def test_the_mean_of_one_class_is_its_own_best():
    line = curve(4, (0.9, 1, 1), (0.5, 3, 4), (0.2, 3, 9))
    assert best_mean([line]) == line.best()


def test_mean_without_anything():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(best_mean([]).f1)
        assert math.isnan(best_mean([curve(0)]).precision)
        assert best_mean([curve(2), curve(1, (0.4, 0, 5))]).f1 == 0
        assert len(mean_f1_curve([])[0]) == 0


def test_no_detections_at_all():
    lines = class_curves(*columns([], [0, 1, 1]), classes=3)
    assert [line.truths for line in lines] == [1, 2, 0]
    assert all(len(line.scores) == 0 for line in lines)


def test_share_of_truths_found_by_hand() -> None:
    half, whole = curve(4, (0.9, 1, 1), (0.2, 2, 7)), curve(1, (0.5, 1, 1))
    missed, none = curve(3), curve(0, (0.5, 0, 1))
    assert found_share([half, whole]) == 0.75
    assert found_share([half, whole, missed, none]) == 0.5
    assert math.isnan(found_share([none]))
