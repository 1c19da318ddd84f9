"""ATSS and FCOS against dense references written as the papers have them, and what holds for every assigner."""

from __future__ import annotations

import math

import pytest
import torch

from gfldet.assigners import Assigner, ATSSAssigner, FCOSAssigner, Predictions, TaskAlignedAssigner, Truths
from gfldet.ops.boxes import ltrb_to_xyxy, pairwise_iou, xyxy_to_ltrb
from gfldet.ops.points import anchor_points, grids

LEVELS = grids([(32, 32), (16, 16), (8, 8)], (8, 16, 32))
POINTS, STRIDES = anchor_points(LEVELS)
ASSIGNERS: dict[str, Assigner] = {"tal": TaskAlignedAssigner(), "atss": ATSSAssigner(), "fcos": FCOSAssigner()}


def some_truths(count: int, images: int, seed: int) -> Truths:
    """Boxes of 20 to 140 px inside 256 px."""
    generator = torch.Generator().manual_seed(seed)
    size = 20 + torch.rand(count, 2, generator=generator) * 120
    low = torch.rand(count, 2, generator=generator) * (256 - size)
    image = torch.randint(images, (count,), generator=generator)
    return Truths(torch.cat((low, low + size), 1), torch.randint(3, (count,), generator=generator), image)


def some_predictions(images: int) -> Predictions:
    boxes = ltrb_to_xyxy(POINTS, 2 * STRIDES.expand(-1, 4)).expand(images, -1, -1).clone()
    return Predictions(torch.zeros(images, len(POINTS), 3), boxes)


def dense_atss(truths: Truths) -> dict[tuple[int, int], int]:
    """Algorithm 1 of the paper, truth by truth over all points."""
    wanted: dict[tuple[int, int], list[tuple[float, int]]] = {}
    prior = torch.cat((POINTS - 4 * STRIDES, POINTS + 4 * STRIDES), 1)
    for t, (box, image) in enumerate(zip(truths.boxes, truths.image, strict=True)):
        distance = ((box[:2] + box[2:]) / 2 - POINTS).square().sum(1)
        candidates = torch.cat(
            [level.start + distance[level.start : level.start + level.count].argsort()[:9] for level in LEVELS]
        )
        overlap = pairwise_iou(box[None], prior[candidates])[0]
        good = (overlap >= overlap.mean() + overlap.std()) & (xyxy_to_ltrb(POINTS[candidates], box).amin(1) > 0)
        for point, iou in zip(candidates[good].tolist(), overlap[good].tolist(), strict=True):
            wanted.setdefault((int(image), point), []).append((iou, t))
    return {place: max(claims)[1] for place, claims in wanted.items()}


def dense_fcos(truths: Truths) -> dict[tuple[int, int], int]:
    wanted: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for t, (box, image) in enumerate(zip(truths.boxes, truths.image, strict=True)):
        sides = xyxy_to_ltrb(POINTS, box)
        near = ((box[:2] + box[2:]) / 2 - POINTS).abs().amax(1) < 1.5 * STRIDES[:, 0]
        far = sides.amax(1)
        low = torch.where(STRIDES[:, 0] == 8, 0, 4 * STRIDES[:, 0])
        high = torch.where(STRIDES[:, 0] == 32, math.inf, 8 * STRIDES[:, 0])
        size = float((box[2] - box[0]) * (box[3] - box[1]))
        for point in ((sides.amin(1) > 0) & near & (far > low) & (far <= high)).nonzero()[:, 0].tolist():
            wanted.setdefault((int(image), point), []).append((-size, t))
    return {place: max(claims)[1] for place, claims in wanted.items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "dense"), [("atss", dense_atss), ("fcos", dense_fcos)])
