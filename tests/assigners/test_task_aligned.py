"""The flat assigner against a dense one written as the paper has it, and the traps it is built to avoid."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gfldet.assigners import Assignment, Predictions, TaskAlignedAssigner, Truths
from gfldet.assigners.assignment import best_of_each
from gfldet.assigners.task_aligned import WORST, _one_sort, _two_sorts
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.ops import letterbox
from gfldet.ops.boxes import ltrb_to_xyxy, pairwise_iou, xyxy_to_ltrb
from gfldet.ops.points import anchor_points, grids

LEVELS = grids([(16, 16), (8, 8), (4, 4)], (8, 16, 32))
POINTS, STRIDES = anchor_points(LEVELS)
REACH = 15.0


def random_truths(count: int, images: int, seed: int, smallest: float = 20.0) -> Truths:
    """Boxes of at least `smallest` px inside 128 px, not all of one size."""
    generator = torch.Generator().manual_seed(seed)
    size = smallest + torch.rand(count, 2, generator=generator) * 60
    low = torch.rand(count, 2, generator=generator) * (128 - size)
    image = torch.randint(images, (count,), generator=generator)
    return Truths(torch.cat((low, low + size), 1), torch.randint(3, (count,), generator=generator), image)


def random_predictions(images: int, seed: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.rand(images, len(POINTS), 4, generator=generator) * 4 * STRIDES
    logits = torch.randn(images, len(POINTS), 3, generator=generator) * 2
    return Predictions(logits, ltrb_to_xyxy(POINTS, sides))


def dense(predictions: Predictions, truths: Truths, topk: int) -> dict[tuple[int, int], int]:
    """(image, point) -> truth, by full truths x points tables; random numbers leave no ties."""
    wanted: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for t, (box, label, image) in enumerate(zip(truths.boxes, truths.classes, truths.image, strict=True)):
        b = int(image)
        iou = pairwise_iou(box[None], predictions.boxes[b])[0]
        inside = xyxy_to_ltrb(POINTS, box).amin(-1) > 0
        metric = 0.5 * predictions.logits[b, :, label].sigmoid().log() + 6 * iou.clamp(min=1e-9).log()
        metric -= 1e-4 * (((box[:2] + box[2:]) / 2 - POINTS).abs().amax(-1) / STRIDES[:, 0])
        metric[~inside] = -math.inf
        for point in metric.argsort(descending=True)[: min(topk, int(inside.sum()))].tolist():
            wanted.setdefault((b, point), []).append((iou[point].item(), t))
    return {place: max(claims)[1] for place, claims in wanted.items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_pairs", [64, 1 << 19])
def test_equals_the_dense_reference(seed: int, max_pairs: int) -> None:
    truths, predictions = random_truths(30, 2, seed), random_predictions(2, seed + 100)
    found = TaskAlignedAssigner(topk=10, max_pairs=max_pairs)(predictions, truths, LEVELS, REACH)
    ours = {(i, p): t for i, p, t in zip(*(x.tolist() for x in (found.image, found.point, found.truth)), strict=True)}
    reference = dense(predictions, truths, 10)
    without = set(range(30)) - set(reference.values())
    given = {place for place, truth in ours.items() if truth in without}
    assert len(given) == len(without)  # one point each, and nothing else differs
    assert {place: truth for place, truth in ours.items() if place not in given} == {
        place: truth for place, truth in reference.items() if place not in given
    }
    pairs = pairwise_iou(truths.boxes, predictions.boxes.flatten(0, 1))
    expected = pairs[found.truth, found.image * len(POINTS) + found.point]
    torch.testing.assert_close(found.iou, expected)


def test_alignment_is_normalised_per_truth() -> None:
    found = TaskAlignedAssigner()(random_predictions(2, 1), random_truths(12, 2, 2), LEVELS, REACH)
    for t in found.truth.unique():
        mine = found.truth == t
        assert found.alignment[mine].max().item() == pytest.approx(found.iou[mine].max().item(), rel=1e-5)
    assert ((found.alignment >= 0) & (found.alignment <= 1)).all()


def one_truth(box: list[float], predictions: Predictions) -> Assignment:
    truths = Truths(torch.tensor([box]), torch.tensor([0]), torch.tensor([0]))
    return TaskAlignedAssigner()(predictions, truths, LEVELS, REACH)


def cold_start() -> Predictions:
    """Untrained: every box about 15 strides wide, every score at the prior."""
    boxes = ltrb_to_xyxy(POINTS, 7.5 * STRIDES.expand(-1, 4))[None]
    return Predictions(torch.full((1, len(POINTS), 3), -math.log(99)), boxes)


@pytest.mark.parametrize(
    "box",
    [
        [60.0, 60.0, 64.0, 64.0],  # smaller than a cell
        [61.0, 3.0, 62.0, 125.0],  # one pixel wide
        [0.0, 0.0, 6.0, 5.0],  # in the corner
        [124.0, 122.0, 128.0, 128.0],
        [0.0, 0.0, 128.0, 128.0],  # everything
        [40.0, 56.0, 56.0, 72.0],
    ],
)
def test_no_truth_is_without_points_at_cold_start(box: list[float]) -> None:
    found = one_truth(box, cold_start())
    assert len(found.point) > 0
    assert torch.isfinite(found.alignment).all()
    assert (found.alignment > 0).any()
    # The points lie inside the truth, or beside it if it is narrower than two cells.
    sides = xyxy_to_ltrb(POINTS[found.point], torch.tensor([box]))
    assert (sides > -8).all()


def test_many_small_truths_at_cold_start_all_have_points() -> None:
    corner = torch.arange(0, 128, 16.0)
    low = torch.stack(torch.meshgrid(corner, corner, indexing="ij"), -1).reshape(-1, 2) + 5
    truths = Truths(
        torch.cat((low, low + 6), 1), torch.zeros(64, dtype=torch.int64), torch.zeros(64, dtype=torch.int64)
    )
    found = TaskAlignedAssigner()(cold_start(), truths, LEVELS, REACH)
    assert found.truth.unique().tolist() == list(range(64))


def test_of_truths_in_one_place_none_is_left_out() -> None:
    """Up to six equal boxes around five points: one each, none for the sixth.  Beside them one that is safe."""
    box, alone = [32.5, 32.5, 47.5, 47.5], [80.0, 80.0, 88.0, 88.0]
    points = ((POINTS > 32.5) & (POINTS < 47.5)).all(1).nonzero().squeeze(1)
    assert len(points) == 5  # four of stride 8, one of stride 16
    for count in (2, 3, 5, 6):
        truths = Truths(
            torch.tensor([box] * count + [alone]),
            torch.zeros(count + 1, dtype=torch.int64),
            torch.zeros(count + 1).long(),
        )
        found = TaskAlignedAssigner()(cold_start(), truths, LEVELS, REACH)
        assert len(found.point.unique()) == len(found.point)
        assert len(found.truth.unique()) == min(count, 5) + 1
        assert torch.isin(points, found.point).all()


@pytest.mark.parametrize(
    "name",
    ["shapes-small", *(pytest.param(f"shapes-{one}", marks=pytest.mark.long) for one in ("dense", "thin", "huge"))],
)
def test_no_truth_of_the_hard_sets_is_without_a_point(name: str) -> None:
    """From random weights on: boxes of about one size and scores at the prior, and boxes and scores of any kind."""
    levels = grids([(320 // s, 320 // s) for s in (8, 16, 32)], (8, 16, 32))
    points, strides = anchor_points(levels)
    split = load_split(load_spec(name), "val")
    generator = torch.Generator().manual_seed(0)
    for record in split.records[:3]:
        boxes = torch.from_numpy(letterbox.fit(record.height, record.width, (320, 320)).forward(record.boxes))
        truths = Truths(boxes, torch.from_numpy(record.classes), torch.zeros(len(boxes), dtype=torch.int64))
        cold = torch.full((1, len(points), len(split.names)), -4.6)
        spread = torch.randn(cold.shape, generator=generator)
        sides = torch.rand(1, len(points), 4, generator=generator) * 4 * strides
        for predictions in (
            Predictions(cold, ltrb_to_xyxy(points, 7.5 * strides.expand(-1, 4))[None]),
            Predictions(spread, ltrb_to_xyxy(points, sides)),
        ):
            found = TaskAlignedAssigner()(predictions, truths, levels, REACH)
            assert len(found.truth.unique()) == len(boxes)
            assert len(found.point.unique()) == len(found.point)


def test_a_point_claimed_twice_goes_to_the_higher_iou() -> None:
    predictions = cold_start()
    point = int((POINTS - 60).abs().sum(1)[:256].argmin())
    predictions.boxes[0, point] = torch.tensor([40.0, 40.0, 80.0, 80.0])
    boxes = torch.tensor([[40.0, 40.0, 80.0, 82.0], [40.0, 40.0, 80.0, 100.0]])
    truths = Truths(boxes, torch.tensor([0, 0]), torch.tensor([0, 0]))
    found = TaskAlignedAssigner()(predictions, truths, LEVELS, REACH)
    assert found.truth[found.point == point].tolist() == [0]
    assert len(found.point) == len(set(found.point.tolist()))


def test_points_out_of_reach_stand_back() -> None:
    # 128 px wide: with 3 strides of reach only the stride-32 points near the middle reach all sides.
    truths = Truths(torch.tensor([[0.0, 0.0, 128.0, 128.0]]), torch.tensor([0]), torch.tensor([0]))
    near = TaskAlignedAssigner()(cold_start(), truths, LEVELS, reach=3.0)
    assert near.reachable.all()
    assert set(STRIDES[near.point, 0].tolist()) == {32.0}
    none = TaskAlignedAssigner()(cold_start(), truths, LEVELS, reach=1.0)
    assert len(none.point) > 0
    assert not none.reachable.any()


def test_background_alone() -> None:
    nothing = Truths(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    found = TaskAlignedAssigner()(random_predictions(2, 0), nothing, LEVELS, REACH)
    assert all(len(getattr(found, name)) == 0 for name in found.__slots__)


def test_truths_outside_the_frame_are_left_alone() -> None:
    truths = Truths(torch.tensor([[500.0, 500.0, 520.0, 520.0]]), torch.tensor([0]), torch.tensor([0]))
    assert len(TaskAlignedAssigner()(cold_start(), truths, LEVELS, REACH).point) == 0


def test_classes_belong_to_their_own_image() -> None:
    truths = random_truths(20, 3, 7)
    found = TaskAlignedAssigner()(random_predictions(3, 8), truths, LEVELS, REACH)
    assert torch.equal(found.image, truths.image[found.truth])


def test_gives_no_gradient() -> None:
    predictions = random_predictions(1, 0)
    logits: Tensor = predictions.logits.requires_grad_()
    found = TaskAlignedAssigner()(Predictions(logits, predictions.boxes), random_truths(4, 1, 0), LEVELS, REACH)
    assert not found.alignment.requires_grad
    assert not found.iou.requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["boxes", "logits", "both"])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_predictions_that_are_no_numbers_rank_last_and_end(bad: float, where: str, share: float) -> None:
    """Dense truths, so that some are given a point back; NaN neither loops nor takes a point from a number."""
    predictions, truths = random_predictions(2, 3), random_truths(120, 2, 4)
    spoilt = torch.rand(predictions.boxes.shape[:2], generator=torch.Generator().manual_seed(0)) < share
    boxes, logits = predictions.boxes.clone(), predictions.logits.clone()
    if where != "logits":
        boxes[spoilt] = bad
    if where != "boxes":
        logits[spoilt] = bad
    found = TaskAlignedAssigner()(Predictions(logits, boxes), truths, LEVELS, REACH)
    whole = TaskAlignedAssigner()(predictions, truths, LEVELS, REACH)
    place = found.image * boxes.shape[1] + found.point
    assert len(place.unique()) == len(place)
    assert len(found.truth.unique()) == len(whole.truth.unique())  # no truth more is left out
    if share < 1 and where == "boxes" and bad != bad:
        mine = ~spoilt[found.image, found.point]
        assert mine.float().mean() > 0.9  # points with a number come first


def test_the_best_of_claims_that_are_no_numbers() -> None:
    nan = float("nan")
    group, claims = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([nan, 1.0, nan, nan, -torch.inf])
    assert best_of_each(group, 4, [claims]).tolist() == [1, 2, 4]
    second = torch.tensor([0.0, 0.0, 1.0, 2.0, nan])
    assert best_of_each(group, 4, [claims, second]).tolist() == [1, 3, 4]


def test_the_best_among_some() -> None:
    group, claims = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([5.0, 1.0, 2.0, 3.0, 4.0])
    among = torch.tensor([False, True, True, False, False])
    assert best_of_each(group, 4, [claims], among).tolist() == [1, 2]


class Filled(TaskAlignedAssigner):
    """As on a GPU: the number of pairs is filled up."""

    def _portions(self, device: torch.device) -> tuple[int, int]:
        return 1000, 701


@pytest.mark.parametrize("count", [1, 7, 60])
def test_what_fills_the_pairs_up_changes_nothing(count: int) -> None:
    truths, predictions = random_truths(count, 2, count), random_predictions(2, count)
    plain = TaskAlignedAssigner()(predictions, truths, LEVELS, REACH)
    filled = Filled()(predictions, truths, LEVELS, REACH)
    for name in Assignment.__slots__:
        assert torch.equal(getattr(plain, name), getattr(filled, name))


def test_the_order_without_float64_is_the_same() -> None:
    """Apple's GPUs have no float64; equal pairs keep their order."""
    truth = torch.randint(50, (3000,)).sort().values
    metric = torch.randn(3000).mul(20).round()
    metric[::40] = WORST
    assert torch.equal(_two_sorts(truth, metric), _one_sort(truth, metric))
    assert _two_sorts(torch.tensor([1, 0, 0]), torch.tensor([5.0, 1.0, 2.0])).tolist() == [2, 1, 0]
