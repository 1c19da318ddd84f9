"""Detection heads: feature maps of several levels -> box bins and class logits -> decoded boxes and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gfldet.nn.blocks import Conv
from gfldet.ops.boxes import ltrb_to_xyxy, xyxy_to_xywh
from gfldet.ops.points import anchor_points, grids


class GFLHead(nn.Module):
    """Anchor-free, decoupled: one branch gives R bins for each box side, the other C class-and-quality logits.

    Feature maps (B, c_l, H / s, W / s) -> maps (B, 4R + C, H / s, W / s), bins first.  `strides` is set by the builder.
    """

    def __init__(self, nc: int, reg_max: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.nc = nc
        self.reg_max = reg_max
        self.strides: tuple[int, ...] = ()
        box_width = max(16, channels[0] // 4, 4 * reg_max)
        cls_width = max(channels[0], min(nc, 100))
        self.box = nn.ModuleList(_branch(c, box_width, 4 * reg_max) for c in channels)
        self.cls = nn.ModuleList(_branch(c, cls_width, nc) for c in channels)
        # The bin values, a fixed parameter: the published parameter counts of this graph include them.
        self.bins = nn.Parameter(torch.arange(reg_max, dtype=torch.float32), requires_grad=False)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat((box(x), cls(x)), dim=1) for x, box, cls in zip(features, self.box, self.cls, strict=True)]

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps -> (B, 4 + C, A): boxes xywh in input pixels, then scores in [0, 1]."""
        points, strides = anchor_points(grids([(m.shape[2], m.shape[3]) for m in maps], self.strides), maps[0].device)
        flat = torch.cat([m.flatten(2) for m in maps], dim=2).float()
        bins, logits = flat.split((4 * self.reg_max, self.nc), dim=1)
        sides = torch.einsum("bsra,r->bas", bins.unflatten(1, (4, self.reg_max)).softmax(2), self.bins.float())
        boxes = xyxy_to_xywh(ltrb_to_xyxy(points, sides * strides))
        return torch.cat((boxes.transpose(1, 2), logits.sigmoid()), dim=1)

    def init_biases(self, prior: float = 0.01, half_side: float | None = None) -> None:
        """Start from low scores and, if the data's half side is known, from boxes of about its size.

        `prior` is the score that every class starts at, so that the many negatives do not swamp the first steps
        (RetinaNet, section 4.1).  `half_side` is the median half side of the data set's boxes in input pixels: the bins
        start as a bell around it, in strides, so that IoU with the truths is not near zero when assignment begins.
        """
        steps = torch.arange(self.reg_max, dtype=torch.float32)
        with torch.no_grad():
            for box, cls, stride in zip(self.box, self.cls, self.strides, strict=True):
                cls[-1].bias.fill_(-math.log((1 - prior) / prior))  # type: ignore[index]
                if half_side is not None:
                    mean = min(max(half_side / stride, 0.5), self.reg_max - 2)
                    bell = -0.5 * ((steps - mean) / (0.5 + mean / 4)).square()
                    box[-1].bias.copy_(bell.clamp(min=-7).repeat(4))  # type: ignore[index]


def _branch(c_in: int, width: int, c_out: int) -> nn.Sequential:
    """Two 3x3 convolutions and the 1x1 that predicts."""
    return nn.Sequential(Conv(c_in, width, 3), Conv(width, width, 3), nn.Conv2d(width, c_out, 1))
