"""Task-aligned assignment over flat (truth, point) pairs.

Only a point inside a truth can be positive for it, so only these pairs are built.  The points inside a box form a
rectangle of cells on each level, and the box divided by the stride gives its corners.  Time and memory grow with the
number of pairs.  Pairs are handled in chunks of whole truths, so memory stays bounded in dense images too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
    """Pairs: truth (P,), point (P,), log metric (P,), plain IoU (P,), reachable (P,), and whether each is a `candidate`
    (P,) of its truth: the others fill its places up to `topk`, since a GPU would wait for their number."""

    truth: Tensor
    point: Tensor
    metric: Tensor
    iou: Tensor
    reachable: Tensor
    candidate: Tensor

    def take(self, index: Tensor) -> _Pairs:
        return _Pairs(*(getattr(self, name)[index] for name in self.__slots__))


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
        best = []
        for inside in _candidates(truths, levels, *self._portions(truths.boxes.device)):
            pairs = self._measure(predictions, truths, anchors, *inside.pairs())
            pairs.metric[inside.total :] = -torch.inf
            best.append(_topk_per_truth(pairs, inside.counts, self.topk))
        if not best:
            return no_positives(predictions.boxes)
        pairs = _joined(best)
        images, count = predictions.boxes.shape[:2]
        place = truths.image[pairs.truth] * count + pairs.point
        kept = best_of_each(place, images * count, (pairs.iou, pairs.metric), among=pairs.candidate)
        pairs = pairs.take(_none_left_out(pairs, place, kept, images * count, len(truths.boxes)))
        return Assignment(
            image=truths.image[pairs.truth],
            point=pairs.point,
            truth=pairs.truth,
            iou=pairs.iou,
            alignment=_normalised(pairs, len(truths.boxes)),
            reachable=pairs.reachable,
        )

    def _portions(self, device: torch.device) -> tuple[int, int]:
        """How many pairs are handled at a time, and what their number is rounded up to.

        A GPU takes as long for few as for many; and as long as it is asked for pieces of memory of sizes that it never
        gave before, it waits for each of them.
        """
        return (8 * self.max_pairs, self.max_pairs // 2) if device.type == "cuda" else (self.max_pairs, 1)

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
        return _Pairs(truth, point, metric, iou, reachable, torch.ones_like(reachable))


def _joined(parts: Sequence[_Pairs]) -> _Pairs:
    if len(parts) == 1:
        return parts[0]
    return _Pairs(*(torch.cat([getattr(part, name) for part in parts]) for name in _Pairs.__slots__))


@dataclass(frozen=True, slots=True)
class _Inside:
    """The points inside n truths: a rectangle of cells on each level, truth by truth.

    `cells` (n * levels, 5) int64 are the number of pairs before a rectangle, its first point, its columns, the points
    from one row to the next, and its truth.  `sizes` (n * levels,) are the pairs of each rectangle, `counts` (n,) those
    of each truth, `total` all.  Where there are to be more, `given` in all, the last rectangle holds the rest.
    """

    cells: Tensor
    sizes: Tensor
    counts: Tensor
    total: int
    given: int

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The truth (P,) and the point (P,) of every pair, truth by truth; then what fills them up to `given`."""
        number = torch.arange(len(self.cells), device=self.cells.device)
        rectangle = number.repeat_interleave(self.sizes, output_size=self.given)
        before, first, columns, across, truth = self.cells[rectangle].unbind(1)
        inside = torch.arange(self.given, device=self.cells.device) - before
        down = inside.div(columns, rounding_mode="floor")
        return truth, first + down * across + inside - down * columns


