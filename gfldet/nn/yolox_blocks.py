"""The blocks of YOLOX that YOLOv8 does not have (Ge et al., YOLOX, 2021; public code and weights under Apache-2.0).

Its other blocks are ours already: its CSP layer is C3, and its SPP is SPPF, since pools of 5, 9 and 13 side by side are
three of 5 in a row, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gfldet.nn.blocks import C3, Bottleneck, ChainedBlock, Conv, DWConv


class Focus(ChainedBlock):
    """Squares of 2 x 2 pixels as channels, then a convolution: (B, c_in, H, W) -> (B, c_out, H / 2, W / 2).

    The channels of the upper left pixels come first, then lower left, upper right, lower right.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = Conv(4 * c_in, c_out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        phases = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        out: Tensor = self.conv(torch.cat(phases, dim=1))
        return out


class SeparableConv(ChainedBlock):
    """A filter for each channel, then a mix of the channels, each with norm and SiLU.

    (B, c_in, H, W) -> (B, c_out, H / stride, W / stride).  It stands for a Conv of that kernel in the smallest YOLOX.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = DWConv(c_in, c_in, kernel, stride)
        self.pointwise = Conv(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class SeparableC3(C3):
    """C3 whose 3x3 convolutions are separable: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, repeats: int = 1, shortcut: bool = True, expansion: float = 0.5) -> None:
        super().__init__(c_in, c_out, repeats, shortcut, expansion)
        for block in self.m:
            assert isinstance(block, Bottleneck)
            plain = block.cv2.conv
            block.cv2 = SeparableConv(plain.in_channels, plain.out_channels)  # type: ignore[assignment]
