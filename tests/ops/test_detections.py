"""Detections as columns: some of them, the way back to the image, several parts joined, suppression by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from gfldet.ops import letterbox
from gfldet.ops.detections import Detections, joined, survivors


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


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("iou", [0.3, 0.7, 1.0])
def test_survivors_are_torchvisions(iou: float, agnostic: bool) -> None:
    found = some(200, seed=3)
    group = np.zeros_like(found.classes) if agnostic else found.classes
    expected = batched_nms(*map(torch.from_numpy, (found.boxes, found.scores, group)), iou)
    assert survivors(found, iou, agnostic).tolist() == expected.tolist()
    assert survivors(found.take(slice(0, 0)), iou).tolist() == []


def test_survivors_of_classes_in_opposite_corners() -> None:
    """A box that reaches out of the frame, above and left, stays apart from the class before it."""
    boxes = np.array([[600, 600, 640, 640], [-41, -41, -1, -1], [600, 600, 640, 641]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0]))
    assert survivors(found, 0.5).tolist() == [0, 1]


def test_two_tiles_of_one_image_become_one() -> None:
    """An object in the overlap of two tiles is found twice, and once after both were joined."""
    left = Detections(np.array([[80, 10, 100, 30]], np.float32), np.array([0.8], np.float32), np.array([0]))
    right = Detections(
        np.array([[20, 10, 40, 30], [60, 0, 90, 50]], np.float32), np.array([0.9, 0.5], np.float32), np.array([0, 0])
    )
    shift = np.array([60, 0, 60, 0], np.float32)
    moved = Detections(right.boxes + shift, right.scores, right.classes)
    both = joined([left, moved])
    assert both.scores.tolist() == pytest.approx([0.9, 0.8, 0.5])
    kept = both.take(survivors(both, 0.5))
    assert kept.boxes.tolist() == [[80, 10, 100, 30], [120, 0, 150, 50]]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5])
    assert len(joined([])) == 0
