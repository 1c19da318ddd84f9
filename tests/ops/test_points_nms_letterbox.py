"""Anchor points, NMS and letterbox: hand-worked cases, a plain reference, exact inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gfldet.ops import letterbox
from gfldet.ops.boxes import pairwise_iou, xyxy_to_xywh
from gfldet.ops.decode import Decoded
from gfldet.ops.nms import non_max_suppression
from gfldet.ops.points import anchor_points, grids


def test_points_lie_in_the_middle_of_cells() -> None:
    levels = grids([(1, 2), (1, 1)], (8, 16))
    points, strides = anchor_points(levels)
    assert points.tolist() == [[4, 4], [12, 4], [8, 8]]
    assert strides.tolist() == [[8], [8], [16]]
    assert [level.start for level in levels] == [0, 2]


def decoded(boxes: torch.Tensor, scores: torch.Tensor) -> Decoded:
    """xyxy (A, 4) and scores (A, C) of one image as the head gives them."""
    return Decoded(xyxy_to_xywh(boxes).T[None], scores.T[None])


def plain_nms(boxes: torch.Tensor, scores: torch.Tensor, conf: float, iou: float) -> list[tuple[float, int]]:
    """The textbook loop, class by class."""
    kept = []
    for c in range(scores.shape[1]):
        left = [i for i in scores[:, c].argsort(descending=True).tolist() if scores[i, c] > conf]
        while left:
            best = left.pop(0)
            kept.append((scores[best, c].item(), c))
            overlap = pairwise_iou(boxes[best][None], boxes)[0]
            left = [i for i in left if overlap[i] <= iou]
    return sorted(kept, reverse=True)


def test_nms_equals_the_textbook_whatever_max_det() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(300, 2, generator=generator) * 60
    boxes = torch.cat((low, low + 10 + torch.rand(300, 2, generator=generator) * 30), dim=1)
    scores = torch.rand(300, 3, generator=generator)
    every = plain_nms(boxes, scores, 0.1, 0.5)
    for max_det in (5, 40, 1000):
        (found,) = non_max_suppression(decoded(boxes, scores), conf=0.1, iou=0.5, max_det=max_det)
        expected = every[:max_det]
        assert found.classes.tolist() == [c for _, c in expected]
        assert found.scores.tolist() == pytest.approx([s for s, _ in expected])
        assert found.points is not None
        assert found.scores.tolist() == scores[found.points, found.classes].tolist()  # where each comes from


def test_nms_class_choices() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0]])
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    one = lambda **kw: non_max_suppression(decoded(boxes, scores), conf=0.5, **kw)[0]  # noqa: E731
    assert one().classes.tolist() == [0, 1]
    assert one(agnostic=True).classes.tolist() == [0]
    assert one(classes=torch.tensor([1])).classes.tolist() == [1]


def test_classes_in_opposite_corners_never_meet() -> None:
    """A box that reaches out of the frame, above and left, stays apart from the class before it."""
    boxes = torch.tensor([[600.0, 600, 640, 640], [-41, -41, -1, -1], [600, 600, 640, 641]])
    scores = torch.tensor([[0.9, 0.0], [0.0, 0.8], [0.7, 0.0]])
    (found,) = non_max_suppression(decoded(boxes, scores), conf=0.5, iou=0.5)
    assert found.points is not None
    assert found.points.tolist() == [0, 1]


def test_without_suppression_the_best_are_kept_however_they_overlap() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.5], [0.0, 0.0, 10.0, 11.0]])
    scores = torch.tensor([[0.7], [0.9], [0.8]])
    (found,) = non_max_suppression(decoded(boxes, scores), conf=0.5, iou=None, max_det=2)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert found.points is not None
    assert found.points.tolist() == [1, 2]
    np.testing.assert_allclose(found.boxes, boxes[[1, 2]])
    assert len(non_max_suppression(decoded(boxes, scores), conf=0.5, iou=0.5)[0].scores) == 1


def test_nms_of_nothing() -> None:
    (found,) = non_max_suppression(Decoded(torch.zeros(1, 4, 8), torch.zeros(1, 2, 8)), conf=0.5)
    assert found.points is not None
    assert found.points.shape == found.scores.shape == found.classes.shape == (0,)
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (33, 500), (1, 1), (999, 1000), (320, 320)])
@pytest.mark.parametrize("frame", [(320, 320), (192, 416)])
def test_letterbox_there_and_back(height: int, width: int, frame: tuple[int, int]) -> None:
    box = letterbox.fit(height, width, frame)
    image = letterbox.apply(np.zeros((height, width, 3), np.uint8), box)
    assert image.shape == (*frame, 3)
    rows, columns = np.nonzero((image == 0).all(-1))  # where the black image lies
    assert (rows.min(), columns.min()) == (box.top, box.left)
    assert (rows.max() + 1 - box.top, columns.max() + 1 - box.left) == (box.resized_height, box.resized_width)
    truths = np.array([[0, 0, width, height], [0.25 * width, 0.5 * height, 0.3 * width, 0.9 * height]], np.float32)
    np.testing.assert_allclose(box.inverse(box.forward(truths)), truths, atol=1e-3 * max(height, width) / 320)


def test_rectangle_is_the_smallest_multiple() -> None:
    assert letterbox.rectangle(480, 640, (320, 320), 32) == (256, 320)  # 240 rows need 256
    assert letterbox.rectangle(640, 480, (320, 320), 32) == (320, 256)
    assert letterbox.rectangle(10, 1000, (320, 320), 32) == (32, 320)
