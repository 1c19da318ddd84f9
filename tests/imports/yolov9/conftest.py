"""YOLOv9 as its authors' code computes it and names its tensors, written plainly, to compare what is read with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Widths:
    """Of the rows 0, 1, 2 (and its part), 3, 4, 5 to 6, 7 to 9, 16 and 19."""

    stem: tuple[int, int]
    first: tuple[int, int]
    eight: tuple[int, int]
    sixteen: int
    thirty_two: int
    down: tuple[int, int]
    bottlenecks: int


SIZES = {
    "t": Widths((16, 32), (32, 32), (64, 64), 96, 128, (48, 64), 3),
    "c": Widths((64, 128), (256, 128), (256, 512), 512, 512, (256, 512), 1),
}


class Conv(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3)
        self.plain = not act

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.plain else x * x.sigmoid()


class RepConv(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(c, c, 3, act=False), Conv(c, c, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x) + self.conv2(x)
        return x * x.sigmoid()


class Bottleneck(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = RepConv(c), Conv(c, c, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(self.conv1(x))
        return out


class RepNCSP(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = Conv(c, c // 2), Conv(c, c // 2), Conv(c, c)
        self.bottleneck = nn.Sequential(*(Bottleneck(c // 2) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(torch.cat((self.bottleneck(self.conv1(x)), self.conv2(x)), dim=1))
        return out


class ELAN(nn.Module):
    """With `n` = 0 plain convolutions, else RepNCSPs of `n` bottlenecks, each with a convolution."""

    def __init__(self, c_in: int, c_out: int, part: int, n: int) -> None:
        super().__init__()
        half = part // 2
        self.conv1, self.conv4 = Conv(c_in, part), Conv(2 * part, c_out)
        self.conv2, self.conv3 = (
            nn.Sequential(RepNCSP(half, n), Conv(half, half, 3)) if n else Conv(half, half, 3) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        a, b = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        c = self.conv2(b)
        out: Tensor = self.conv4(torch.cat((a, b, c, self.conv3(c)), dim=1))
        return out


class AConv(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = Conv(c_in, c_out, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.avg_pool2d(x, 2, 1))
        return out


class ADown(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.half = c_in // 2
        self.conv1, self.conv2 = Conv(self.half, c_out // 2, 3, 2), Conv(self.half, c_out // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2, 1)
        first, second = x[:, : self.half], F.max_pool2d(x[:, self.half :], 3, 2, 1)
        return torch.cat((self.conv1(first), self.conv2(second)), dim=1)


class SPPELAN(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv5 = Conv(c, c // 2), Conv(2 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        pools = [F.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13)]  # as three of 5 in a chain
        out: Tensor = self.conv5(torch.cat((x, *pools), dim=1))
        return out


class Bins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.anc2vec = nn.Conv3d(16, 1, 1, bias=False)
        self.anc2vec.weight.data = torch.arange(16.0).reshape(1, 16, 1, 1, 1)


class Level(nn.Module):
    """Features -> class logits (B, C, H, W), bin logits (B, 4 x 16, H, W)."""

    def __init__(self, c: int, first: int, nc: int) -> None:
        super().__init__()
        boxes, classes = max(-(-first // 4 // 4) * 4, 64), max(first, min(2 * nc, 128))
        self.anchor_conv = nn.Sequential(
            Conv(c, boxes, 3), Conv(boxes, boxes, 3, groups=4), nn.Conv2d(boxes, 64, 1, groups=4)
        )
        self.class_conv = nn.Sequential(Conv(c, classes, 3), Conv(classes, classes, 3), nn.Conv2d(classes, nc, 1))
        self.anc2vec = Bins()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.class_conv(x), self.anchor_conv(x)


class Head(nn.Module):
    def __init__(self, channels: tuple[int, ...], nc: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Level(c, channels[0], nc) for c in channels)


class YOLOv9(nn.ModuleDict):
    """RGB (B, 3, H, W) from 0 to 1 -> what each level's head gives.  Row 23 stands for the auxiliary branch."""

    def __init__(self, size: str, nc: int = 80) -> None:
        w, plain = SIZES[size], size == "t"
        down, n = AConv if plain else ADown, w.bottlenecks
        b3, b4, b5 = w.eight[1], w.sixteen, w.thirty_two
        p3 = w.eight[0]
        rows: dict[int, nn.Module] = {
            0: Conv(3, w.stem[0], 3, 2),
            1: Conv(w.stem[0], w.stem[1], 3, 2),
            2: ELAN(w.stem[1], *w.first, 0 if plain else n),
            3: down(w.first[0], w.eight[0]),
            4: ELAN(w.eight[0], b3, w.eight[0], n),
            5: down(b3, b4),
            6: ELAN(b4, b4, b4, n),
            7: down(b4, b5),
            8: ELAN(b5, b5, b5, n),
            9: SPPELAN(b5),
            12: ELAN(b5 + b4, b4, b4, n),
            15: ELAN(b4 + b3, p3, p3, n),
            16: down(p3, w.down[0]),
            18: ELAN(w.down[0] + b4, b4, b4, n),
            19: down(b4, w.down[1]),
            21: ELAN(w.down[1] + b5, b5, b5, n),
            22: Head((p3, b4, b5), nc),
            23: SPPELAN(b5),
        }
        super().__init__({str(number): row for number, row in rows.items()})

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        kept: dict[int, Tensor] = {}
        for number in range(10):
            x = kept[number] = self[str(number)](x)
        up = nn.Upsample(scale_factor=2)
        n4 = self["12"](torch.cat((up(x), kept[6]), dim=1))
        p3 = self["15"](torch.cat((up(n4), kept[4]), dim=1))
        p4 = self["18"](torch.cat((self["16"](p3), n4), dim=1))
        p5 = self["21"](torch.cat((self["19"](p4), x), dim=1))
        self["23"](x)
        return [head(p) for head, p in zip(self["22"].heads, (p3, p4, p5), strict=True)]  # type: ignore[arg-type]


@torch.no_grad()
def _made(size: str, nc: int = 80) -> YOLOv9:
    torch.manual_seed(5)
    model = YOLOv9(size, nc).eval()
    hooks = []
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.uniform_(-0.3, 0.3)
        hooks.append(norm.register_forward_pre_hook(_measured))
    model(_images())
    for hook in hooks:
        hook.remove()
    return model


def _measured(norm: nn.Module, given: tuple[Tensor]) -> None:
    """Give a norm the statistics of what it is given."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(given[0].mean((0, 2, 3)))
    norm.running_var.copy_(given[0].var((0, 2, 3)))


def _images() -> Tensor:
    """RGB from 0 to 1 (4, 3, 64, 96): large patches and noise, since noise alone is even where strides are large."""
    generator = torch.Generator().manual_seed(1)
    patches = F.interpolate(torch.rand(4, 3, 4, 6, generator=generator), scale_factor=16, mode="bilinear")
    return 0.8 * patches + 0.2 * torch.rand(patches.shape, generator=generator)


def _saved(model: YOLOv9, path: Path) -> Path:
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def made() -> Callable[..., YOLOv9]:
    """("t" or "c", nc=80) -> a YOLOv9 whose norms have the statistics of `images`, as a trained one has those of its"""
    return _made


@pytest.fixture(scope="session")
def saved() -> Callable[[YOLOv9, Path], Path]:
    """(YOLOv9, path) -> the path of a file as its authors publish it"""
    return _saved


@pytest.fixture
def images() -> Tensor:
    """(4, 3, 64, 96), in double precision"""
    return _images().double()
