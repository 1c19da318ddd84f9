"""The confusion matrix, counted by hand and by hotcoco."""

from __future__ import annotations

import numpy as np

from gfldet.metrics.confusion import confusion_matrix
from gfldet.metrics.matching import truth_columns
from gfldet.metrics.table import read_results

A, B, C = (0, 0, 100, 100), (200, 0, 300, 100), (0, 200, 100, 300)


def count(split, detections, **options):
    return confusion_matrix(truth_columns(split), read_results(split, detections), len(split.names), **options)


def test_by_hand(make_split, found):
    split = make_split([[(0, A), (0, B), (1, C)], []], ignore={1: [B]})
    detections = [
        found(0, 0, A, 0.9),  # right
        found(0, 1, A, 0.8),  # a double of another class: made up
        found(0, 1, B, 0.7),  # 0 taken for 1
        found(0, 1, C, 0.2),  # too unsure: its truth is missed
        found(1, 0, A, 0.6),  # made up
        found(1, 0, B, 0.6),  # in an ignore region
    ]
    matrix = count(split, detections, conf=0.25)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert count(split, detections, conf=0.2)[1].tolist() == [0, 1, 0]


def test_rows_count_the_truths(realistic):
    split, detections = realistic(3)
    matrix = count(split, detections, conf=0.3)
    truths = np.bincount(np.concatenate([r.classes for r in split.records]), minlength=6)
    assert matrix[:-1].sum(axis=1).tolist() == truths.tolist()
    assert matrix[-1, -1] == 0


def test_nothing(make_split):
    assert count(make_split([[]]), []).tolist() == [[0] * 3] * 3
    assert count(make_split([[(1, A)]]), []).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
