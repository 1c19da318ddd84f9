"""From a head's maps to bins, logits, boxes and scores: the decoding that heads, losses and the exported graph share.

Two layouts, for one reason each.  Losses pick single points, so `split_maps` puts the points first.  Inference goes
over all points once, so `decode` leaves the channels first, as the maps have them: fewer copies, and a shorter graph.
The runner without torch has the same in numpy (`ops.decode_numpy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gfldet.ops.boxes import ltrb_to_xyxy, xywh_to_xyxy, xyxy_to_xywh
from gfldet.ops.points import Grid, anchor_points, grids


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What a head says of all A points of B images.

    boxes   (B, 4, A) xywh: centre and size in px of the input
    scores  (B, C, A) in [0, 1]
    bins    (B, 4, R, A) logits of the sides left, top, right, bottom; None unless asked for
    """

    boxes: Tensor
    scores: Tensor
    bins: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def stacked(self) -> Tensor:
        """(B, 4 + C, A): boxes, then scores, as users of this family know the output."""
        return torch.cat((self.boxes, self.scores), dim=1)

    def corners(self, image: int, points: Tensor) -> Tensor:
        """The boxes (P, 4) xyxy of some points (P,) of an image."""
        return xywh_to_xyxy(self.boxes[image].float().T[points])


def decode(
    maps: Sequence[Tensor],
    classes: int,
    bin_values: Tensor,
    reg_max: int,
    strides: Sequence[int],
    keep_bins: bool = False,
) -> Decoded:
    """Per-level maps (B, 4R + C, H / s, W / s) -> decoded; `bin_values` (R,) are 0..R-1.

    A side is the mean of its distribution, in strides; with R = 1 it is the softplus of its one number.  C and R are
    given, not read from shapes: an exported graph would compute them anew in each run.
    """
    points, stride = anchor_points(grids([(m.shape[2], m.shape[3]) for m in maps], strides), maps[0].device)
    flat = torch.cat([m.flatten(2) for m in maps], dim=2).float()
    bins, logits = flat.split((4 * reg_max, classes), dim=1)
    if reg_max == 1:
        sides = F.softplus(bins).transpose(1, 2)
    else:
        sides = torch.einsum("bsra,r->bas", bins.unflatten(1, (4, reg_max)).softmax(2), bin_values.float())
    boxes = xyxy_to_xywh(ltrb_to_xyxy(points, sides * stride))
    kept = bins.unflatten(1, (4, reg_max)) if keep_bins else None
    return Decoded(boxes.transpose(1, 2), logits.sigmoid(), kept)


@dataclass(frozen=True, slots=True, eq=False)
class HeadOutput:
    """Maps flat over levels, points first: `bins` (B, A, 4, R) and `logits` (B, A, C), `points` (A, 2) in px of the
    input, `strides` (A, 1)."""

    bins: Tensor
    logits: Tensor
    points: Tensor
    strides: Tensor
    levels: tuple[Grid, ...]

    def boxes(self) -> Tensor:
        """Boxes (B, A, 4) xyxy in px of the input."""
        return ltrb_to_xyxy(self.points, sides_in_strides(self.bins) * self.strides)


def split_maps(maps: Sequence[Tensor], reg_max: int, strides: Sequence[int]) -> HeadOutput:
    """Per-level maps (B, 4R + C, H / s, W / s) -> bins and class logits over all A points, in float32."""
    levels = grids([(m.shape[2], m.shape[3]) for m in maps], strides)
    points, stride = anchor_points(levels, maps[0].device)
    flat = torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], dim=1).float()
    bins = flat[..., : 4 * reg_max].unflatten(-1, (4, reg_max))
    return HeadOutput(bins, flat[..., 4 * reg_max :], points, stride, levels)


def integral(logits: Tensor) -> Tensor:
    """The mean of each distribution: logits (..., R) -> sum_i softmax(logits)_i * i (...), in [0, R - 1].

    Source: Li et al., Generalized Focal Loss, NeurIPS 2020, eq. 4.
    """
    logits = full(logits)
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return (logits.softmax(-1) * bins).sum(-1)


def sides_in_strides(logits: Tensor) -> Tensor:
    """A head's box outputs (..., R) -> sides (...), in strides: the integral, or for R = 1 a softplus.

    With one number a side the head has a Dirac distribution, which no DFL shapes and whose reach has no end.
    """
    return F.softplus(full(logits)).squeeze(-1) if logits.shape[-1] == 1 else integral(logits)


def full(values: Tensor) -> Tensor:
    """Half precision as float32, in which sums do not overflow; wider floats as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
