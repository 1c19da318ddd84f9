"""The body of YOLOX: its blocks by hand, its sizes as published, and models made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from gfldet.config.assets import cfg_folder, resolve_model_yaml, scales_of
from gfldet.errors import ConfigError
from gfldet.nn.blocks import C3, SPPF, Conv, Row
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.nn.yolox_blocks import Focus, SeparableC3, SeparableConv

YAML = cfg_folder() / "models" / "gfldet-yolox.yaml"
# Millions of parameters as published (Ge et al., YOLOX, tables 3 and 4), with its own head.
PUBLISHED = {"nano": "0.91", "tiny": "5.06", "s": "9.0", "m": "25.3", "l": "54.2", "x": "99.1"}


def model_of(name: str, nc: int = 3) -> DetectionModel:
    path, scale = resolve_model_yaml(name)
    return DetectionModel(read_description(path, scale, nc))


@torch.no_grad()
def test_focus_takes_the_phases_in_their_order() -> None:
    """A convolution that adds 1, 10, 100 and 1000 times the first channel of its four phases, at a square's place."""
    focus = Focus(1, 1).eval()
    focus.conv.conv.weight.zero_()
    focus.conv.conv.weight[0, :, 1, 1] = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    focus.conv.bn.eps = 0.0
    focus.conv.act = nn.Identity()
    image = torch.tensor([[1.0, 3.0, 5.0, 6.0], [2.0, 4.0, 7.0, 8.0]])
    # upper left + 10 lower left + 100 upper right + 1000 lower right
    assert focus(image[None, None]).tolist() == [[[[1 + 20 + 300 + 4000, 5 + 70 + 600 + 8000]]]]


def test_pools_in_a_row_are_those_side_by_side() -> None:
    x, block = torch.randn(2, 16, 13, 9), SPPF(16, 24).eval()
    with torch.no_grad():
        first = block.cv1(x)
        pools = [nn.MaxPool2d(side, 1, side // 2)(first) for side in (5, 9, 13)]
        assert torch.equal(block(x), block.cv2(torch.cat([first, *pools], dim=1)))


def test_a_separable_convolution_is_two() -> None:
    made = SeparableConv.from_row(Row((16,), 1, (64, 3, 2), 0.25, 1e9))
    assert made.channels == 16
    shapes = [tuple(m.weight.shape) for m in made.module.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(16, 1, 3, 3), (16, 16, 1, 1)]
    x = torch.randn(1, 16, 8, 8)
    block = made.module.eval()
    assert isinstance(block, SeparableConv)
    with torch.no_grad():
        each = torch.cat([nn.functional.conv2d(x[:, i : i + 1], block.depthwise.conv.weight[i : i + 1], None, 2, 1)
                          for i in range(16)], dim=1)  # fmt: skip
        torch.testing.assert_close(block(x), block.pointwise(block.depthwise.act(block.depthwise.bn(each))))


def test_in_a_separable_c3_the_large_convolutions_are_separable() -> None:
    plain, separable = C3(16, 16, 2), SeparableC3(16, 16, 2)
    count = [sum(p.numel() for p in block.parameters()) for block in (plain, separable)]
    # 2 x (8 x 8 x 9) and a norm of 8; 2 x (8 x 9 + 8 x 8) and two norms of 8
    assert count[0] - count[1] == 2 * (8 * 8 * 9 + 16) - 2 * (8 * 9 + 8 * 8 + 32)
    assert all(block.add for block in separable.m)


@pytest.mark.parametrize("scale", PUBLISHED)
def test_sizes_are_the_published_ones(scale: str) -> None:
    """Our body, and the head that it has in YOLOX: for each level a 1x1 stem, two 3x3 a branch, 85 rows."""
    description = read_description(YAML, scale)
    with torch.device("meta"):
        model = DetectionModel(description)
    assert (model.strides, description.name) == ((8, 16, 32), f"gfldet-yolox-{scale}")
    body = sum(p.numel() for layer in model.graph.layers[:-1] for p in layer.parameters())
    width = int(256 * description.width)
    large = width * 9 + 2 * width + width**2 if scale == "nano" else 9 * width**2
    stems = sum(width * 2**level * width + 2 * width for level in range(3))
    head = stems + 3 * (4 * (large + 2 * width) + 85 * (width + 1))
    places = len(PUBLISHED[scale].partition(".")[2])
    assert f"{(body + head) / 1e6:.{places}f}" == PUBLISHED[scale]


def test_its_scales_have_names_longer_than_a_letter() -> None:
    assert scales_of(YAML) == tuple(PUBLISHED)
    for scale in PUBLISHED:
        assert resolve_model_yaml(f"gfldet-yolox-{scale}.yaml") == (YAML, scale)
    assert read_description(YAML).name == "gfldet-yolox-nano"
    with pytest.raises(ConfigError, match="did you mean gfldet-yolox-nano"):
        resolve_model_yaml("gfldet-yolo-nano")


@pytest.mark.parametrize("scale", ["nano", "tiny"])
def test_fused_outputs_are_the_same(scale: str, fuses_alike: Callable[..., None]) -> None:
    model = model_of(f"gfldet-yolox-{scale}")
    fuses_alike(model, 64, 96)
    assert model.multiple == 32


ROWS = "backbone: [[-1, 1, BLOCK, [WIDE, 3, 2]], [-1, 1, Conv, [16, 3, 4]]]\nhead: [[[0, 1], 1, GFLHead, [nc]]]\n"


def test_a_scale_names_modules_and_arguments(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    scales = "scales: {a: [1, 1, 512, {BLOCK: Conv, WIDE: 16}], bb: [1, 1, 512, {BLOCK: SeparableConv, WIDE: 32}]}\n"
    path.write_text(scales + ROWS, encoding="utf-8")
    first, second = (DetectionModel(read_description(path, scale)).graph.layers[0] for scale in ("a", "bb"))
    assert isinstance(first, Conv)
    assert first.conv.out_channels == 16
    assert isinstance(second, SeparableConv)
    assert second.pointwise.conv.out_channels == 32


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        ("[1, 1, 512]", "row 0 .*unknown module 'BLOCK'"),
        ("[1, 1, 512, {BLOCK: Convv, WIDE: 8}]", r"row 0 .*'Convv'.*did you mean 'Conv'\?"),
        ("[1, 1, 512, BLOCK]", "scales.a: 'BLOCK'; expected names in the rows, each with a word or a number"),
        ("[1, 1, 512, {BLOCK: [Conv]}]", "scales.a: .*expected names in the rows, each with a word or a number"),
        ("[1, 1, 512, {BLOCK: Conv}, 3]", r"scales.a: .*expected three numbers \[depth, width, max_channels\]"),
        ("[1, 1]", "scales.a: .*expected three numbers"),
    ],
)
def test_mistakes_in_a_scale(scale: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(f"scales: {{a: {scale}}}\n{ROWS}", encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        read_description(path)
