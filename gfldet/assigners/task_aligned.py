"""Task-aligned assignment over flat (truth, point) pairs.

Only a point inside a truth can answer for it, so only such pairs are ever written down: the points inside a box form
a rectangle of cells on each level, whose corners follow from the box by division.  Work and memory go with the number
of those pairs, and pairs are handled in chunks of whole truths, so that memory stays bounded however dense an image is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gfldet.assigners.assignment import Assignment, Predictions, Truths, best_of_each, no_positives
from gfldet.ops.boxes import aligned_iou, xyxy_to_ltrb
from gfldet.ops.points import Grid, anchor_points


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
    """TAL (Feng et al., TOOD, ICCV 2021) with remedies for its cold start under quality focal loss.

    A pair's metric is m = score^alpha * IoU^beta; each truth takes its `topk` best points; a point wanted by several
    goes to the truth that its box overlaps most.  Departures, each with its reason:

    - log space and no absolute epsilon: at initialisation IoU^6 of a small truth is about 1e-9, where all pairs tie;
    - plain IoU, not CIoU, which is negative for thin truths and would be clamped to one tie;
    - ties go to the nearer centre (a term that is small beside any real difference of log m);
    - a truth narrower than two cells of the finest level is grown to that size for the choice of candidates, so that
      every truth has points to choose from;
    - a truth that lost all its points to others, as happens in dense images, is given one back (`_none_left_out`);
    - points from which the bins cannot reach all four sides stand back while a truth has others, and are marked.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    max_pairs: int = 1 << 17
    ranks: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truths: Truths, levels: Sequence[Grid], reach: float) -> Assignment:
        """See `assignment.Assigner`."""
        points, strides = anchor_points(levels, predictions.boxes.device)
        best = [
            _topk_per_truth(self._measure(predictions, truths, truth, point, points, strides, reach), self.topk)
            for truth, point in _candidates(truths.boxes, levels, self.max_pairs)
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
        self,
        predictions: Predictions,
        truths: Truths,
        truth: Tensor,
        point: Tensor,
        points: Tensor,
        strides: Tensor,
        reach: float,
    ) -> _Pairs:
        """The log metric and IoU of pairs given by `truth` (P,) and `point` (P,)."""
        image, box, at = truths.image[truth], truths.boxes[truth], points[point]
        stride = strides[point, 0]
        iou = aligned_iou(predictions.boxes[image, point].float(), box)
        logit = predictions.logits[image, point, truths.classes[truth]].float()
        sides = xyxy_to_ltrb(at, box)
        reachable = sides.amax(-1) <= reach * stride
        offset = ((box[:, :2] + box[:, 2:]) / 2 - at).abs().amax(-1) / stride
        metric = self.alpha * F.logsigmoid(logit) + self.beta * iou.clamp(min=1e-9).log()
        # The distance breaks ties alone; a point out of reach ranks below every point within.
        metric = metric - 1e-4 * offset - torch.where(reachable, 0.0, 1e4)
        return _Pairs(truth, point, metric, iou, reachable)


def _joined(parts: Sequence[_Pairs]) -> _Pairs:
    return _Pairs(
        truth=torch.cat([part.truth for part in parts]),
        point=torch.cat([part.point for part in parts]),
        metric=torch.cat([part.metric for part in parts]),
        iou=torch.cat([part.iou for part in parts]),
        reachable=torch.cat([part.reachable for part in parts]),
    )


