"""NanoDet's files are read whole: against a plain NanoDet written here, and against the real one by onnxruntime."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfldet.errors import CheckpointError
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import read_foreign
from gfldet.nn.tasks import DetectionModel

WIDTHS, NECK, NC, R = (48, 96, 192), 96, 3, 8  # NanoDet-m 0.5x
MEAN = torch.tensor([103.53, 116.28, 123.675])[:, None, None]  # of blue, green, red
STD = torch.tensor([57.375, 57.12, 58.395])[:, None, None]


def conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]


def leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.1)


class Unit(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        half = c_out // 2
        first = c_in if stride > 1 else half
        self.stride = stride
        side = [*conv(c_in, c_in, 3, 2, c_in), *conv(c_in, half), leaky()] if stride > 1 else []
        self.branch1 = nn.Sequential(*side)
        self.branch2 = nn.Sequential(
            *(*conv(first, half), leaky(), *conv(half, half, 3, stride, half), *conv(half, half), leaky())
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split(int(x.shape[1]) // 2, dim=1) if self.stride == 1 else (self.branch1(x), x)
        x = torch.cat((a, self.branch2(b)), dim=1)
        n, c, h, w = map(int, x.shape)  # as numbers, which is how they stand in the published graph
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Separable(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.depthwise, self.dwnorm = conv(c, c, 3, 1, c)
        self.pointwise, self.pwnorm = conv(c, c)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.dwnorm(self.depthwise(x)), 0.1)
        return F.leaky_relu(self.pwnorm(self.pointwise(x)), 0.1)


class Part(nn.Module):
    """A module with parts of the given names."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class NanoDet(nn.Module):
    """BGR (1, 3, H, W), normalised -> probabilities (1, A_l, C) of three levels, then bins' logits (1, A_l, 4R)."""

    def __init__(self, nc: int = NC) -> None:
        super().__init__()
        self.nc = nc
        stages, before = {}, 24
        for name, width, units in zip(("stage2", "stage3", "stage4"), WIDTHS, (4, 8, 4), strict=True):
            stages[name] = nn.Sequential(Unit(before, width, 2), *(Unit(width, width, 1) for _ in range(units - 1)))
            before = width
        self.backbone = Part(conv1=nn.Sequential(*conv(3, 24, 3, 2), leaky()), **stages)
        self.fpn = Part(lateral_convs=nn.ModuleList(Part(conv=nn.Conv2d(c, NECK, 1)) for c in WIDTHS))
        self.head = Part(
            cls_convs=nn.ModuleList(nn.ModuleList(Separable(NECK) for _ in range(2)) for _ in WIDTHS),
            gfl_cls=nn.ModuleList(nn.Conv2d(NECK, nc + 4 * R, 1) for _ in WIDTHS),
            gfl_reg=nn.ModuleList(nn.Conv2d(NECK, 4 * R, 1) for _ in WIDTHS),
            distribution_project=Part(),
        )
        self.head.distribution_project.register_buffer("project", torch.linspace(0, R - 1, R))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> list[Tensor]:
        body: Any = self.backbone
        x = F.max_pool2d(body.conv1(x), 3, 2, 1)
        maps = [x := stage(x) for stage in (body.stage2, body.stage3, body.stage4)]
        low, mid, top = (lateral.conv(m) for lateral, m in zip(self.fpn.lateral_convs, maps, strict=True))  # type: ignore[arg-type]
        mid = mid + _resized(top, 2)
        low = low + _resized(mid, 2)
        mid = mid + _resized(low, 0.5)
        top = top + _resized(mid, 0.5)
        head: Any = self.head
        classes, bins = [], []
        for level, feature in enumerate((low, mid, top)):
            for block in head.cls_convs[level]:
                feature = block(feature)
            both = head.gfl_cls[level](feature)
            cls, box = both.split([self.nc, 4 * R], dim=1)
            classes.append(cls.sigmoid().reshape(1, self.nc, -1).permute(0, 2, 1))
            bins.append(box.reshape(1, 4 * R, -1).permute(0, 2, 1))
        return [*classes, *bins]


