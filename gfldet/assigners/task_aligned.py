"""Task-aligned assignment over flat (truth, point) pairs.

Only a point inside a truth can be positive for it, so only these pairs are built.  The points inside a box form a
rectangle of cells on each level, and the box divided by the stride gives its corners.  Time and memory grow with the
number of pairs.  Pairs are handled in chunks of whole truths, so memory stays bounded in dense images too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gfldet.assigners.assignment import Assignment, Predictions, Truths, best_of_each, no_positives
from gfldet.ops.boxes import aligned_iou, xyxy_to_ltrb
from gfldet.ops.points import Grid, anchor_points


@dataclass(frozen=True, slots=True)
class _Anchors:
    """All anchor points: `points` (A, 2) in pixels and `strides` (A, 1); `reach` is the longest side that the bins
    express, in strides."""

    points: Tensor
    strides: Tensor
    reach: float


WORST = -1e5  # log metric below any of finite predictions, and small beside the distance of truths in `_topk_per_truth`


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Candidate pairs: truth (P,), point (P,), log metric (P,), plain IoU (P,), reachable (P,)."""

    truth: Tensor
    point: Tensor
    metric: Tensor
    iou: Tensor
    reachable: Tensor

    def take(self, index: Tensor) -> _Pairs:
        return _Pairs(self.truth[index], self.point[index], self.metric[index], self.iou[index], self.reachable[index])


