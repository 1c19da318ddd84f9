"""YOLOv9's blocks by hand, its sizes as in the public files, and models made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gfldet.config.assets import resolve_model_yaml
from gfldet.errors import ConfigError
from gfldet.nn.blocks import Conv, Row
from gfldet.nn.build import read_description
from gfldet.nn.heads import GFLHead, GroupedHead
from gfldet.nn.tasks import DetectionModel
from gfldet.nn.yolov9_blocks import ELAN, SPPELAN, AConv, ADown, RepBottleneck, RepConv, RepNCSP, RepNCSPELAN

# Of the public files, without their auxiliary branch, and with one set of bins instead of one a level.
PARAMETERS = {"t": 2_442_640, "s": 7_226_208, "m": 20_124_000, "c": 25_498_752}


def plain(conv: Conv, weight: Tensor) -> Tensor:
    """Make a Conv a convolution with this weight alone: no norm, no activation."""
    with torch.no_grad():
        conv.conv.weight.copy_(weight)
    conv.bn.eps, conv.act = 0.0, nn.Identity()
    return weight


def picking(*channels: float) -> Tensor:
    """A 3x3 filter that adds its inputs' middles, each times a number."""
    weight = torch.zeros(1, len(channels), 3, 3)
    weight[0, :, 1, 1] = torch.tensor(channels)
    return weight


def shake(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.2, 0.6)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


@torch.no_grad()
def test_a_repconv_becomes_one_3x3_with_the_1x1_in_its_middle() -> None:
    block = RepConv(1, 1).eval()
    assert block.cv2 is not None
    plain(block.cv1, torch.arange(9.0).reshape(1, 1, 3, 3))
    plain(block.cv2, torch.full((1, 1, 1, 1), 100.0))
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 1.0
    expected = torch.arange(8.0, -1, -1).reshape(3, 3)  # a correlation shows its filter turned
    expected[1, 1] += 100
    torch.testing.assert_close(block(x)[0, 0], nn.functional.silu(expected))
    block.fuse()
    filter = torch.arange(9.0).reshape(3, 3)
    filter[1, 1] += 100
    torch.testing.assert_close(block.cv1.conv.weight[0, 0], filter)
    torch.testing.assert_close(block(x)[0, 0], nn.functional.silu(expected))
    assert [name for name, _ in block.named_parameters()] == ["cv1.conv.weight", "cv1.conv.bias"]


@torch.no_grad()
def test_a_repconv_s_norms_are_folded_once() -> None:
    block, x = shake(RepConv(6, 4)), torch.randn(2, 6, 7, 5)
    assert isinstance(block, RepConv)
    before = block(x)
    for _ in range(2):
        block.fuse()
        torch.testing.assert_close(block(x), before, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.modules())


@torch.no_grad()
def test_aconv_by_hand() -> None:
    block = AConv(1, 1).eval()
    plain(block.cv, picking(1.0))
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    # means of squares of 2 x 2 are 2.5 3.5 4.5 / 6.5 .. / 10.5 .. 12.5; every second of them
    assert block(x).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]


@torch.no_grad()
def test_adown_by_hand() -> None:
    block = ADown(2, 2).eval()
    plain(block.cv1, picking(1.0))
    plain(block.cv2, torch.full((1, 1, 1, 1), -1.0))
    x = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 2, 4, 4)
    first, second = block(x)[0].tolist()
    assert first == [[2.5, 4.5], [10.5, 12.5]]
    assert second == [[-7.5, -8.5], [-11.5, -12.5]]  # the largest mean around each
    with pytest.raises(ValueError, match="3 to 8 channels; even numbers are expected"):
        ADown(3, 8)


@torch.no_grad()
def test_elan_joins_its_steps() -> None:
    """Steps that add 10 and 100 times what they are given: a, b, 10 b, 1000 b, of which the last Conv adds all."""
    block = ELAN(2, 1, 2).eval()
    plain(block.cv1, torch.eye(2)[:, :, None, None])
    for step, factor in ((block.cv2, 10.0), (block.cv3, 100.0)):
        assert isinstance(step, Conv)
        plain(step, picking(factor))
    plain(block.cv4, torch.ones(1, 4, 1, 1))
    x = torch.tensor([3.0, 5.0])[None, :, None, None]
    assert block(x).item() == 3 + 5 + 50 + 5000
    with pytest.raises(ValueError, match="a part of 5 channels; an even number"):
        ELAN(4, 8, 5)


