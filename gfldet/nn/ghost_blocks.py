"""Ghost blocks, cheaper than those of `blocks` (Han et al., GhostNet, CVPR 2020): half of the channels come from a
convolution, the other half from the first half by a filter for each channel.

Parameter shapes and names are those of the public YOLOv8 ghost graphs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfldet.nn.blocks import C3, ChainedBlock, Conv, DWConv


class GhostConv(ChainedBlock):
    """Half of the channels by a convolution, half by 5x5 filters on these: (B, c_in, H, W) -> (B, c_out, H / stride,
    W / stride)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        half = c_out // 2
        self.cv1 = Conv(c_in, half, kernel, stride, act=act)
        self.cv2 = DWConv(half, half, 5, act=act)

    def forward(self, x: Tensor) -> Tensor:
        half = self.cv1(x)
        return torch.cat((half, self.cv2(half)), dim=1)


class GhostBottleneck(ChainedBlock):
    """Two GhostConvs beside a shortcut: (B, c_in, H, W) -> (B, c_out, H / stride, W / stride); stride 1 or 2.

    With stride 1, c_in and c_out are equal.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        if stride not in (1, 2) or (stride == 1 and c_in != c_out):
            raise ValueError(
                f"GhostBottleneck of {c_in} to {c_out} channels and stride {stride}; stride 1 with as many channels "
                "out as in, or stride 2, is expected"
            )
        hidden = c_out // 2
        self.conv = nn.Sequential(
            GhostConv(c_in, hidden),
            DWConv(hidden, hidden, kernel, stride, act=False) if stride == 2 else nn.Identity(),
            GhostConv(hidden, c_out, act=False),
        )
        self.shortcut = (
            nn.Sequential(DWConv(c_in, c_in, kernel, stride, act=False), Conv(c_in, c_out, act=False))
            if stride == 2
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) + self.shortcut(x)
        return out


class C3Ghost(C3):
    """C3 with ghost bottlenecks: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, repeats: int = 1, shortcut: bool = True, expansion: float = 0.5) -> None:
        super().__init__(c_in, c_out, repeats, shortcut, expansion)
        hidden = int(c_out * expansion)
        self.m = nn.Sequential(*(GhostBottleneck(hidden, hidden) for _ in range(repeats)))
