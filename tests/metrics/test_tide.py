"""The kinds of errors and their costs, worked out by hand; hotcoco finds the same kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gfldet.metrics.coco import evaluate, run_hotcoco
from gfldet.metrics.matching import truth_columns
from gfldet.metrics.table import read_results
from gfldet.metrics.tide import BKG, BOTH, CLS, DUPE, IGNORED, KINDS, LOC, RIGHT, error_costs, find_errors

A, B, C, D = (0, 0, 100, 100), (200, 0, 300, 100), (0, 200, 100, 300), (200, 200, 300, 300)
LOOSE_A, LOOSE_C = (50, 0, 150, 100), (50, 200, 150, 300)  # IoU 1/3
NEAR_A = (0, 0, 99, 100)
FAR = (400, 400, 450, 450)
HALF = 51 / 101  # AP of precision 1 up to a recall of .5


def errors(split, detections):
    return find_errors(truth_columns(split), read_results(split, detections))


def costs(split, detections):
    found = error_costs(split, read_results(split, detections))
    return {kind: value for kind, value in found.items() if abs(value) > 1e-12}


def test_the_kind_of_each_error(make_split, found):
    split = make_split([[(0, A), (1, B), (0, C), (0, D)], [(1, A)]], ignore={1: [B]})
    detections = [
        (found(0, 0, A, 0.9), RIGHT, 0),
        (found(0, 0, NEAR_A, 0.8), DUPE, 0),
        (found(0, 0, B, 0.7), CLS, 1),
        (found(0, 0, LOOSE_C, 0.6), LOC, 2),
        (found(0, 1, LOOSE_A, 0.5), BOTH, 0),
        (found(0, 1, FAR, 0.4), BKG, -1),
        (found(1, 1, A, 0.3), RIGHT, 4),
        (found(1, 0, B, 0.2), IGNORED, -1),
        (found(1, 0, FAR, 0.1), BKG, -1),
    ]
    told = errors(split, [one for one, _, _ in detections])
    assert told.kind.tolist() == [kind for _, kind, _ in detections]
    assert told.truth.tolist() == [truth for _, _, truth in detections]
    assert told.missed.tolist() == [False, False, False, True, False]


def test_a_loose_box_comes_before_a_wrong_class(make_split, found):
    """As in the authors' program, where both hold."""
    split = make_split([[(0, A), (1, LOOSE_A)]])
    told = errors(split, [found(0, 0, LOOSE_A, 0.9)])
    assert (told.kind.tolist(), told.truth.tolist(), told.missed.tolist()) == ([LOC], [0], [False, True])


@pytest.mark.parametrize(
    ("truths", "detections", "ap50", "expected"),
    [
        # One of two is missed: without it AP is 1.
        ([(0, A), (0, D)], [(0, A, 0.9)], HALF, {"Miss": 1 - HALF}),
        # The same below a false alarm: what is missed would be found with the same precision, not with a better one.
        ([(0, A), (0, D)], [(0, FAR, 0.9), (0, A, 0.8)], HALF / 2, {"Miss": (1 - HALF) / 2, "Bkg": HALF / 2}),
        # Nothing is found at all, or of one class alone.
        ([(0, A)], [], 0, {"Miss": 1}),
        ([(0, A), (1, B)], [(0, A, 0.9)], 0.5, {"Miss": 0.5}),
        # Of two loose boxes the surer one becomes right, the other goes.
        ([(0, A)], [(0, LOOSE_A, 0.9), (0, LOOSE_A, 0.8)], 0, {"Loc": 1}),
        # What is loose about a truth that is found goes.
        ([(0, A)], [(0, LOOSE_A, 0.9), (0, A, 0.8)], 0.5, {"Loc": 0.5}),
        # A wrong class goes from where it is wrong to where it is right.
        ([(0, A), (1, B)], [(0, B, 0.9), (0, A, 0.8)], 0.25, {"Cls": 0.75}),
        # A double between two right ones: precisions 1, 1/2, 2/3.
        ([(0, A), (0, D)], [(0, A, 0.9), (0, A, 0.8), (0, D, 0.7)], (51 + 50 * 2 / 3) / 101, {"Dupe": 50 / 303}),
        # Wrong and loose, before the right one.
        ([(0, A), (1, B)], [(1, LOOSE_A, 0.9), (1, B, 0.8), (0, A, 0.7)], 0.75, {"Both": 0.25}),
        # A class without truths costs nothing.
        ([(0, A)], [(0, A, 0.9), (1, FAR, 0.95)], 1, {}),
    ],
)
def test_costs_by_hand(make_split, found, truths, detections, ap50, expected):
    split, rows = make_split([truths]), [found(0, *one) for one in detections]
    assert evaluate(split, rows).map50 == pytest.approx(ap50, abs=1e-12)
    assert costs(split, rows) == pytest.approx(expected, abs=1e-12)


def test_nothing_to_measure(make_split, found):
    split = make_split([[]])
    got = error_costs(split, read_results(split, [found(0, 0, A, 0.9)]))
    assert np.isnan([*got.values()]).all()
    assert tuple(got) == KINDS


@pytest.mark.parametrize("seed", range(4))
def test_hotcoco_finds_the_same_kinds(realistic, seed):
    """Without ignore regions, which hotcoco takes for truths where it looks for loose boxes."""
    split, detections = realistic(seed)
    nothing = np.zeros((0, 4), np.float32)
    records = tuple(replace(record, ignore=nothing, ignore_classes=None) for record in split.records)
    split, first = replace(split, records=records), split.records[0].image_id
    rows = read_results(split, [one for one in detections if one["image_id"] != first])  # it has more than COCO counts
    errors = find_errors(truth_columns(split), rows)
    counts = {kind: int((errors.kind == number).sum()) for number, kind in enumerate(KINDS)}
    counts["Miss"] = int(errors.missed.sum())
    assert min(counts.values()) > 0
    theirs = run_hotcoco(split, rows).tide_errors()["counts"]
    assert counts == {kind: theirs[kind] for kind in KINDS}
