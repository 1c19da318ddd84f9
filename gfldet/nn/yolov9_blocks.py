"""The blocks of YOLOv9 (Wang et al., ECCV 2024) that YOLOv8 does not have, in the sizes of MultimediaTechLab's (MIT).

ELAN         a chain of convolutions whose steps are all joined
RepNCSPELAN  the same with a cross-stage block in each step, whose convolutions have a 1x1 beside them in training
RepNCSP, RepBottleneck, RepConv  what that is made of
AConv, ADown the size halved
SPPELAN      pools in a row, joined
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfldet.nn.blocks import C3, SPPF, Bottleneck, ChainedBlock, Conv, Layer, Row


class RepConv(ChainedBlock):
    """A 3x3 convolution and a 1x1, each with its norm, added: (B, c_in, H, W) -> (B, c_out, H, W), then SiLU.

    For inference the two are one 3x3 convolution (Ding et al., RepVGG, CVPR 2021, section 3.3).
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.cv1 = Conv(c_in, c_out, 3, act=False)
        self.cv2: Conv | None = Conv(c_in, c_out, 1, act=False)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.cv1(x)
        if self.cv2 is not None:
            out = out + self.cv2(x)
        joined: Tensor = self.act(out)
        return joined

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the norms and the 1x1 convolution, as the middle of a 3x3 one, into the first; for inference only."""
        if self.cv2 is None:
            return
        self.cv1.fuse()
        self.cv2.fuse()
        large, small = self.cv1.conv, self.cv2.conv
        assert large.bias is not None
        assert small.bias is not None
        large.weight += F.pad(small.weight, (1, 1, 1, 1))
        large.bias += small.bias
        self.cv2 = None


class RepBottleneck(Bottleneck):
    """A RepConv, a 3x3 convolution, and a shortcut: (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, expansion=1.0)
        self.cv1 = RepConv(channels, channels)  # type: ignore[assignment]


class RepNCSP(C3):
    """C3 with RepBottlenecks: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, repeats: int = 1) -> None:
        super().__init__(c_in, c_out, repeats=0)
        self.m = nn.Sequential(*(RepBottleneck(c_out // 2) for _ in range(repeats)))


class ELAN(nn.Module):
    """Half of the channels through two convolutions, all steps joined: (B, c_in, H, W) -> (B, c_out, H, W).

    `part` is the width of the first convolution, which is then split in two; None: c_out.
    """

    def __init__(self, c_in: int, c_out: int, part: int | None = None, repeats: int = 1) -> None:
        super().__init__()
        part = part or c_out
        if part % 2:
            raise ValueError(f"a part of {part} channels; an even number is expected, since it is split in two")
        self.cv1 = Conv(c_in, part)
        self.cv2 = self.step(part // 2, repeats)
        self.cv3 = self.step(part // 2, repeats)
        self.cv4 = Conv(2 * part, c_out)

    @staticmethod
    def step(channels: int, repeats: int) -> nn.Module:
        """What each of the two steps is; ELAN's own repeats nothing."""
        return Conv(channels, channels, 3)

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        """A row `[c_out]` or `[c_out, part]`."""
        c_out, *part = (row.width(c) for c in row.args)
        return Layer(cls(row.channels[0], c_out, part[0] if part else None, row.repeats), c_out)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, dim=1))
        parts.append(self.cv2(parts[-1]))
        parts.append(self.cv3(parts[-1]))
        out: Tensor = self.cv4(torch.cat(parts, dim=1))
        return out


class RepNCSPELAN(ELAN):
    """ELAN whose steps are a RepNCSP of `repeats` bottlenecks and a 3x3 convolution each."""

    @staticmethod
    def step(channels: int, repeats: int) -> nn.Module:
        return nn.Sequential(RepNCSP(channels, channels, repeats), Conv(channels, channels, 3))


class AConv(ChainedBlock):
    """The mean of 2x2 cells, then a 3x3 convolution of stride 2: (B, c_in, H, W) -> (B, c_out, H / 2, W / 2)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.cv = Conv(c_in, c_out, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv(F.avg_pool2d(x, 2, 1))
        return out


class ADown(ChainedBlock):
    """The mean of 2x2 cells, then one half of the channels as in AConv, the other through a max-pool of stride 2.

    (B, c_in, H, W) -> (B, c_out, H / 2, W / 2).
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        if c_in % 2 or c_out % 2:
            raise ValueError(f"{c_in} to {c_out} channels; even numbers are expected, since both are halved")
        self.cv1 = Conv(c_in // 2, c_out // 2, 3, 2)
        self.cv2 = Conv(c_in // 2, c_out // 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = F.avg_pool2d(x, 2, 1).chunk(2, dim=1)
        return torch.cat((self.cv1(first), self.cv2(F.max_pool2d(second, 3, 2, 1))), dim=1)


class SPPELAN(SPPF):
    """SPPF whose inner width is half of what it gives, where SPPF's is half of what it is given."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 5) -> None:
        super().__init__(c_in, c_out, kernel, hidden=c_out // 2)
