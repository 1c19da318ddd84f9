"""Detections as columns: some of them, the way back to the image, several parts as one list, suppression by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from gfldet.ops import letterbox
from gfldet.ops.detections import Detections, concatenated, survivors


def some(count: int, seed: int = 0) -> Detections:
    """Boxes that overlap a lot, best score first, no two scores alike, of two classes."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 60, (count, 2))
    boxes = np.concatenate((corner, corner + rng.integers(20, 40, (count, 2))), axis=1).astype(np.float32)
    scores = np.sort(rng.permutation(count) + 1)[::-1].astype(np.float32) / (count + 1)
    return Detections(boxes, scores, rng.integers(0, 2, count), np.arange(count) * 3)


def test_some_of_them_keep_every_column() -> None:
    whole = some(5)
    part = whole.take(np.array([3, 0]))
    assert len(part) == 2
    assert part.points is not None
    assert part.points.tolist() == [9, 0]
    assert part.boxes.tolist() == whole.boxes[[3, 0]].tolist()
    assert whole.take(whole.scores > 2).points is not None


def test_the_way_back_is_a_step_of_its_own() -> None:
    box = letterbox.fit(50, 100, (64, 64))  # .64 times, 16 px from the top
    found = Detections(np.array([[6.4, 22.4, 32.0, 28.8]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    np.testing.assert_allclose(found.in_image(box).boxes, [[10, 10, 50, 20]], atol=1e-4)


def torchvisions(found: Detections, iou: float, agnostic: bool) -> list[int]:
    """What torchvision keeps of each class, together, best first."""
    boxes, scores = torch.from_numpy(found.boxes), torch.from_numpy(found.scores)
    groups = np.zeros_like(found.classes) if agnostic else found.classes
    rows = [torch.from_numpy((groups == c).nonzero()[0]) for c in np.unique(groups)]
    return sorted(int(row) for some in rows for row in some[nms(boxes[some], scores[some], iou)])


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("iou", [0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("grid", [1, 0])
@pytest.mark.parametrize("count", [1, 2, 64, 65, 400])
def test_survivors_are_torchvisions(count: int, grid: int, iou: float, agnostic: bool) -> None:
    """Whole px give overlaps that lie on the threshold exactly, equal boxes, and boxes without an area; also tied
    scores, and boxes turned inside out."""
    rng = np.random.default_rng(count)
    corner = rng.uniform(-20, 20, (count, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(-1, 12, (count, 2))), axis=1)
    boxes = (boxes.round() if grid else boxes).astype(np.float32)
    scores = np.sort(rng.integers(0, 50, count))[::-1].astype(np.float32) / 50
    found = Detections(boxes, scores, rng.integers(0, 3, count))
    assert survivors(found, iou, agnostic).tolist() == torchvisions(found, iou, agnostic)


def test_survivors_among_many() -> None:
    found = some(6000, seed=2)
    kept = survivors(found, 0.6)
    assert kept.tolist() == torchvisions(found, 0.6, agnostic=False)
    assert len(kept) > 20
    assert survivors(found, 0.6, most=9).tolist() == kept[:9].tolist()
    few = found.take(slice(1000))
    assert survivors(few, 0.6, most=9).tolist() == survivors(few, 0.6)[:9].tolist()
    assert survivors(found.take(slice(0, 0)), 0.5).tolist() == []


def test_survivors_of_classes_in_opposite_corners() -> None:
    """A box that reaches out of the frame, above and left, stays apart from the class before it."""
    boxes = np.array([[600, 600, 640, 640], [-41, -41, -1, -1], [600, 600, 640, 641]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0]))
    assert survivors(found, 0.5).tolist() == [0, 1]


def test_two_tiles_of_one_image_become_one() -> None:
    """An object in the overlap of two tiles is found twice, and once where both are one list."""
    left = Detections(np.array([[80, 10, 100, 30]], np.float32), np.array([0.8], np.float32), np.array([0]))
    right = Detections(
        np.array([[20, 10, 40, 30], [60, 0, 90, 50]], np.float32), np.array([0.9, 0.5], np.float32), np.array([0, 0])
    )
    shift = np.array([60, 0, 60, 0], np.float32)
    moved = Detections(right.boxes + shift, right.scores, right.classes)
    every = concatenated([left, moved])
    assert every.scores.tolist() == pytest.approx([0.8, 0.9, 0.5])
    both = every.take(np.argsort(-every.scores, kind="stable"))
    assert both.scores.tolist() == pytest.approx([0.9, 0.8, 0.5])
    kept = both.take(survivors(both, 0.5))
    assert kept.boxes.tolist() == [[80, 10, 100, 30], [120, 0, 150, 50]]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5])
    assert len(concatenated([])) == 0
