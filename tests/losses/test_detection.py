"""The criterion: splitting maps, positives and background, ignore regions, background alone, it learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gfldet.losses.detection import CLASS_LOSSES, Gains, v8DetectionLoss
from gfldet.ops.boxes import aligned_iou
from gfldet.ops.decode import integral, split_maps

NC, R, STRIDES = 3, 16, (8, 16, 32)
NOTHING = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}


def random_maps(images: int = 2, side: int = 128, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, 4 * R + NC, side // s, side // s, generator=generator).requires_grad_() for s in STRIDES
    ]


def some_truths() -> dict[str, Tensor]:
    return {
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
        "cls": torch.tensor([[0.0], [2.0], [1.0]]),
        "bboxes": torch.tensor([[0.3, 0.3, 0.2, 0.3], [0.7, 0.6, 0.3, 0.3], [0.5, 0.5, 0.9, 0.8]]),
    }


def test_split_puts_every_number_where_it_belongs() -> None:
    maps = random_maps()
    head = split_maps(maps, R, STRIDES)
    assert head.bins.shape == (2, 256 + 64 + 16, 4, R)
    assert head.logits.shape == (2, 336, NC)
    at = 256 + 2 * 8 + 5  # level 1, row 2, column 5
    assert head.points[at].tolist() == [88, 40]
    assert torch.equal(head.bins[1, at, 2], maps[1][1, 2 * R : 3 * R, 2, 5])
    assert torch.equal(head.logits[1, at], maps[1][1, 4 * R :, 2, 5])


def test_decoding_by_hand() -> None:
    maps = [torch.zeros(1, 4 * R + NC, 128 // s, 128 // s) for s in STRIDES]
    boxes = split_maps(maps, R, STRIDES).boxes()  # even bins: 7.5 strides to every side
    assert boxes[0, 0].tolist() == [4 - 60, 4 - 60, 4 + 60, 4 + 60]


def test_background_alone_has_a_finite_loss_and_gradient() -> None:
    maps = random_maps()
    found = v8DetectionLoss(NC, R, STRIDES)(maps, NOTHING)
    found.total.backward()
    assert torch.isfinite(found.total)
    assert found.items[[0, 2]].tolist() == [0, 0]
    for m in maps:
        assert m.grad is not None
        assert torch.isfinite(m.grad).all()
        assert m.grad[:, 4 * R :].abs().sum() > 0  # the scores learn that there is nothing
        assert m.grad[:, : 4 * R].abs().sum() == 0


def test_gains_scale_their_parts() -> None:
    maps, batch = random_maps(), some_truths()
    one = v8DetectionLoss(NC, R, STRIDES, Gains(1, 1, 1))(maps, batch).items
    other = v8DetectionLoss(NC, R, STRIDES, Gains(2, 3, 5))(maps, batch).items
    torch.testing.assert_close(other, one * torch.tensor([2.0, 3.0, 5.0]))


def test_no_loss_inside_ignore_regions() -> None:
    maps = random_maps()
    batch = {**some_truths(), "ignore_idx": torch.tensor([1]), "ignore_bboxes": torch.tensor([[0.25, 0.25, 0.5, 0.5]])}
    batch["batch_idx"], batch["cls"], batch["bboxes"] = (batch[k][:2] for k in ("batch_idx", "cls", "bboxes"))
    v8DetectionLoss(NC, R, STRIDES)(maps, batch).total.backward()
    grad = maps[0].grad
    assert grad is not None
    assert grad[1, 4 * R :, :8, :8].abs().sum() == 0  # inside the region of image 1
    assert (grad[1, 4 * R :, 8:, 8:].abs() > 0).all()
    assert (grad[0, 4 * R :, :8, :8].abs() > 0).all()  # image 0 has no such region


@pytest.mark.parametrize("cls_loss", CLASS_LOSSES)
def test_background_beside_ignore_regions_is_learnt(cls_loss: str) -> None:
    """By hand: 84 points of an image without truths, one class, an ignored upper half that scores high.

    The lower half holds 42 points: 32 of stride 8, 8 of 16, 2 of 32.  The loss of each is that of logit 0, target 0.
    Mining keeps 16 of them, as there are no positives.
    """
    maps = [torch.zeros(1, 4 * R + 1, 64 // s, 64 // s) for s in STRIDES]
    for m in maps:
        m[:, 4 * R, : m.shape[2] // 2] = 6.0  # unlabelled objects
        m.requires_grad_()
    batch = {**NOTHING, "ignore_idx": torch.tensor([0]), "ignore_bboxes": torch.tensor([[0.5, 0.25, 1.0, 0.5]])}
    found = v8DetectionLoss(1, R, STRIDES, Gains(cls=1.0), cls_loss=cls_loss)(maps, batch)
    found.total.backward()
    learnt = [torch.count_nonzero(m.grad[0, 4 * R]).item() for m in maps if m.grad is not None]
    assert all(m.grad is not None and not m.grad[0, 4 * R, : m.shape[2] // 2].any() for m in maps)
    one = {
        "qfl": (0.1 + 0.5) * math.log(2),
        "vfl": 0.75 * 0.25 * math.log(2),
        "bce": math.log(2),
        "focal": 0.75 * 0.25 * math.log(2),
        "ohem": math.log(2),
    }[cls_loss]
    assert sum(learnt) == (16 if cls_loss == "ohem" else 42)
    assert found.total.item() == pytest.approx(sum(learnt) * one, rel=1e-5)


def test_a_truth_inside_an_ignore_region_still_counts() -> None:
    maps = random_maps()
    batch = {**some_truths(), "ignore_idx": torch.tensor([0]), "ignore_bboxes": torch.tensor([[0.5, 0.5, 1.0, 1.0]])}
    v8DetectionLoss(NC, R, STRIDES)(maps, batch).total.backward()
    grad = maps[0].grad
    assert grad is not None
    assert grad[0, : 4 * R].abs().sum() > 0


def test_unreachable_truths_teach_no_clipped_bins() -> None:
    maps = random_maps(1, 128)
    batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1), "bboxes": torch.tensor([[0.5, 0.5, 1.0, 1.0]])}
    few = [m[:, : 4 * 2 + NC].detach().clone().requires_grad_() for m in maps]  # two bins reach one stride
    assert v8DetectionLoss(NC, 2, STRIDES)(few, batch).items[2].item() == 0
    assert v8DetectionLoss(NC, R, STRIDES)(maps, batch).items[2].item() > 0


def test_free_maps_fit_their_truths() -> None:
    """Optimising the maps themselves drives boxes onto the truths and scores towards their IoU."""
    torch.manual_seed(0)
    maps, batch = [m.detach().requires_grad_() for m in random_maps()], some_truths()
    criterion = v8DetectionLoss(NC, R, STRIDES)
    optimizer = torch.optim.Adam(maps, lr=0.3)
    for _ in range(50):
        optimizer.zero_grad()
        criterion(maps, batch).total.backward()
        optimizer.step()
    head = split_maps(maps, R, STRIDES)
    scores, best = head.logits[0, :, 0].sigmoid().max(0)
    truth = torch.tensor([0.2, 0.15, 0.4, 0.45]) * 128
    iou = aligned_iou(head.boxes()[0, best][None], truth[None]).item()
    assert iou > 0.95
    assert scores.item() == pytest.approx(iou, abs=0.15)  # QFL pulls less the nearer it is
    assert integral(head.bins).max() <= R - 1


@pytest.mark.parametrize(
    ("size", "reg_max", "reached"), [(640, 16, True), (1280, 22, True), (1280, 1, True), (1280, 16, False)]
)
def test_a_full_frame_box_needs_the_bins_that_are_suggested(size: int, reg_max: int, reached: bool) -> None:
    """Fitted by its maps, a box as large as the frame has an IoU of .95 where the bins reach, and not elsewhere."""
    strides = (32,)
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(1, 4 * reg_max + 1, size // s, size // s, generator=generator).requires_grad_() for s in strides
    ]
    batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1), "bboxes": torch.tensor([[0.5, 0.5, 1.0, 1.0]])}
    criterion = v8DetectionLoss(1, reg_max, strides)
    optimizer = torch.optim.Adam(maps, lr=1.0)
    for _ in range(30):
        optimizer.zero_grad()
        criterion(maps, batch).total.backward()
        optimizer.step()
    head = split_maps(maps, reg_max, strides)
    best = head.logits[0, :, 0].argmax()
    iou = aligned_iou(head.boxes()[0, best][None], torch.tensor([[0.0, 0.0, size, size]])).item()
    assert (iou >= 0.95) == reached, iou


def test_boxes_in_px_give_the_same_loss_as_normalised_ones() -> None:
    batch = {**some_truths(), "ignore_idx": torch.tensor([1]), "ignore_bboxes": torch.tensor([[0.2, 0.2, 0.4, 0.4]])}
    corners = {
        "boxes_px": torch.tensor([[25.6, 19.2, 51.2, 57.6], [70.4, 57.6, 108.8, 96.0], [6.4, 12.8, 121.6, 115.2]]),
        "ignore_px": torch.tensor([[0.0, 0.0, 51.2, 51.2]]),
    }
    ours = {name: value for name, value in batch.items() if name not in ("bboxes", "ignore_bboxes")} | corners
    criterion = v8DetectionLoss(NC, R, STRIDES)
    found = [criterion(random_maps(), one) for one in (batch, ours, {**batch, **corners})]
    torch.testing.assert_close(found[0].items, found[1].items, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[1].items, found[2].items)
    without = criterion(random_maps(), some_truths())
    assert not torch.equal(without.items, found[0].items)  # the region bears on it
