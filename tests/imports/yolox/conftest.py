"""YOLOX as its authors' code computes it and names its tensors, written plainly, to compare what is read with."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gfldet.imports.foreign import ForeignModel
from gfldet.nn.tasks import DetectionModel

SIZES = {"nano": (16, 1, True), "tiny": (24, 1, False)}  # width, bottlenecks, depthwise


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


@torch.no_grad()
def _made(size: str, nc: int = 80) -> YOLOX:
    torch.manual_seed(5)
    width, bottlenecks, depthwise = SIZES[size]
    model = YOLOX(width, bottlenecks, nc, depthwise)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.uniform_(-0.3, 0.3)
        norm.momentum = None  # the plain mean
    for _ in range(2):
        model.train()(255 * torch.rand(2, 3, 64, 64))
    return model.eval()


def _saved(model: YOLOX, path: Path) -> Path:
    torch.save({"start_epoch": 300, "model": model.state_dict(), "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def _exported(model: YOLOX, path: Path) -> Path:
    pytest.importorskip("onnx")
    folded = copy.deepcopy(model)
    for module in folded.modules():
        if isinstance(module, BaseConv):
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
        torch.onnx.export(folded, torch.rand(1, 3, 64, 96), path, dynamo=False, opset_version=11)
    return path


def _body(foreign: ForeignModel) -> DetectionModel:
    model = DetectionModel(foreign.description, foreign.names)
    missing, unexpected = model.load_state_dict(dict(foreign.weights), strict=False)
    assert not unexpected
    assert all(name.startswith("graph.layers.24.") for name in missing)
    return model


@torch.no_grad()
def _features(model: DetectionModel, x: Tensor) -> list[Tensor]:
    """What the head of a model of ours is given."""
    found: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, given: found.extend(given[0]))
    model.eval()(x)
    hook.remove()
    return found


def _assert_same(foreign: ForeignModel, x: Tensor, expected: Sequence[Any], to: float = 1e-4) -> None:
    model = _body(foreign)
    for fused in (False, True):
        if fused:
            model.fuse()
            assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        for feature, other in zip(_features(model, x), map(torch.as_tensor, expected), strict=True):
            assert feature.shape == other.shape
            assert float((feature - other).abs().max()) <= to * float(other.abs().max())


@pytest.fixture(scope="session")
def made() -> Callable[..., YOLOX]:
    """("nano" or "tiny", nc=80) -> a YOLOX whose norms have the statistics of images, as a trained one has"""
    return _made


@pytest.fixture(scope="session")
def saved() -> Callable[[YOLOX, Path], Path]:
    """(YOLOX, path) -> the path of a file as its authors publish it"""
    return _saved


@pytest.fixture(scope="session")
def exported() -> Callable[[YOLOX, Path], Path]:
    """(YOLOX, path) -> the path of its export: norms folded, the names of layers lost"""
    return _exported


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """(what was read, RGB from 0 to 1, features, to=1e-4): equal to `to` of their size, before and after fuse()"""
    return _assert_same


@pytest.fixture
def images() -> Tensor:
    """RGB from 0 to 1."""
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
