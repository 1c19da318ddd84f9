"""Boxes: conversions between their forms, and the overlap of two sets of them.

Forms: `xyxy` two corners; `xywh` centre and size; `ltrb` distances from a point to the four sides.  All functions take
any float unit (pixels almost everywhere) and leave their arguments as they are.  Shape letters: P pairs, N and K boxes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

IoUKind = Literal["iou", "giou", "diou", "ciou"]

EPS = 1e-7  # makes 0/0 of two empty boxes 0; far below the area of any box measured in pixels


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Corners (..., 4) to centre and size (..., 4)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size (..., 4) to corners (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def ltrb_to_xyxy(points: Tensor, ltrb: Tensor) -> Tensor:
    """Distances (..., 4) from points (..., 2), both in one unit, to corners (..., 4)."""
    return torch.cat((points - ltrb[..., :2], points + ltrb[..., 2:]), dim=-1)


def xyxy_to_ltrb(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) from points (..., 2) to the sides of boxes (..., 4); negative where a point lies outside."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Area (...,) of corners (..., 4); a box of negative width or height counts as empty."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def aligned_iou(a: Tensor, b: Tensor, kind: IoUKind = "iou") -> Tensor:
    """Overlap (P,) of boxes a (P, 4) with boxes b (P, 4), row by row, both xyxy.

    The hull is the smallest box around both boxes.

    - `iou` lies in [0, 1].
    - `giou` lies in (-1, 1]: it subtracts the share of the hull that neither box covers (Rezatofighi et al., 2019).
    - `diou` subtracts the squared centre distance over the hull's squared diagonal (Zheng et al., 2020).
    - `ciou` also subtracts a term for the difference of aspect ratios (same paper).  The trade-off weight of this term
      carries no gradient, as in the paper.
    """
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    union = area(a) + area(b) - inside
    iou = inside / (union + EPS)
    if kind == "iou":
        return iou
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    if kind == "giou":
        hull_area = hull.prod(-1)
        return iou - (hull_area - union) / (hull_area + EPS)
    offset = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    diou = iou - offset.square().sum(-1) / (hull.square().sum(-1) + EPS)
    if kind == "diou":
        return diou
    return diou - _aspect_penalty(a, b, iou)


def _aspect_penalty(a: Tensor, b: Tensor, iou: Tensor) -> Tensor:
    """CIoU's alpha * v (P,): squared difference of the boxes' angles atan(w / h), weighted by how well they overlap."""
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    angle_a = torch.atan(size_a[..., 0] / (size_a[..., 1] + EPS))
    angle_b = torch.atan(size_b[..., 0] / (size_b[..., 1] + EPS))
    v = (4 / math.pi**2) * (angle_a - angle_b).square()
    with torch.no_grad():
        alpha = v / (v - iou + 1 + EPS)
    return alpha * v


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Plain IoU (N, K) of every box of a (N, 4) with every box of b (K, 4), both xyxy."""
    return aligned_iou(a[:, None], b[None], "iou")
