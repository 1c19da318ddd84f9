"""The blocks of NanoDet: ShuffleNetV2's stages, a pyramid that only adds, separable convolutions; all with LeakyReLU.

Sources: Ma et al., ShuffleNet V2, ECCV 2018, section 3 and figure 3; RangiLyu/nanodet, whose code and weights are
public under Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gfldet.nn.blocks import ChainedBlock, Conv, Layer, Row

SLOPE = 0.1  # of LeakyReLU
EPS = 1e-5  # of its norms


class LeakyConv(Conv):
    """Convolution without bias, batch norm, LeakyReLU: (B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, groups=groups, act=False)
        self.bn.eps = EPS
        if act:
            self.act = nn.LeakyReLU(SLOPE)  # type: ignore[assignment]


class SeparableLeaky(ChainedBlock):
    """A filter for each channel, then a mix of the channels, each with norm and LeakyReLU.

    (B, c_in, H, W) -> (B, c_out, H, W).
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.depthwise = LeakyConv(c_in, c_in, kernel, groups=c_in)
        self.pointwise = LeakyConv(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class ChannelShuffle(nn.Module):
    """Channels of the first half and of the second in turns: a0 a1 b0 b1 -> a0 b0 a1 b1; (B, C, H, W) -> the same.

    By their numbers, since torch's own layer of this name cannot be exported to ONNX.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.order: Tensor
        self.register_buffer("order", torch.arange(channels).view(2, -1).T.flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.order)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit.  Two branches, joined, and their channels taken in turns.

    At stride 1 one half of the channels goes through as it is: (B, c_out, H, W) -> the same.  At stride 2 both branches
    see all channels: (B, c_in, H, W) -> (B, c_out, H / 2, W / 2).
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.width = half = c_out // 2
        self.side = nn.Sequential(_spatial(c_in, stride), LeakyConv(c_in, half)) if stride > 1 else None
        main = c_in if stride > 1 else half
        self.main = nn.Sequential(LeakyConv(main, half), _spatial(half, stride), LeakyConv(half, half))
        self.shuffle = ChannelShuffle(c_out)

    def forward(self, x: Tensor) -> Tensor:
        if self.side is None:
            through, x = x.split(self.width, dim=1)
        else:
            through = self.side(x)
        out: Tensor = self.shuffle(torch.cat((through, self.main(x)), dim=1))
        return out


class ShuffleStage(nn.Sequential):
    """A unit of stride 2, then units of stride 1: (B, c_in, H, W) -> (B, c_out, H / 2, W / 2)."""

    def __init__(self, c_in: int, c_out: int, repeats: int = 4) -> None:
        if c_out % 2:
            raise ValueError(f"{c_out} channels; a stage has an even number, since its units work on halves")
        super().__init__(
            ShuffleUnit(c_in, c_out, 2), *(ShuffleUnit(c_out, c_out, 1) for _ in range(max(repeats, 1) - 1))
        )

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        """The row's channels are the published ones (116, 232, ...), which are no multiples of 8: not scaled."""
        (c_out,) = row.args
        return Layer(cls(row.channels[0], c_out, row.repeats), c_out)


class Lateral(ChainedBlock):
    """A 1x1 convolution with a bias and nothing after it: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Add(nn.Module):
    """The sum of feature maps of one size."""

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        if len(set(row.channels)) != 1:
            raise ValueError(f"maps of {list(row.channels)} channels cannot be added; expected one number for all")
        return Layer(cls(*row.args), row.channels[0])

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        out, *others = x
        for other in others:
            out = out + other
        return out


class MaxPool(nn.MaxPool2d):
    """The maximum over windows: (B, C, H, W) -> (B, C, H / stride, W / stride)."""

    def __init__(self, kernel: int = 3, stride: int = 2) -> None:
        super().__init__(kernel, stride, kernel // 2)

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        return Layer(cls(*row.args), row.channels[0])


class Halve(nn.AvgPool2d):
    """Half the size, each cell the mean of four: (B, C, H, W) -> (B, C, H / 2, W / 2).

    It is what bilinear resizing by one half comes to.
    """

    def __init__(self) -> None:
        super().__init__(2)

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        return Layer(cls(*row.args), row.channels[0])


def _spatial(channels: int, stride: int) -> LeakyConv:
    """A 3x3 filter for each channel, with a norm and nothing after it."""
    return LeakyConv(channels, channels, 3, stride, groups=channels, act=False)