def _candidates(truths: Truths, levels: Sequence[Grid], max_pairs: int, multiple: int) -> Iterator[_Inside]:
    """The points inside the truths, truth by truth, about `max_pairs` pairs at a time, filled up to a `multiple`.

    The host counts them by its own copy of the boxes, so that a GPU need not be waited for.
    """
    boxes = truths.boxes.cpu() if truths.host is None else truths.host
    if not len(boxes):
        return
    smallest = 2.0 * min(level.stride for level in levels)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=smallest / 2)
    rectangles = torch.stack([_cells_inside(centre - half, centre + half, level) for level in levels], dim=1)
    sizes = rectangles[..., 1] * rectangles[..., 2]  # (N, levels)
    counts = sizes.sum(1)
    ends = counts.cumsum(0).tolist()
    truth = torch.arange(len(boxes))[:, None].expand_as(sizes)
    start = 0
    for _, numbers in groupby(ends, lambda end: (end - 1) // max_pairs):
        part = slice(start, start + len(list(numbers)))
        flat = sizes[part].reshape(-1)
        before = (flat.cumsum(0) - flat).view_as(sizes[part])
        first, columns, _, across = rectangles[part].unbind(-1)
        cells = torch.stack((before, first, columns, across, truth[part]), dim=-1).flatten(0, 1)
        total = ends[part.stop - 1] - (ends[start - 1] if start else 0)
        given = -(-total // multiple) * multiple
        if given > total:
            rest = torch.stack([torch.full((), number) for number in (total, 0, 1, 0, part.stop - 1)])
            cells, flat = torch.cat((cells, rest[None])), torch.cat((flat, torch.full((1,), given - total)))
        if total:
            device = truths.boxes.device
            yield _Inside(_sent(cells, device), _sent(flat, device), _sent(counts[part], device), total, given)
        start = part.stop


def _cells_inside(low: Tensor, high: Tensor, level: Grid) -> Tensor:
    """First point, columns, rows, and points from one row to the next (N, 4) int64 of the cells whose points lie inside
    the boxes."""
    first = (low / level.stride - 0.5).floor().long().add(1).clamp(min=0)
    last = (high / level.stride - 0.5).ceil().long().sub(1)
    columns = (last[:, 0].clamp(max=level.width - 1) - first[:, 0] + 1).clamp(min=0)
    rows = (last[:, 1].clamp(max=level.height - 1) - first[:, 1] + 1).clamp(min=0)
    point = level.start + first[:, 1] * level.width + first[:, 0]
    return torch.stack((point, columns, rows, torch.full_like(rows, level.width)), dim=-1)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """The host's `values` on a device; a GPU copies from pinned memory by itself."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _topk_per_truth(pairs: _Pairs, counts: Tensor, k: int) -> _Pairs:
    """The k best pairs of each truth by metric, best first; `pairs` are grouped by truth, (n * k,) come out.

    `counts` (n,) is the number of pairs of each truth.  Of a truth with fewer than k, others fill its places.
    """
    order = (_two_sorts if pairs.metric.device.type == "mps" else _one_sort)(pairs.truth, pairs.metric)
    rank = torch.arange(k, device=order.device)
    first = counts.cumsum(0) - counts
    index = order[(first[:, None] + rank).clamp(max=len(order) - 1)]  # (n, k)
    # If the best pair of a truth is unreachable, all its pairs are: it keeps them.  Else it keeps the reachable ones.
    reachable = pairs.reachable[index]
    candidate = (rank < counts[:, None]) & (reachable == reachable[:, :1])
    return replace(pairs.take(index.reshape(-1)), candidate=candidate.reshape(-1))


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
        candidates = ((points[pairs.truth] == 0) & pairs.candidate).nonzero().squeeze(1)
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
    return ((owner[place] == pairs.truth) & pairs.candidate).nonzero().squeeze(1) if rounds else kept


def _normalised(pairs: _Pairs, truths: int) -> Tensor:
    """Alignment (P,): m / max m of the truth * max IoU of the truth."""
    top = torch.full((truths,), -torch.inf, device=pairs.metric.device)
    top = top.scatter_reduce(0, pairs.truth, pairs.metric, "amax")
    iou = torch.zeros(truths, device=pairs.iou.device).scatter_reduce(0, pairs.truth, pairs.iou, "amax")
    return (pairs.metric - top[pairs.truth]).exp() * iou[pairs.truth]
