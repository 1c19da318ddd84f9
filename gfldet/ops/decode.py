"""From a head's maps to bins, logits, boxes and scores: the decoding that heads, losses and the exported graph share.

There are two layouts.  Losses pick single points, so `split_maps` puts the points first.  An exported graph goes over
all points once, so `decode` keeps the channels first, as in the maps: this saves copies and gives a shorter graph.
Prediction decodes only the points whose score can make them detections (`HeadMaps`), with the same numbers as `decode`.
`ops.decode_numpy` does the same in numpy, for the runner without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gfldet.ops.boxes import ltrb_to_xyxy, xywh_to_xyxy, xyxy_to_xywh
from gfldet.ops.detections import logit_floor
from gfldet.ops.points import Grid, anchor_points, grids


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Points (P,), classes (P,) and scores (P,) of an image that score above a threshold: point by point, then class by
    class, each of them a candidate of its own."""

    points: Tensor
    classes: Tensor
    scores: Tensor


class Scored(Protocol):
    """What the choice of detections asks of a head's predictions for B images."""

    def __len__(self) -> int: ...

    def candidates(self, image: int, conf: float, classes: Tensor | None = None) -> Candidates:
        """What scores above `conf` in an image; only `classes` (K,) int64, if given."""

    def corners(self, image: int, points: Tensor) -> Tensor:
        """The boxes (P, 4) xyxy in px of the input, of some points (P,) of an image."""

    def decoded(self, keep_bins: bool = False) -> Decoded:
        """The same over all points."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The predictions of a head at all A points of B images; as `Scored`.

    boxes   (B, 4, A) xywh: centre and size in px of the input
    scores  (B, C, A) in [0, 1]
    bins    (B, 4, R, A) logits of the sides left, top, right, bottom; None unless `decode` keeps them
    """

    boxes: Tensor
    scores: Tensor
    bins: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def stacked(self) -> Tensor:
        """(B, 4 + C, A): boxes, then scores, the usual output form of this family of detectors."""
        return torch.cat((self.boxes, self.scores), dim=1)

    def candidates(self, image: int, conf: float, classes: Tensor | None = None) -> Candidates:
        scores = self.scores[image].float().T
        point, label = _wanted(scores, conf, classes)
        return Candidates(point, label, scores[point, label])

    def corners(self, image: int, points: Tensor) -> Tensor:
        return xywh_to_xyxy(self.boxes[image].float().T[points])

    def decoded(self, keep_bins: bool = False) -> Decoded:
        return self


