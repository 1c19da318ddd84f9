"""What every assigner is given and gives: predictions and truths in, positive points out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gfldet.ops.points import Grid


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the head says now: class logits (B, A, C) and decoded boxes (B, A, 4) xyxy in pixels; no gradients."""

    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True, slots=True)
class Truths:
    """All truths of a batch: boxes (N, 4) xyxy in pixels, classes (N,) int64 and the image of each (N,) int64."""

    boxes: Tensor
    classes: Tensor
    image: Tensor


@dataclass(frozen=True, slots=True)
class Assignment:
    """The P positive points of a batch, one row each.

    `image`, `point`, `truth` (P,) int64 index B, A and N; a point occurs once at most.  `iou` (P,) is the plain IoU of
    its predicted box with its truth; `alignment` (P,) in [0, 1] is how much the point counts (TAL: the normalised
    alignment, per truth m / max m * max IoU; assigners that do not rank give 1); `reachable` (P,) whether the bins can
    express the truth's four sides from that point.
    """

    image: Tensor
    point: Tensor
    truth: Tensor
    iou: Tensor
    alignment: Tensor
    reachable: Tensor


class Assigner(Protocol):
    """Who decides which points answer for which truth.  One that `ranks` says by `alignment` how well each does."""

    @property
    def ranks(self) -> bool: ...

    def __call__(self, predictions: Predictions, truths: Truths, levels: Sequence[Grid], reach: float) -> Assignment:
        """Assign points to truths.

        `levels` are the feature maps behind the A points; `reach` is the longest side the bins express, in strides.
        """


def no_positives(like: Tensor) -> Assignment:
    """No positive point, on the device of `like`."""
    index = torch.zeros(0, dtype=torch.int64, device=like.device)
    value = torch.zeros(0, device=like.device)
    return Assignment(index, index, index, value, value, index.bool())


def best_of_each(group: Tensor, groups: int, claims: Sequence[Tensor]) -> Tensor:
    """The best of P pairs in each of `groups`: their numbers.

    `group` (P,) tells where each pair belongs, for instance which point it wants: a point can serve one truth alone.
    The pair with the highest first claim (P,) wins.  Where these are equal the second claim decides, and so on; where
    all are equal, the first pair wins.
    """
    left = torch.arange(len(group), device=group.device)
    for claim in claims:
        best = claim.new_full((groups,), -torch.inf).scatter_reduce(0, group[left], claim[left], "amax")
        left = left[claim[left] == best[group[left]]]
    first = left.new_full((groups,), len(group)).scatter_reduce(0, group[left], left, "amin")
    return first[first < len(group)]