def _resized(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear")


def expected(outputs: list[Any], sides: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """NanoDet's outputs -> boxes (A, 4) xyxy in px and scores (A, C): sides are means, from the middles of cells."""
    levels = [torch.as_tensor(output) for output in outputs]
    boxes = []
    for stride, bins in zip((8, 16, 32), levels[3:], strict=True):
        height, width = sides[0] // stride, sides[1] // stride
        for number, row in enumerate(bins[0].view(-1, 4, R)):
            left, top, right, bottom = ((side.softmax(0) * torch.arange(R)).sum() * stride for side in row)
            x, y = (number % width + 0.5) * stride, (number // width + 0.5) * stride
            boxes.append(torch.stack((x - left, y - top, x + right, y + bottom)))
        assert height * width == len(bins[0])
    return torch.stack(boxes), torch.cat(levels[:3], dim=1)[0]


@torch.no_grad()
def assert_same(foreign: ForeignModel, rgb: Tensor, outputs: list[Any]) -> None:
    """`rgb` (1, 3, H, W) from 0 to 1; before and after fuse()."""
    model = DetectionModel(foreign.description, foreign.names)
    model.load_state_dict(dict(foreign.weights))
    model.eval()
    boxes, scores = expected(outputs, (rgb.shape[2], rgb.shape[3]))
    for fused in (False, True):
        if fused:
            model.fuse()
            assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        found = model.decode(rgb)
        torch.testing.assert_close(found.corners(0, torch.arange(len(boxes))), boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.scores[0].T, scores, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def theirs() -> NanoDet:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = NanoDet()
        with torch.no_grad():
            for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
                norm.weight.uniform_(0.7, 1.3)
                norm.bias.uniform_(-0.3, 0.3)
                norm.momentum = None  # the plain mean
            model.train()
            for _ in range(4):
                model(torch.randn(1, 3, 128, 128))
    return model.eval()


@pytest.fixture(scope="module")
def rgb() -> Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def outputs(theirs: NanoDet, rgb: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found: list[Tensor] = theirs((255 * rgb.flip(1) - MEAN) / STD)
    return found


@pytest.fixture(scope="module")
def graph(theirs: NanoDet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export, as its authors publish it: norms folded into the convolutions."""
    pytest.importorskip("onnx")
    path = tmp_path_factory.mktemp("onnx") / "nanodet.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
        torch.onnx.export(copy.deepcopy(theirs), (torch.rand(1, 3, 64, 96),), path, dynamo=False, opset_version=11)
    return path


Change = Callable[[dict[str, Tensor]], Any]


@pytest.fixture
def saved(theirs: NanoDet, tmp_path: Path) -> Callable[..., Path]:
    def save(change: Change = lambda _: None, before: str = "", **beside: Any) -> Path:
        state = {f"{before}{name}": value.clone() for name, value in theirs.state_dict().items()}
        change(state)
        torch.save({"epoch": 280, "iter": 9, "state_dict": state, **beside}, tmp_path / "nano.pth")
        return tmp_path / "nano.pth"

    return save


@pytest.mark.parametrize("before", ["", "model."])
def test_a_state_dict_predicts_the_same(
    saved: Callable[..., Path], rgb: Tensor, outputs: list[Tensor], before: str
) -> None:
    foreign = read_foreign(saved(before=before))
    assert (foreign.description.name, foreign.description.nc, foreign.description.reg_max) == (
        *("gfldet-nanodet-m05x", NC, R),
    )
    assert (foreign.family, foreign.body_only, foreign.strides) == ("NanoDet", False, (8, 16, 32))
    assert foreign.names == ("class0", "class1", "class2")
    assert foreign.licence is not None
    assert foreign.licence.startswith("Apache-2.0")
    assert foreign.left == ("a second convolution for boxes (6 tensors), which its head never uses",)
    assert_same(foreign, rgb, outputs)


@pytest.mark.long
def test_averaged_weights_are_taken_where_there_are_any(
    saved: Callable[..., Path], rgb: Tensor, outputs: list[Tensor]
) -> None:
    def with_others(state: dict[str, Tensor]) -> None:
        state |= {name.replace("avg_model.", "model."): torch.zeros_like(value) for name, value in state.items()}

    foreign = read_foreign(saved(with_others, "avg_model."))
    assert foreign.left[-1].startswith("its weights beside their average (")
    assert_same(foreign, rgb, outputs)


def test_an_onnx_file_predicts_the_same(graph: Path, rgb: Tensor, outputs: list[Tensor]) -> None:
    foreign = read_foreign(graph)
    assert (foreign.description.name, foreign.imgsz) == ("gfldet-nanodet-m05x", (64, 96))
    assert "statistics of its norms" in foreign.left[0]
    assert_same(foreign, rgb, outputs)


def _without(name: str) -> Change:
    return lambda state: state.pop(name)


def _put(name: str, value: Tensor) -> Change:
    return lambda state: state.update({name: value})


MIXER = "backbone.stage3.2.branch2.5.weight"
STATES: dict[str, tuple[Change, str]] = {
    "missing": (_without(MIXER), rf"its {MIXER} is missing; \[48, 48, 1, 1\] is expected in NanoDet-m05x of 3 classes"),
    "transposed": (
        lambda s: s.update({"head.gfl_cls.1.weight": s["head.gfl_cls.1.weight"].transpose(0, 1)}),
        r"its head\.gfl_cls\.1\.weight is \[96, 35, 1, 1\]; \[35, 96, 1, 1\] is expected",
    ),
    "extra": (_put("head.more.weight", torch.ones(2)), r"1 tensors that NanoDet-m05x .* not have, such as head\.more"),
    "another size": (
        _put("backbone.stage2.0.branch2.0.weight", torch.ones(40, 24, 1, 1)),
        r"branch2\.0\.weight is \[40, 24, 1, 1\], which no known size of NanoDet has: \[58, 24, 1, 1\] in m",
    ),
    "bins": (_put("head.distribution_project.project", torch.ones(8)), "the values of its box bins"),
    "too many bins": (_put("head.distribution_project.project", torch.arange(17.0)), "its head is for -33 classes"),
    "no head": (_put("head.gfl_cls.0.weight", torch.ones(())), r"its head is for -32 classes and 8 bins"),
    "not finite": (
        lambda s: s[MIXER].fill_(float("nan")), rf"its {MIXER} has values that are no finite numbers"
    ),
    "plus": (_put("fpn.reduce_layers.0.conv.weight", torch.ones(96, 48, 1, 1)), "it is a NanoDet-Plus, .*NanoDet-m"),
}  # fmt: skip


@pytest.mark.parametrize("what", STATES)
def test_other_state_dicts_are_refused(what: str, saved: Callable[..., Path]) -> None:
    change, told = STATES[what]
    with pytest.raises(CheckpointError, match=rf"nano\.pth: refused as NanoDet: .*{told}.*; give"):
        read_foreign(saved(change))


def _first(proto: Any, kind: str) -> Any:
    return next(node for node in proto.graph.node if node.op_type == kind)


def _attribute(node: Any, name: str) -> Any:
    return next(attribute for attribute in node.attribute if attribute.name == name)


def _slope(proto: Any) -> None:
    _attribute(_first(proto, "LeakyRelu"), "alpha").f = 0.2


def _not_turned(proto: Any) -> None:
    _attribute(_first(proto, "Transpose"), "perm").ints[:] = [0, 1, 2, 3, 4]


def _nearest(proto: Any) -> None:
    _attribute(_first(proto, "Resize"), "mode").s = b"nearest"


def _other_corners(proto: Any) -> None:
    _attribute(_first(proto, "Resize"), "coordinate_transformation_mode").s = b"align_corners"


def _no_scores(proto: Any) -> None:
    for node in proto.graph.node:
        node.op_type = "Tanh" if node.op_type == "Sigmoid" else node.op_type


def _no_bias(proto: Any) -> None:
    del _first(proto, "Conv").input[2:]


GRAPHS: dict[str, tuple[Callable[[Any], None], str]] = {
    "slope": (_slope, r"no Conv \[24, 1, 3, 3\] of stride 2 that computes what backbone\.stage2\.0\.branch1\.0 does"),
    "channels in another order": (_not_turned, r"computes what backbone\.stage2\.1\.branch2\.0 does"),
    "resized otherwise": (_nearest, r"computes what head\.cls_convs\.0\.0\.depthwise does"),
    "resized by corners": (_other_corners, r"computes what head\.cls_convs\.0\.0\.depthwise does"),
    "no probabilities": (_no_scores, "classes and bins is not that of NanoDet"),
    "no bias": (_no_bias, "has no bias in the file"),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_other_graphs_are_refused(what: str, graph: Path, tmp_path: Path) -> None:
    import onnx

    change, told = GRAPHS[what]
    proto = onnx.load(graph)
    change(proto)
    (tmp_path / "other.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match=rf"other\.onnx: refused as NanoDet: .*{told}.*; give"):
        read_foreign(tmp_path / "other.onnx")


def test_real_weights() -> None:
    """The public NanoDet-m by onnxruntime, on noise and on squares."""
    if not os.environ.get("GFLDET_WEIGHTS"):
        pytest.skip("GFLDET_WEIGHTS names no folder with public files")
    runtime = pytest.importorskip("onnxruntime")
    path = Path(os.environ["GFLDET_WEIGHTS"]) / "nanodet_m_416.onnx"
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    foreign = read_foreign(path)
    assert (foreign.description.name, foreign.names[0], foreign.imgsz) == ("gfldet-nanodet-m", "person", (416, 416))
    noise = torch.rand(1, 3, 416, 416, generator=torch.Generator().manual_seed(2))
    for rgb in (noise, noise[..., :8, :8].repeat_interleave(52, 2).repeat_interleave(52, 3)):
        bgr = (255 * rgb.flip(1) - MEAN) / STD
        assert_same(foreign, rgb, session.run(None, {session.get_inputs()[0].name: bgr.numpy()}))