@dataclass(frozen=True, slots=True)
class TaskAlignedAssigner:
    """TAL (Feng et al., TOOD, ICCV 2021) with changes for its cold start under quality focal loss.

    The metric of a pair is m = score^alpha * IoU^beta.  Each truth takes its `topk` best points.  A point that several
    truths take goes to the truth that its predicted box overlaps most.  Departures from the paper, each with its
    reason:

    - The metric is in log space, without an absolute epsilon: at initialisation IoU^6 of a small truth is about 1e-9,
      and an epsilon would make all its pairs equal.
    - The overlap is plain IoU, not CIoU: CIoU is negative for thin truths, and clamping would make their pairs equal.
    - If pairs are equal, the point nearer to the truth's centre wins (by a term much smaller than real differences of
      log m).
    - For the choice of candidates, a truth narrower than two cells of the finest level is grown to that size, so every
      truth has candidates.
    - A truth that lost all its points to others, as happens in dense images, gets one back (`_none_left_out`).
    - A point from which the bins cannot reach all four sides is marked, and used only if its truth has no other.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    max_pairs: int = 1 << 17
    ranks: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truths: Truths, levels: Sequence[Grid], reach: float) -> Assignment:
        """See `assignment.Assigner`."""
        anchors = _Anchors(*anchor_points(levels, predictions.boxes.device), reach)
        best = [
            _topk_per_truth(self._measure(predictions, truths, anchors, truth, point), counts, self.topk)
            for truth, point, counts in _candidates(truths.boxes, levels, self.max_pairs)
        ]
        if not best:
            return no_positives(predictions.boxes)
        pairs = _joined(best)
        images, count = predictions.boxes.shape[:2]
        place = truths.image[pairs.truth] * count + pairs.point
        kept = best_of_each(place, images * count, (pairs.iou, pairs.metric))
        pairs = pairs.take(_none_left_out(pairs, place, kept, images * count, len(truths.boxes)))
        return Assignment(
            image=truths.image[pairs.truth],
            point=pairs.point,
            truth=pairs.truth,
            iou=pairs.iou,
            alignment=_normalised(pairs, len(truths.boxes)),
            reachable=pairs.reachable,
        )

    def _measure(
        self, predictions: Predictions, truths: Truths, anchors: _Anchors, truth: Tensor, point: Tensor
    ) -> _Pairs:
        """The log metric and IoU of the pairs of `truth` (P,) and `point` (P,)."""
        image, box, at = truths.image[truth], truths.boxes[truth], anchors.points[point]
        stride = anchors.strides[point, 0]
        iou = aligned_iou(predictions.boxes[image, point].float(), box)
        logit = predictions.logits[image, point, truths.classes[truth]].float()
        sides = xyxy_to_ltrb(at, box)
        reachable = sides.amax(-1) <= anchors.reach * stride
        offset = ((box[:, :2] + box[:, 2:]) / 2 - at).abs().amax(-1) / stride
        metric = self.alpha * F.logsigmoid(logit) + self.beta * iou.clamp(min=1e-9).log()
        # The distance only breaks ties.  An unreachable pair ranks below every reachable one.
        metric = metric - 1e-4 * offset - torch.where(reachable, 0.0, 1e4)
        # What a spoilt head says (NaN, infinite) ranks last; the criterion makes a loss of it that is not finite.
        metric = metric.nan_to_num(nan=WORST, neginf=WORST).clamp(min=WORST)
        return _Pairs(truth, point, metric, iou, reachable)


def _joined(parts: Sequence[_Pairs]) -> _Pairs:
    return _Pairs(
        truth=torch.cat([part.truth for part in parts]),
        point=torch.cat([part.point for part in parts]),
        metric=torch.cat([part.metric for part in parts]),
        iou=torch.cat([part.iou for part in parts]),
        reachable=torch.cat([part.reachable for part in parts]),
    )


def _candidates(boxes: Tensor, levels: Sequence[Grid], max_pairs: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pairs (truth (P,), point (P,)) of points inside the boxes (N, 4), truth by truth, about `max_pairs` at a time,
    each time with the number of pairs of each of these truths (n,)."""
    if not len(boxes):
        return
    smallest = 2.0 * min(level.stride for level in levels)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=smallest / 2)
    low, high = centre - half, centre + half
    cells = torch.stack([_cells_inside(low, high, level) for level in levels])  # (levels, N, 4)
    counts = (cells[..., 2] * cells[..., 3]).T  # (N, levels)
    of_each = counts.sum(1)
    ends = of_each.cumsum(0).tolist()
    start = 0
    for _, truths in groupby(ends, lambda end: (end - 1) // max_pairs):
        stop = start + len(list(truths))
        pairs = ends[stop - 1] - (ends[start - 1] if start else 0)
        yield *_expand(cells[:, start:stop], counts[start:stop], pairs, levels, start), of_each[start:stop]
        start = stop


def _cells_inside(low: Tensor, high: Tensor, level: Grid) -> Tensor:
    """First column, first row, columns and rows (N, 4) int64 of the cells whose points lie inside the boxes."""
    limit = _row((level.width, level.height), low.device)
    first = (low / level.stride - 0.5).floor().long().add(1).clamp(min=0)
    last = (high / level.stride - 0.5).ceil().long().sub(1)
    size = (torch.minimum(last, limit - 1) - first + 1).clamp(min=0)
    return torch.cat((first, size), dim=-1)


def _row(numbers: Iterable[int], device: torch.device) -> Tensor:
    """Whole numbers (n,) on a device, filled in there: to copy them would make a GPU wait."""
    return torch.cat([torch.full((1,), number, device=device) for number in numbers])


def _expand(
    cells: Tensor, counts: Tensor, pairs: int, levels: Sequence[Grid], first_truth: int
) -> tuple[Tensor, Tensor]:
    """Rectangles of cells (levels, n, 4) with their counts (n, levels), `pairs` in all -> every pair in them, truth by
    truth."""
    flat = counts.reshape(-1)
    group = torch.repeat_interleave(torch.arange(len(flat), device=cells.device), flat, output_size=pairs)
    inside = torch.arange(len(group), device=cells.device) - (flat.cumsum(0) - flat)[group]
    column, row, width, _ = cells.transpose(0, 1).reshape(-1, 4)[group].unbind(1)
    start = _row((level.start for level in levels), cells.device)
    across = _row((level.width for level in levels), cells.device)
    truth, level = group.div(len(levels), rounding_mode="floor"), group % len(levels)
    down = inside.div(width, rounding_mode="floor")
    point = start[level] + (row + down) * across[level] + column + inside - down * width
    return truth + first_truth, point


def _topk_per_truth(pairs: _Pairs, counts: Tensor, k: int) -> _Pairs:
    """The k best pairs of each truth by metric; pairs are grouped by truth, before and after, then best first.

    `counts` (n,) is the number of pairs of each truth.
    """
    order = (_two_sorts if pairs.metric.device.type == "mps" else _one_sort)(pairs.truth, pairs.metric)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts, output_size=len(order))
    near = torch.arange(len(order), device=order.device) - first < k
    # If the best pair of a truth is unreachable, all its pairs are: it keeps them.  Else it keeps the reachable ones.
    alike = pairs.reachable[order] == pairs.reachable[order[first]]
    return pairs.take(order[near & alike])