def test_rows_of_elans() -> None:
    row = Row((24,), 2, (64, 32), 0.5, 1e9)
    for kind in (ELAN, RepNCSPELAN):
        made = kind.from_row(row)
        assert isinstance(made.module, kind)
        assert (made.channels, made.module.cv1.conv.out_channels) == (32, 16)
        alone = kind.from_row(Row((24,), 2, (64,), 0.5, 1e9)).module
        assert isinstance(alone, kind)
        assert alone.cv1.conv.out_channels == 32
    inner = [module for module in made.module.modules() if isinstance(module, RepNCSP)]
    assert [len(csp.m) for csp in inner] == [2, 2]
    assert all(isinstance(block, RepBottleneck) and block.add for csp in inner for block in csp.m)
    with pytest.raises(TypeError, match="channels 'WIDE'; a number, or a name that every scale gives"):
        row.width("WIDE")  # type: ignore[arg-type]


def test_sppelan_is_half_as_wide_as_it_gives() -> None:
    block = SPPELAN(24, 16)
    assert (block.cv1.conv.weight.shape, block.cv2.conv.weight.shape) == ((8, 24, 1, 1), (16, 32, 1, 1))
    assert block.eval()(torch.randn(1, 24, 6, 6)).shape == (1, 16, 6, 6)


@torch.no_grad()
def test_each_side_has_a_branch_of_its_own() -> None:
    """What is changed in a quarter of the box branch changes the bins of that side alone."""
    head, features = GroupedHead(3, 4, (16, 32)).eval(), [torch.randn(1, 16, 4, 4), torch.randn(1, 32, 2, 2)]
    before = head(features)
    for side in range(4):
        changed = GroupedHead(3, 4, (16, 32)).eval()
        changed.load_state_dict(head.state_dict())
        for branch in changed.box:
            branch[1].conv.weight.chunk(4)[side].add_(0.3)  # type: ignore[index]
        for after, other in zip(changed(features), before, strict=True):
            differs = (after - other).abs().amax((0, 2, 3)) > 1e-5
            assert differs.tolist() == [number // 4 == side for number in range(16)] + [False] * 3


@pytest.mark.parametrize(
    ("nc", "channels", "expected"),
    [(80, 64, (64, 128)), (5, 64, (64, 64)), (50, 64, (64, 100)), (80, 256, (64, 256)), (1, 520, (132, 520))],
)
def test_widths_of_the_head(nc: int, channels: int, expected: tuple[int, int]) -> None:
    assert GroupedHead.widths(nc, 16, channels) == expected
    box, cls = GFLHead.widths(nc, 16, channels)
    assert (box, cls) == (max(64, channels // 4), max(channels, min(nc, 100)))


def model_of(name: str, nc: int | None = None) -> DetectionModel:
    path, scale = resolve_model_yaml(name)
    return DetectionModel(read_description(path, scale, nc))


@pytest.mark.parametrize("scale", PARAMETERS)
def test_parameter_counts_are_those_of_the_public_files(scale: str) -> None:
    with torch.device("meta"):
        model = model_of(f"gfldet-v9-{scale}")
    assert model.parameter_count() == PARAMETERS[scale]
    assert (model.strides, model.multiple, model.description.name) == ((8, 16, 32), 32, f"gfldet-v9-{scale}")


@torch.no_grad()
@pytest.mark.parametrize("scale", ["t", pytest.param("c", marks=pytest.mark.long)])
def test_fused_outputs_are_the_same(scale: str) -> None:
    model = model_of(f"gfldet-v9-{scale}", 3)
    shake(model).double()
    x = torch.rand(1, 3, 64, 96).double()
    before = model(x)[0]
    model.fuse()
    torch.testing.assert_close(model(x)[0], before, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert all(module.cv2 is None for module in model.modules() if isinstance(module, RepConv))


ROWS = "backbone: [[-1, 1, BLOCK, [WIDE, 3, 2]], [-1, 1, Conv, [16, 3, 4]]]\nhead: [[[0, 1], 1, GFLHead, [nc]]]\n"


@pytest.mark.parametrize(
    ("scales", "told"),
    [
        (
            "a: [1, 1, 512, {BLOCK: Conv, WIDE: 16}], b: [1, 1, 512, {BLOCK: Conv}], c: [1, 1, 512]",
            "scales.b: no value for WIDE, which other scales name\n  scales.c: no value for BLOCK, WIDE, which",
        ),
        (
            "a: [1, 1, 512, {BLOCK: Conv, WIDE: 16, WIDTH: 3, 4: 5}]",
            "scales: 4, 'WIDTH' stands in no row, neither as module nor in args",
        ),
    ],
)
def test_mistakes_in_the_names_of_scales(scales: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(f"scales: {{{scales}}}\n{ROWS}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_description(path)
    assert told in str(caught.value)
