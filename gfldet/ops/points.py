"""Anchor points: the centre of every cell of every feature map, in input pixels, and the cell's stride."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """One feature map: `height` x `width` cells of `stride` pixels; its points start at row `start` of all A points."""

    height: int
    width: int
    stride: int
    start: int

    @property
    def count(self) -> int:
        return self.height * self.width


def grids(shapes: Sequence[tuple[int, int]], strides: Sequence[int]) -> tuple[Grid, ...]:
    """Feature map sizes (height, width) and their strides -> grids, in the order of the levels."""
    out: list[Grid] = []
    start = 0
    for (height, width), stride in zip(shapes, strides, strict=True):
        out.append(Grid(height, width, stride, start))
        start += height * width
    return tuple(out)


def anchor_points(levels: Sequence[Grid], device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Points (A, 2) as x, y in input pixels and strides (A, 1), level by level, row by row.

    A point sits in the middle of its cell: (column + .5) * stride, (row + .5) * stride.
    """
    points, strides = [], []
    for level in levels:
        x = (torch.arange(level.width, device=device, dtype=torch.float32) + 0.5) * level.stride
        y = (torch.arange(level.height, device=device, dtype=torch.float32) + 0.5) * level.stride
        row, column = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((column, row), dim=-1).reshape(-1, 2))
        strides.append(torch.full((level.count, 1), float(level.stride), device=device))
    return torch.cat(points), torch.cat(strides)