def _candidates(boxes: Tensor, levels: Sequence[Grid], max_pairs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (truth (P,), point (P,)) of points inside the boxes (N, 4), truth by truth, about `max_pairs` at a time."""
    if not len(boxes):
        return
    smallest = 2.0 * min(level.stride for level in levels)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=smallest / 2)
    low, high = centre - half, centre + half
    cells = torch.stack([_cells_inside(low, high, level) for level in levels])  # (levels, N, 4)
    counts = (cells[..., 2] * cells[..., 3]).T  # (N, levels)
    chunk = (counts.sum(1).cumsum(0) - 1).div(max_pairs, rounding_mode="floor")
    ends = chunk.unique_consecutive(return_counts=True)[1].cumsum(0).tolist()
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        yield _expand(cells[:, start:stop], counts[start:stop], levels, start)


def _cells_inside(low: Tensor, high: Tensor, level: Grid) -> Tensor:
    """First column, first row, columns and rows (N, 4) int64 of the cells whose points lie inside the boxes."""
    limit = torch.tensor([level.width, level.height], device=low.device)
    first = (low / level.stride - 0.5).floor().long().add(1).clamp(min=0)
    last = (high / level.stride - 0.5).ceil().long().sub(1)
    size = (torch.minimum(last, limit - 1) - first + 1).clamp(min=0)
    return torch.cat((first, size), dim=-1)


def _expand(cells: Tensor, counts: Tensor, levels: Sequence[Grid], first_truth: int) -> tuple[Tensor, Tensor]:
    """Rectangles of cells (levels, n, 4) with their counts (n, levels) -> every pair in them, truth by truth."""
    flat = counts.reshape(-1)
    group = torch.repeat_interleave(torch.arange(len(flat), device=cells.device), flat)
    inside = torch.arange(len(group), device=cells.device) - (flat.cumsum(0) - flat)[group]
    column, row, width, _ = cells.transpose(0, 1).reshape(-1, 4)[group].unbind(1)
    start = torch.tensor([level.start for level in levels], device=cells.device)
    across = torch.tensor([level.width for level in levels], device=cells.device)
    truth, level = group.div(len(levels), rounding_mode="floor"), group % len(levels)
    down = inside.div(width, rounding_mode="floor")
    point = start[level] + (row + down) * across[level] + column + inside - down * width
    return truth + first_truth, point


def _topk_per_truth(pairs: _Pairs, k: int) -> _Pairs:
    """The k best pairs of each truth by metric; pairs come grouped by truth and leave so, best first."""
    # One sort on truth and metric together; float64 keeps a metric's digits beside truth numbers in the millions.
    order = (pairs.truth.double() * 1e6 - pairs.metric.double()).argsort(stable=True)
    counts = pairs.truth.unique_consecutive(return_counts=True)[1]
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    near = (torch.arange(len(order), device=order.device) - first < k).nonzero().squeeze(1)
    chosen, best = order[near], order[first[near]]
    # A truth reaches beyond the bins only when none of its points is within them: then it keeps those it has.
    return pairs.take(chosen[pairs.reachable[chosen] == pairs.reachable[best]])


def _none_left_out(pairs: _Pairs, place: Tensor, kept: Tensor, places: int, truths: int) -> Tensor:
    """Numbers of the pairs that count, after truths without a point among `kept` were given one of their candidates.

    `place` (P,) is the point of each pair among all `places` points of the batch.  In each round every such truth asks
    for its best candidate that is free or whose owner has others, and an owner gives one away; so no owner is left
    without, and only truths of which too many share too few points can stay so.
    """
    owner = kept.new_full((places,), -1)
    owner[place[kept]] = pairs.truth[kept]
    points = torch.bincount(pairs.truth[kept], minlength=truths)
    rounds = 0
    while True:
        asking = (points[pairs.truth] == 0).nonzero().squeeze(1)
        holder = owner[place[asking]]
        asking = asking[(holder < 0) | (points[holder] > 1)]
        if not len(asking):
            break
        asking = asking[best_of_each(pairs.truth[asking], truths, (pairs.metric[asking],))]
        asking = asking[best_of_each(place[asking], places, (pairs.iou[asking], pairs.metric[asking]))]
        holder = owner[place[asking]]
        free = truths + torch.arange(len(asking), device=asking.device)  # a free point takes from no truth
        giving = torch.where(holder < 0, free, holder)
        asking = asking[best_of_each(giving, truths + len(asking), (pairs.iou[asking], pairs.metric[asking]))]
        holder = owner[place[asking]]
        points[holder[holder >= 0]] -= 1
        points[pairs.truth[asking]] += 1
        owner[place[asking]] = pairs.truth[asking]
        rounds += 1
    return (owner[place] == pairs.truth).nonzero().squeeze(1) if rounds else kept


def _normalised(pairs: _Pairs, truths: int) -> Tensor:
    """Alignment (P,): m / max m of the truth * max IoU of the truth."""
    top = torch.full((truths,), -torch.inf, device=pairs.metric.device)
    top = top.scatter_reduce(0, pairs.truth, pairs.metric, "amax")
    iou = torch.zeros(truths, device=pairs.iou.device).scatter_reduce(0, pairs.truth, pairs.iou, "amax")
    return (pairs.metric - top[pairs.truth]).exp() * iou[pairs.truth]
