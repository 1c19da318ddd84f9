"""YOLOX as its authors' code computes it and names its tensors, written plainly, to compare what is read with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BaseConv(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x * x.sigmoid()


class DWConv(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = BaseConv(c_in, c_in, kernel, stride, c_in)
        self.pconv = BaseConv(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pconv(self.dconv(x))
        return out


class Focus(nn.Module):
    def __init__(self, c_out: int) -> None:
        super().__init__()
        self.conv = BaseConv(12, c_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        upper_left, lower_left = x[..., ::2, ::2], x[..., 1::2, ::2]
        upper_right, lower_right = x[..., ::2, 1::2], x[..., 1::2, 1::2]
        out: Tensor = self.conv(torch.cat((upper_left, lower_left, upper_right, lower_right), dim=1))
        return out


class Bottleneck(nn.Module):
    def __init__(self, c: int, shortcut: bool, large: type[BaseConv | DWConv]) -> None:
        super().__init__()
        self.conv1, self.conv2, self.shortcut = BaseConv(c, c, 1), large(c, c, 3), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return y + x if self.shortcut else y


class CSPLayer(nn.Module):
    def __init__(self, c_in: int, c_out: int, n: int, shortcut: bool, large: type[BaseConv | DWConv]) -> None:
        super().__init__()
        hidden = c_out // 2
        self.conv1, self.conv2 = BaseConv(c_in, hidden, 1), BaseConv(c_in, hidden, 1)
        self.conv3 = BaseConv(2 * hidden, c_out, 1)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut, large) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(torch.cat((self.m(self.conv1(x)), self.conv2(x)), dim=1))
        return out


class SPPBottleneck(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = BaseConv(c, c // 2, 1), BaseConv(2 * c, c, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        out: Tensor = self.conv2(torch.cat([x] + [pool(x) for pool in self.m], dim=1))
        return out


class CSPDarknet(nn.Module):
    def __init__(self, w: int, n: int, large: type[BaseConv | DWConv]) -> None:
        super().__init__()
        self.stem = Focus(w)
        self.dark2 = nn.Sequential(large(w, 2 * w, 3, 2), CSPLayer(2 * w, 2 * w, n, True, large))
        self.dark3 = nn.Sequential(large(2 * w, 4 * w, 3, 2), CSPLayer(4 * w, 4 * w, 3 * n, True, large))
        self.dark4 = nn.Sequential(large(4 * w, 8 * w, 3, 2), CSPLayer(8 * w, 8 * w, 3 * n, True, large))
        self.dark5 = nn.Sequential(
            large(8 * w, 16 * w, 3, 2), SPPBottleneck(16 * w), CSPLayer(16 * w, 16 * w, n, False, large)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dark3 = self.dark3(self.dark2(self.stem(x)))
        dark4 = self.dark4(dark3)
        return dark3, dark4, self.dark5(dark4)


class YOLOPAFPN(nn.Module):
    """BGR (B, 3, H, W) from 0 to 255 -> features of the strides 8, 16 and 32, of 4, 8 and 16 times `w` channels."""

    def __init__(self, w: int, n: int, depthwise: bool) -> None:
        super().__init__()
        large = DWConv if depthwise else BaseConv
        self.backbone = CSPDarknet(w, n, large)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral_conv0, self.reduce_conv1 = BaseConv(16 * w, 8 * w, 1), BaseConv(8 * w, 4 * w, 1)
        self.C3_p4 = CSPLayer(16 * w, 8 * w, n, False, large)
        self.C3_p3 = CSPLayer(8 * w, 4 * w, n, False, large)
        self.bu_conv2, self.bu_conv1 = large(4 * w, 4 * w, 3, 2), large(8 * w, 8 * w, 3, 2)
        self.C3_n3 = CSPLayer(8 * w, 8 * w, n, False, large)
        self.C3_n4 = CSPLayer(16 * w, 16 * w, n, False, large)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dark3, dark4, dark5 = self.backbone(x)
        lateral = self.lateral_conv0(dark5)
        reduced = self.reduce_conv1(self.C3_p4(torch.cat((self.upsample(lateral), dark4), dim=1)))
        level8 = self.C3_p3(torch.cat((self.upsample(reduced), dark3), dim=1))
        level16 = self.C3_n3(torch.cat((self.bu_conv2(level8), reduced), dim=1))
        return level8, level16, self.C3_n4(torch.cat((self.bu_conv1(level16), lateral), dim=1))


class YOLOXHead(nn.Module):
    """Features -> (B, A, 5 + C): boxes as they are, objectness and classes after the sigmoid.  One convolution a branch
    is left out here, since nothing of the head is read but its number of classes."""

    def __init__(self, w: int, nc: int, depthwise: bool) -> None:
        super().__init__()
        large, levels = DWConv if depthwise else BaseConv, range(3)
        self.stems = nn.ModuleList(BaseConv(4 * w * 2**i, 4 * w, 1) for i in levels)
        self.cls_convs = nn.ModuleList(nn.Sequential(large(4 * w, 4 * w, 3)) for _ in levels)
        self.reg_convs = nn.ModuleList(nn.Sequential(large(4 * w, 4 * w, 3)) for _ in levels)
        self.cls_preds, self.reg_preds, self.obj_preds = (
            nn.ModuleList(nn.Conv2d(4 * w, rows, 1) for _ in levels) for rows in (nc, 4, 1)
        )

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        levels = []
        for i, feature in enumerate(features):
            x = self.stems[i](feature)
            box, cls = self.reg_convs[i](x), self.cls_convs[i](x)
            parts = (self.reg_preds[i](box), self.obj_preds[i](box).sigmoid(), self.cls_preds[i](cls).sigmoid())
            levels.append(torch.cat(parts, dim=1).flatten(2))
        return torch.cat(levels, dim=2).permute(0, 2, 1)


class YOLOX(nn.Module):
    def __init__(self, w: int, n: int, nc: int = 80, depthwise: bool = False) -> None:
        super().__init__()
        self.backbone, self.head = YOLOPAFPN(w, n, depthwise), YOLOXHead(w, nc, depthwise)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out
