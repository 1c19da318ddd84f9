"""Assigners that go by where truths and points lie, never by what the head predicts: ATSS and FCOS.

Both look at the points nearest to a truth's centre, a fixed number on each level, so work and memory go with the number
of truths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gfldet.assigners.assignment import Assignment, Predictions, Truths, best_of_each, no_positives
from gfldet.ops.boxes import aligned_iou, area, xyxy_to_ltrb
from gfldet.ops.points import Grid, anchor_points

WINDOW = 5  # cells a side that hold the 9 points nearest to any place, at a border of the frame too


@dataclass(frozen=True, slots=True)
class ATSSAssigner:
    """Adaptive training sample selection (Zhang et al., CVPR 2020, algorithm 1).

    Of the `nearest` points to a truth's centre on each level, those whose square prior (`prior` strides wide) overlaps
    the truth by at least mean + standard deviation of those overlaps are positive, if they lie inside the truth.  A
    point wanted by several goes to the truth that its prior overlaps most.  Departures: a truth narrower than two cells
    of the finest level counts as that wide for "inside", and a truth that no point qualifies for takes the best of its
    candidates, so that every truth has one to begin with.
    """

    nearest: int = 9
    prior: float = 8.0
    ranks: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truths: Truths, levels: Sequence[Grid], reach: float) -> Assignment:
        """See `assignment.Assigner`."""
        if not len(truths.boxes):
            return no_positives(predictions.boxes)
        near = _Near.of(truths, levels, self.nearest)
        half = self.prior / 2 * near.strides
        overlap = aligned_iou(torch.cat((near.points - half, near.points + half), -1), truths.boxes[:, None])
        threshold = overlap.mean(1, keepdim=True) + overlap.std(1, keepdim=True)
        return near.assignment(predictions, near.inside & (overlap >= threshold), overlap, reach)


@dataclass(frozen=True, slots=True)
class FCOSAssigner:
    """FCOS (Tian et al., ICCV 2019, with the centre sampling of its journal version, TPAMI 2021, section 3).

    A point is positive when it lies inside a truth, at most `radius` strides from its centre, and the farthest side is
    within the range of its level: 4 to 8 strides, on the finest level from 0, on the coarsest without end.  A point
    wanted by several goes to the smallest truth.  Departure: as in ATSS above, no truth begins without a point.
    """

    radius: float = 1.5
    range: tuple[float, float] = (4.0, 8.0)
    ranks: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(self, predictions: Predictions, truths: Truths, levels: Sequence[Grid], reach: float) -> Assignment:
        """See `assignment.Assigner`."""
        if not len(truths.boxes):
            return no_positives(predictions.boxes)
        near = _Near.of(truths, levels, nearest=16)  # within 1.5 strides of a place lie at most 16 points
        centre = (truths.boxes[:, :2] + truths.boxes[:, 2:]) / 2
        close = (near.points - centre[:, None]).abs().amax(-1) < self.radius * near.strides[..., 0]
        farthest = xyxy_to_ltrb(near.points, truths.boxes[:, None]).amax(-1) / near.strides[..., 0]
        finest, coarsest = (f([level.stride for level in levels]) for f in (min, max))
        above = (farthest > self.range[0]) | (near.strides[..., 0] == finest)
        below = (farthest <= self.range[1]) | (near.strides[..., 0] == coarsest)
        fit = -(farthest.clamp(min=1e-3) / self.range[1]).log2().abs()  # of those without a point: the level nearest
        claim = -area(truths.boxes)[:, None].expand_as(farthest)
        return near.assignment(predictions, near.inside & close & above & below, claim, reach, fit)


@dataclass(frozen=True, slots=True)
class _Near:
    """The K points nearest to each truth's centre: numbers (N, K), `points` (N, K, 2), `strides` (N, K, 1), and whether
    each lies `inside` its truth (N, K), small truths grown to two cells of the finest level."""

    truths: Truths
    number: Tensor
    points: Tensor
    strides: Tensor
    inside: Tensor

    @classmethod
    def of(cls, truths: Truths, levels: Sequence[Grid], nearest: int) -> _Near:
        boxes = truths.boxes
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=float(min(level.stride for level in levels)))
        all_points, all_strides = anchor_points(levels, boxes.device)
        number = torch.cat([_nearest(centre, level, nearest) for level in levels], dim=1)
        points = all_points[number]
        grown = torch.cat((centre - half, centre + half), dim=-1)
        return cls(truths, number, points, all_strides[number], xyxy_to_ltrb(points, grown[:, None]).amin(-1) > 0)

    def assignment(
        self, predictions: Predictions, positive: Tensor, claim: Tensor, reach: float, fit: Tensor | None = None
    ) -> Assignment:
        """The pairs marked `positive` (N, K), each point once, by the higher `claim` (N, K).

        A truth without any takes its best by `fit` (N, K; the claim if not given), inside it if there is one.
        """
        best = (claim if fit is None else fit) + self.inside * 1e3
        lonely = ~positive.any(1)
        positive = positive.clone()
        positive[lonely, best.argmax(1)[lonely]] = True
        truth, k = positive.nonzero(as_tuple=True)
        point, image = self.number[truth, k], self.truths.image[truth]
        count, images = predictions.boxes.shape[1], predictions.boxes.shape[0]
        stay = best_of_each(image * count + point, images * count, [claim[truth, k]])
        image, point, truth, k = image[stay], point[stay], truth[stay], k[stay]
        sides = xyxy_to_ltrb(self.points[truth, k], self.truths.boxes[truth])
        return Assignment(
            image=image,
            point=point,
            truth=truth,
            iou=aligned_iou(predictions.boxes[image, point].float(), self.truths.boxes[truth]),
            alignment=torch.ones_like(sides[:, 0]),
            reachable=sides.amax(-1) <= reach * self.strides[truth, k, 0],
        )


def _nearest(centre: Tensor, level: Grid, nearest: int) -> Tensor:
    """Numbers (N, min(nearest, cells)) of a level's points nearest to `centre` (N, 2) in pixels, nearest first."""
    cell = centre / level.stride - 0.5
    size = torch.tensor([level.width, level.height], device=centre.device)
    window = size.clamp(max=WINDOW)
    start = torch.minimum((cell.round().long() - WINDOW // 2).clamp(min=0), size - window)
    row, column = torch.meshgrid(
        torch.arange(int(window[1]), device=centre.device),
        torch.arange(int(window[0]), device=centre.device),
        indexing="ij",
    )
    cells = start[:, None] + torch.stack((column, row), -1).reshape(1, -1, 2)  # (N, W * W, 2)
    distance = (cells - cell[:, None]).square().sum(-1)
    chosen = distance.topk(min(nearest, distance.shape[1]), dim=1, largest=False).indices
    x, y = cells.gather(1, chosen[..., None].expand(-1, -1, 2)).unbind(-1)
    return level.start + y * level.width + x
