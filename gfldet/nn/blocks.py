"""Building blocks.  Each knows how to read its row of a model YAML: `from_row` owns the block's channel arithmetic.

Parameter shapes follow the YOLOv8 graph (Conv = convolution + batch norm + SiLU), so public parameter counts hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gfldet.nn.norm_act import norm_silu

BN_EPS = 1e-3  # as the published weights of this family were trained with
BN_MOMENTUM = 0.1  # torch's own; a smaller one does not settle in runs of a few hundred steps


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a model YAML as a block sees it.

    `channels` of each input, `repeats` after depth scaling, `args` as written, `width(c)` the scaled channel count.
    """

    channels: tuple[int, ...]
    repeats: int
    args: tuple[Any, ...]
    multiple: float
    max_channels: float

    def width(self, channels: int) -> int:
        """Channels after width scaling, rounded up to a multiple of 8.  TypeError for what is no number."""
        if not isinstance(channels, (int, float)):
            raise TypeError(f"channels {channels!r}; a number, or a name that every scale gives, is expected")
        return int(-(-min(channels, self.max_channels) * self.multiple // 8) * 8)


@dataclass(frozen=True, slots=True)
class Layer:
    """A row made into a module, and the channels that it gives out (of each map, where it gives several)."""

    module: nn.Module
    channels: int | tuple[int, ...]


class Block(Protocol):
    """What the registry holds."""

    @classmethod
    def from_row(cls, row: Row) -> Layer: ...


def same_padding(kernel: int, dilation: int = 1) -> int:
    """Padding that keeps the size at stride 1."""
    return dilation * (kernel - 1) // 2


class ChainedBlock(nn.Module):
    """A block made as Class(c_in, c_out, ...); a row's repeats are so many of them, one after the other."""

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        c_out, *rest = row.args
        width = row.width(c_out)
        blocks = [cls(row.channels[0] if i == 0 else width, width, *rest) for i in range(row.repeats)]
        return Layer(blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks), width)


class SelfRepeatingBlock(nn.Module):
    """A block made as Class(c_in, c_out, repeats, ...): it repeats something inside."""

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        c_out, *rest = row.args
        width = row.width(c_out)
        return Layer(cls(row.channels[0], width, row.repeats, *rest), width)


class Conv(ChainedBlock):
    """Convolution without bias, batch norm, SiLU: (B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        dilation: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        padding = same_padding(kernel, dilation) if padding is None else padding
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = nn.SiLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        # On a GPU not measured, and there an exchange for time that is shorter.
        if self.bn.training and type(self.bn) is nn.BatchNorm2d and type(self.act) is nn.SiLU and x.is_cpu:
            return norm_silu(self.bn, out)
        activated: Tensor = self.act(self.bn(out))
        return activated

    def fuse(self) -> None:
        """Fold the batch norm's running statistics into the convolution; for inference only."""
        if not isinstance(self.bn, nn.Identity):
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv.eval(), self.bn.eval())
            self.bn = nn.Identity()  # type: ignore[assignment]


class DWConv(Conv):
    """Conv with as many groups as its channels share: one filter a channel where c_in = c_out."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, dilation: int = 1, act: bool = True
    ) -> None:
        groups = _common_divisor(c_in, c_out)
        super().__init__(c_in, c_out, kernel, stride, groups=groups, dilation=dilation, act=act)


def _common_divisor(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


class Bottleneck(ChainedBlock):
    """Two convolutions and, where channels match, a shortcut: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(
        self, c_in: int, c_out: int, shortcut: bool = True, kernels: tuple[int, int] = (3, 3), expansion: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden, kernels[0])
        self.cv2 = Conv(hidden, c_out, kernels[1])
        self.add = shortcut and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv2(self.cv1(x))
        return x + out if self.add else out


class C2f(SelfRepeatingBlock):
    """A chain of bottlenecks on one half of the channels, all steps joined: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, repeats: int = 1, shortcut: bool = False, expansion: float = 0.5) -> None:
        super().__init__()
        self.hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, 2 * self.hidden)
        self.cv2 = Conv((2 + repeats) * self.hidden, c_out)
        self.m = nn.ModuleList(Bottleneck(self.hidden, self.hidden, shortcut, expansion=1.0) for _ in range(repeats))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, dim=1))
        for block in self.m:
            parts.append(block(parts[-1]))
        out: Tensor = self.cv2(torch.cat(parts, dim=1))
        return out


class C2(SelfRepeatingBlock):
    """A chain of bottlenecks on one half of the channels beside the other half: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, repeats: int = 1, shortcut: bool = True, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, 2 * hidden)
        self.cv2 = Conv(2 * hidden, c_out)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, expansion=1.0) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.cv1(x).chunk(2, dim=1)
        out: Tensor = self.cv2(torch.cat((self.m(first), second), dim=1))
        return out


class C3(SelfRepeatingBlock):
    """YOLOv5's cross-stage block: a chain of bottlenecks beside a plain branch: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, repeats: int = 1, shortcut: bool = True, expansion: float = 0.5) -> None:
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(c_in, hidden)
        self.cv3 = Conv(2 * hidden, c_out)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, (1, 3), 1.0) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))
        return out


class SPPF(ChainedBlock):
    """Three max-pools in a row, joined: wide context at the coarsest level: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 5, hidden: int | None = None) -> None:
        super().__init__()
        hidden = c_in // 2 if hidden is None else hidden
        self.cv1 = Conv(c_in, hidden)
        self.cv2 = Conv(4 * hidden, c_out)
        self.m = nn.MaxPool2d(kernel, stride=1, padding=same_padding(kernel))

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.m(parts[-1]))
        out: Tensor = self.cv2(torch.cat(parts, dim=1))
        return out


class Concat(nn.Module):
    """Feature maps of one size joined along channels (or `dim`)."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(x), dim=self.dim)

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        return Layer(cls(*row.args), sum(row.channels))


class Upsample(nn.Upsample):
    """torch's Upsample, read from a row `[size, scale_factor, mode]`; a YAML's bare `None` arrives as text."""

    def forward(self, input: Tensor) -> Tensor:
        out = super().forward(input)
        if out.is_cpu and out.requires_grad:
            # What follows is often a Concat, whose gradients are slices; of those torch goes through every element.
            out.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        return out

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        args: list[Any] = [None if value == "None" else value for value in row.args]
        return Layer(cls(*args), row.channels[0])