def test_equals_the_dense_reference(name: str, dense, seed: int) -> None:  # type: ignore[no-untyped-def]
    truths, predictions = some_truths(8, 2, seed), some_predictions(2)
    found = ASSIGNERS[name](predictions, truths, LEVELS, 15.0)
    ours = {(i, p): t for i, p, t in zip(*(x.tolist() for x in (found.image, found.point, found.truth)), strict=True)}
    expected = dense(truths)
    served = set(expected.values())
    # A truth that the paper's rule leaves without a point takes one here; nothing else differs.
    assert {place: t for place, t in ours.items() if t in served or place in expected} == expected
    iou = pairwise_iou(truths.boxes, predictions.boxes.flatten(0, 1))
    torch.testing.assert_close(found.iou, iou[found.truth, found.image * len(POINTS) + found.point])
    assert torch.equal(found.alignment, torch.ones(len(found.point)))


@pytest.mark.parametrize("name", ASSIGNERS)
@pytest.mark.parametrize(
    "box",
    [
        [60.0, 60.0, 63.0, 63.0],
        [0.0, 0.0, 5.0, 4.0],  # in the corner
        [250.0, 251.0, 256.0, 256.0],
        [10.0, 100.0, 250.0, 104.0],  # long and thin
        [100.0, 3.0, 102.0, 250.0],
        [0.0, 0.0, 256.0, 256.0],
    ],
)
def test_every_truth_has_a_point(name: str, box: list[float]) -> None:
    truths = Truths(torch.tensor([box]), torch.tensor([0]), torch.tensor([0]))
    found = ASSIGNERS[name](some_predictions(1), truths, LEVELS, 15.0)
    assert len(found.point) > 0
    assert len(found.point) == len(set(found.point.tolist()))


@pytest.mark.parametrize("name", ASSIGNERS)
def test_background_alone(name: str) -> None:
    nothing = Truths(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    found = ASSIGNERS[name](some_predictions(2), nothing, LEVELS, 15.0)
    assert all(len(getattr(found, field)) == 0 for field in found.__slots__)


@pytest.mark.parametrize("name", ASSIGNERS)
def test_a_point_serves_one_truth_of_its_own_image(name: str) -> None:
    truths = some_truths(40, 3, 7)
    found = ASSIGNERS[name](some_predictions(3), truths, LEVELS, 15.0)
    assert torch.equal(found.image, truths.image[found.truth])
    places = list(zip(found.image.tolist(), found.point.tolist(), strict=True))
    assert len(places) == len(set(places))


@pytest.mark.parametrize("name", ["atss", "fcos"])
def test_levels_smaller_than_the_window(name: str) -> None:
    levels = grids([(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)], (8, 16, 32, 64, 128))
    points, strides = anchor_points(levels)
    boxes = ltrb_to_xyxy(points, strides.expand(-1, 4))[None]
    truths = Truths(
        torch.tensor([[0.0, 0.0, 96.0, 64.0], [90.0, 60.0, 96.0, 64.0]]), torch.zeros(2).long(), torch.zeros(2).long()
    )
    found = ASSIGNERS[name](Predictions(torch.zeros(1, len(points), 1), boxes), truths, levels, 15.0)
    assert set(found.truth.tolist()) == {0, 1}
    assert found.point.max() < len(points)


@pytest.mark.parametrize("name", ["atss", "fcos"])
def test_memory_goes_with_the_truths(name: str) -> None:
    """Thousands of truths in an image: no table of truths by points."""
    found = ASSIGNERS[name](some_predictions(1), some_truths(5000, 1, 0), LEVELS, 15.0)
    assert 0 < len(found.point) <= len(POINTS)


@pytest.mark.parametrize("name", ["atss", "fcos"])
def test_what_the_bins_cannot_reach_is_marked(name: str) -> None:
    truths = Truths(torch.tensor([[0.0, 0.0, 256.0, 256.0]]), torch.tensor([0]), torch.tensor([0]))
    assert not ASSIGNERS[name](some_predictions(1), truths, LEVELS, 2.0).reachable.any()
    assert ASSIGNERS[name](some_predictions(1), truths, LEVELS, math.inf).reachable.all()
