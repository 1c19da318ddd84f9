"""Box conversions and overlaps against hand-worked numbers and torchvision's own."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import complete_box_iou, distance_box_iou, generalized_box_iou

from gfldet.ops import boxes as ops


def random_boxes(n: int, seed: int) -> torch.Tensor:
    low = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 50
    size = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed + 1)) * 40 + 1
    return torch.cat((low, low + size), dim=1)


def test_conversions_by_hand() -> None:
    assert ops.xyxy_to_xywh(torch.tensor([[2.0, 4.0, 8.0, 14.0]])).tolist() == [[5, 9, 6, 10]]
    assert ops.xywh_to_xyxy(torch.tensor([[5.0, 9.0, 6.0, 10.0]])).tolist() == [[2, 4, 8, 14]]
    point = torch.tensor([[5.0, 5.0]])
    assert ops.xyxy_to_ltrb(point, torch.tensor([[2.0, 4.0, 8.0, 14.0]])).tolist() == [[3, 1, 3, 9]]
    assert ops.ltrb_to_xyxy(point, torch.tensor([[3.0, 1.0, 3.0, 9.0]])).tolist() == [[2, 4, 8, 14]]


def test_conversions_invert_each_other() -> None:
    boxes = random_boxes(50, 0)
    points = torch.rand(50, 2) * 100
    torch.testing.assert_close(ops.xywh_to_xyxy(ops.xyxy_to_xywh(boxes)), boxes)
    torch.testing.assert_close(ops.ltrb_to_xyxy(points, ops.xyxy_to_ltrb(points, boxes)), boxes)


def test_iou_by_hand() -> None:
    # Two 2 x 2 squares that share a 1 x 1 corner: 1 / (4 + 4 - 1); their hull is 3 x 3.
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    assert ops.aligned_iou(a, b).item() == pytest.approx(1 / 7, abs=1e-6)
    assert ops.aligned_iou(a, b, "giou").item() == pytest.approx(1 / 7 - 2 / 9, abs=1e-6)
    assert ops.aligned_iou(a, b, "diou").item() == pytest.approx(1 / 7 - 2 / 18, abs=1e-6)
    assert ops.aligned_iou(a, b, "ciou").item() == pytest.approx(1 / 7 - 2 / 18, abs=1e-6)  # same aspect ratio


def test_ciou_aspect_term_by_hand() -> None:
    # 4 x 1 inside 4 x 4, same centre: IoU 1/4, v = 4 / pi^2 (atan 4 - atan 1)^2, alpha = v / (v - IoU + 1).
    wide, square = torch.tensor([[0.0, 1.5, 4.0, 2.5]]), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    v = 4 / math.pi**2 * (math.atan(4) - math.atan(1)) ** 2
    expected = 0.25 - v * v / (v - 0.25 + 1)
    assert ops.aligned_iou(wide, square, "ciou").item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "reference"),
    [("giou", generalized_box_iou), ("diou", distance_box_iou), ("ciou", complete_box_iou)],
)
def test_parity_with_torchvision(kind: ops.IoUKind, reference) -> None:  # type: ignore[no-untyped-def]
    a, b = random_boxes(200, 2), random_boxes(200, 4)
    torch.testing.assert_close(ops.aligned_iou(a, b, kind), reference(a, b).diagonal(), atol=1e-5, rtol=1e-5)


def test_pairwise_is_aligned_over_all_pairs() -> None:
    a, b = random_boxes(7, 6), random_boxes(5, 8)
    pairs = ops.pairwise_iou(a, b)
    assert pairs.shape == (7, 5)
    assert pairs[3, 2].item() == pytest.approx(ops.aligned_iou(a[3:4], b[2:3]).item())


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_identity_and_degenerate_boxes(kind: ops.IoUKind) -> None:
    boxes = random_boxes(20, 10)
    torch.testing.assert_close(ops.aligned_iou(boxes, boxes, kind), torch.ones(20), atol=1e-5, rtol=0)
    empty = torch.zeros(1, 4, requires_grad=True)
    value = ops.aligned_iou(empty, torch.tensor([[0.0, 0.0, 5.0, 5.0]]), kind)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert empty.grad is not None
    assert torch.isfinite(empty.grad).all()
    assert ops.aligned_iou(torch.zeros(0, 4), torch.zeros(0, 4), kind).shape == (0,)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
def test_gradients_of_overlapping_boxes(kind: ops.IoUKind) -> None:
    a = torch.tensor([[0.0, 0.0, 4.0, 3.0], [1.0, 1.0, 6.0, 9.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0, 1.2, 5.0, 5.0], [0.0, 2.0, 4.5, 7.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ops.aligned_iou(x, b, kind), (a,))
