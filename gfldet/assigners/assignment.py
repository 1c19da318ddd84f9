"""What every assigner takes and returns: predictions and truths in, positive points out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gfldet.ops.points import Grid


@dataclass(frozen=True, slots=True)
class Predictions:
    """The head's output now: class logits (B, A, C) and decoded boxes (B, A, 4) xyxy in pixels; no gradients."""

    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True, slots=True)
class Truths:
    """All truths of a batch: boxes (N, 4) xyxy in pixels, classes (N,) int64 and the image of each (N,) int64.

    `host` are the boxes in the host's memory; without it, who counts by them has to ask the device.
    """

    boxes: Tensor
    classes: Tensor
    image: Tensor
    host: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """The P positive points of a batch, one row each.

    `image`, `point`, `truth` (P,) int64 index B, A and N; a point occurs at most once.  `iou` (P,) is the plain IoU of
    its predicted box with its truth; `alignment` (P,) in [0, 1] is how much the point counts (TAL: the normalised
    alignment, per truth m / max m * max IoU; assigners that do not rank give 1).  `reachable` (P,) says whether the
    bins can express the truth's four sides from that point.
    """

    image: Tensor
    point: Tensor
    truth: Tensor
    iou: Tensor
    alignment: Tensor
    reachable: Tensor


class Assigner(Protocol):
    """A rule that assigns points to truths.  If it `ranks`, `alignment` says how well each point predicts."""

    @property
    def ranks(self) -> bool: ...

    def __call__(self, predictions: Predictions, truths: Truths, levels: Sequence[Grid], reach: float) -> Assignment:
        """Assign points to truths.

        `levels` are the feature maps behind the A points; `reach` is the longest side the bins express, in strides.
        """


def no_positives(like: Tensor) -> Assignment:
    """An assignment without positive points, on the device of `like`."""
    index = torch.zeros(0, dtype=torch.int64, device=like.device)
    value = torch.zeros(0, device=like.device)
    return Assignment(index, index, index, value, value, index.bool())


def best_of_each(group: Tensor, groups: int, claims: Sequence[Tensor], among: Tensor | None = None) -> Tensor:
    """Indices of the best of P pairs in each of `groups` groups.

    `group` (P,) is the group of each pair, for instance its point if a point may have only one truth.  The pair with
    the highest first claim (P,) wins.  If the first claims are equal, the second claim decides, and so on.  If all are
    equal, the first pair wins.  A claim that is NaN ranks last, so that each group that has a pair has a best one.
    Only the pairs `among` (P,) bool take part; all if None.
    """
    # Who has lost stays in place, marked: to take the others out would make a GPU wait for their number each time.
    left = torch.ones_like(group, dtype=torch.bool) if among is None else among
    for raw in claims:
        claim = raw.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).masked_fill(~left, -torch.inf)
        best = claim.new_full((groups,), -torch.inf).scatter_reduce(0, group, claim, "amax")
        left = left & (claim == best[group])
    number = torch.arange(len(group), device=group.device).masked_fill(~left, len(group))
    first = number.new_full((groups,), len(group)).scatter_reduce(0, group, number, "amin")
    return first[first < len(group)]