def _one_sort(truth: Tensor, metric: Tensor) -> Tensor:
    """The order (P,) by truth, then best metric first.

    float64 keeps the digits of the metric beside truth numbers in the millions.
    """
    return (truth.double() * 1e6 - metric.double()).argsort(stable=True)


def _two_sorts(truth: Tensor, metric: Tensor) -> Tensor:
    """The same without float64, which Apple's GPUs do not have."""
    best = metric.argsort(descending=True, stable=True)
    return best[truth[best].argsort(stable=True)]


def _none_left_out(pairs: _Pairs, place: Tensor, kept: Tensor, places: int, truths: int) -> Tensor:
    """Indices of the final pairs: those of `kept`, after each truth without a point got one of its candidates.

    `place` (P,) is the point of each pair among all `places` points of the batch.  In each round every truth without a
    point asks for its best candidate that is free or that its owner can spare.  An owner gives at most one point per
    round and keeps at least one.  A truth stays without a point only if too many truths share too few points.
    """
    owner = kept.new_full((places,), -1)
    owner[place[kept]] = pairs.truth[kept]
    points = kept.new_zeros(truths).index_add_(0, pairs.truth[kept], torch.ones_like(kept))
    rounds = 0
    for _ in range(truths):  # each round gives a point to a truth without any, and takes the last one from none
        candidates = (points[pairs.truth] == 0).nonzero().squeeze(1)
        if not len(candidates):
            break
        holder = owner[place[candidates]]
        available = candidates[(holder < 0) | (points[holder] > 1)]
        if not len(available):
            break
        per_truth = available[best_of_each(pairs.truth[available], truths, (pairs.metric[available],))]
        per_point = per_truth[best_of_each(place[per_truth], places, (pairs.iou[per_truth], pairs.metric[per_truth]))]
        holder = owner[place[per_point]]
        nobody = truths + torch.arange(len(per_point), device=per_point.device)  # a free point takes from no truth
        giver = torch.where(holder < 0, nobody, holder)
        claims = (pairs.iou[per_point], pairs.metric[per_point])
        granted = per_point[best_of_each(giver, truths + len(per_point), claims)]  # one per giver
        holder = owner[place[granted]]
        points[holder[holder >= 0]] -= 1
        points[pairs.truth[granted]] += 1
        owner[place[granted]] = pairs.truth[granted]
        rounds += 1
    return (owner[place] == pairs.truth).nonzero().squeeze(1) if rounds else kept


def _normalised(pairs: _Pairs, truths: int) -> Tensor:
    """Alignment (P,): m / max m of the truth * max IoU of the truth."""
    top = torch.full((truths,), -torch.inf, device=pairs.metric.device)
    top = top.scatter_reduce(0, pairs.truth, pairs.metric, "amax")
    iou = torch.zeros(truths, device=pairs.iou.device).scatter_reduce(0, pairs.truth, pairs.iou, "amax")
    return (pairs.metric - top[pairs.truth]).exp() * iou[pairs.truth]