@dataclass(frozen=True, slots=True, eq=False)
class HeadMaps:
    """A head's maps of B images, as `Scored`: their logits are looked at first, and only what is asked for is decoded.

    maps        (B, 4R + C, H / s, W / s), one a level of `strides`
    bin_values  (R,): 0..R-1
    """

    maps: Sequence[Tensor]
    nc: int
    bin_values: Tensor
    reg_max: int
    strides: Sequence[int]

    def __len__(self) -> int:
        return len(self.maps[0])

    def candidates(self, image: int, conf: float, classes: Tensor | None = None) -> Candidates:
        floor = logit_floor(conf)
        points, labels, found = [], [], []
        for level, grid in zip(self.maps, self._grids(), strict=True):
            logits = level[image, 4 * self.reg_max :].flatten(1).T.float()
            point, label = _wanted(logits, floor, classes)
            points.append(point + grid.start)
            labels.append(label)
            found.append(logits[point, label])
        scores = _padded(torch.cat(found)).sigmoid()[: sum(map(len, found))]
        sure = scores > conf
        return Candidates(torch.cat(points)[sure], torch.cat(labels)[sure], scores[sure])

    def corners(self, image: int, points: Tensor) -> Tensor:
        bins = _padded(points.new_zeros((4 * self.reg_max, len(points)), dtype=torch.float32))
        places = points.new_zeros((bins.shape[1], 2), dtype=torch.float32)
        strides = points.new_ones((bins.shape[1], 1), dtype=torch.float32)
        for level, grid in zip(self.maps, self._grids(), strict=True):
            (rows,) = ((points >= grid.start) & (points < grid.start + grid.count)).nonzero(as_tuple=True)
            cell = points[rows] - grid.start
            bins[:, rows] = level[image, : 4 * self.reg_max].flatten(1)[:, cell].float()
            places[rows] = (torch.stack((cell % grid.width, cell // grid.width), dim=1) + 0.5) * grid.stride
            strides[rows] = float(grid.stride)
        boxes = _boxes(bins[None], places, strides, self.bin_values, self.reg_max)
        return xywh_to_xyxy(boxes[0, : len(points)])

    def decoded(self, keep_bins: bool = False) -> Decoded:
        return decode(self.maps, self.nc, self.bin_values, self.reg_max, self.strides, keep_bins)

    def _grids(self) -> tuple[Grid, ...]:
        return grids([(m.shape[2], m.shape[3]) for m in self.maps], self.strides)


def _wanted(values: Tensor, above: float, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Points (P,) and classes (P,) at which `values` (A, C) lie above a threshold; of `classes` (K,), if given."""
    wanted = values > above
    if classes is not None:
        allowed = torch.zeros(values.shape[1], dtype=torch.bool, device=values.device)
        allowed[classes] = True
        wanted &= allowed
    point, label = wanted.nonzero(as_tuple=True)
    return point, label


def _padded(values: Tensor) -> Tensor:
    """Values (..., P) with zeros after them, up to a multiple of 64.

    On a CPU torch computes exponentials of whole vectors in another way than those of the few left over at the end, and
    the last bit can differ.  So a point has the same score and box wherever it lies, and as `decode` gives them.
    """
    return F.pad(values, (0, -values.shape[-1] % 64))


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
    arguments and not read from shapes, because an exported graph would compute the shapes again in each run.
    """
    points, stride = anchor_points(grids([(m.shape[2], m.shape[3]) for m in maps], strides), maps[0].device)
    flat = torch.cat([m.flatten(2) for m in maps], dim=2).float()
    bins, logits = flat.split((4 * reg_max, classes), dim=1)
    boxes = _boxes(bins, points, stride, bin_values, reg_max)
    kept = bins.unflatten(1, (4, reg_max)) if keep_bins else None
    return Decoded(boxes.transpose(1, 2), logits.sigmoid(), kept)


def _boxes(bins: Tensor, points: Tensor, stride: Tensor, bin_values: Tensor, reg_max: int) -> Tensor:
    """Bins (B, 4R, P) of points (P, 2) with strides (P, 1) -> boxes (B, P, 4) xywh."""
    if reg_max == 1:
        sides = F.softplus(bins).transpose(1, 2)
    else:
        sides = torch.einsum("bsra,r->bas", bins.unflatten(1, (4, reg_max)).softmax(2), bin_values.float())
    return xyxy_to_xywh(ltrb_to_xyxy(points, sides * stride))


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Box sides at some points: `bins` (..., 4, R), `points` (..., 2) in px of the input, `strides` (..., 1)."""

    bins: Tensor
    points: Tensor
    strides: Tensor

    def boxes(self) -> Tensor:
        """Boxes (..., 4) xyxy in px of the input."""
        return ltrb_to_xyxy(self.points, sides_in_strides(self.bins) * self.strides)


@dataclass(frozen=True, slots=True, eq=False)
class HeadOutput(Sides):
    """The maps of all levels joined, points first: `bins` (B, A, 4, R), `logits` (B, A, C), `points` (A, 2) in px of
    the input, `strides` (A, 1)."""

    logits: Tensor
    levels: tuple[Grid, ...]

    def at(self, image: Tensor, point: Tensor) -> Sides:
        """The sides at some points (P,) of the images (P,)."""
        return Sides(self.bins[image, point], self.points[point], self.strides[point])


def split_maps(maps: Sequence[Tensor], reg_max: int, strides: Sequence[int]) -> HeadOutput:
    """Per-level maps (B, 4R + C, H / s, W / s) -> bins and class logits over all A points, in float32."""
    levels = grids([(m.shape[2], m.shape[3]) for m in maps], strides)
    points, stride = anchor_points(levels, maps[0].device)
    flat = torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], dim=1).float()
    bins, logits = flat.split((4 * reg_max, flat.shape[-1] - 4 * reg_max), dim=-1)
    return HeadOutput(bins.unflatten(-1, (4, reg_max)), points, stride, logits, levels)


def integral(logits: Tensor) -> Tensor:
    """The mean of each distribution: logits (..., R) -> sum_i softmax(logits)_i * i (...), in [0, R - 1].

    Source: Li et al., Generalized Focal Loss, NeurIPS 2020, eq. 4.
    """
    logits = full(logits)
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return (logits.softmax(-1) * bins).sum(-1)


def sides_in_strides(logits: Tensor) -> Tensor:
    """A head's box outputs (..., R) -> sides (...), in strides: the integral, or the softplus if R = 1.

    With R = 1 a side is one number, a Dirac distribution: DFL does not apply to it, and it can be of any length.
    """
    return F.softplus(full(logits)).squeeze(-1) if logits.shape[-1] == 1 else integral(logits)


def full(values: Tensor) -> Tensor:
    """Half precision becomes float32, so that sums do not overflow; wider floats stay as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
