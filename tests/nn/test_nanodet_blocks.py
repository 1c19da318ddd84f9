"""NanoDet's blocks by hand, its sizes as published, and models made of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gfldet.config.assets import resolve_model_yaml
from gfldet.errors import ConfigError
from gfldet.nn.backbones import Normalise
from gfldet.nn.blocks import Row
from gfldet.nn.build import build, read_description
from gfldet.nn.heads import PlainHead
from gfldet.nn.nanodet_blocks import Add, ChannelShuffle, Halve, LeakyConv, ShuffleStage, ShuffleUnit
from gfldet.nn.tasks import DetectionModel

# Millions of parameters, as published beside the weights.
PUBLISHED = {"m05x": 0.28, "m": 0.95, "m15x": 2.08}


def model_of(scale: str, nc: int = 80) -> DetectionModel:
    path, found = resolve_model_yaml(f"gfldet-nanodet-{scale}")
    return DetectionModel(read_description(path, found, nc))


@pytest.mark.parametrize("scale", PUBLISHED)
def test_sizes_are_the_published_ones(scale: str) -> None:
    model = model_of(scale)
    assert (model.strides, model.multiple, model.reg_max) == ((8, 16, 32), 32, 8)
    assert model.parameter_count() / 1e6 == pytest.approx(PUBLISHED[scale], abs=0.02)


def test_images_are_normalised_as_the_published_figures_are() -> None:
    """Mean 123.675, 116.28, 103.53 and deviation 58.395, 57.12, 57.375 of red, green and blue from 0 to 255."""
    pixel = torch.tensor([123.675 + 58.395, 116.28, 103.53 - 2 * 57.375]).view(1, 3, 1, 1) / 255
    torch.testing.assert_close(Normalise()(pixel).flatten(), torch.tensor([1.0, 0.0, -2.0]), atol=1e-5, rtol=0)


def test_channels_in_turns() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert ChannelShuffle(6)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    y = torch.rand(2, 8, 3, 5)
    assert torch.equal(ChannelShuffle(8)(y), nn.ChannelShuffle(2)(y))


def test_a_unit_lets_half_of_the_channels_through() -> None:
    x, unit = torch.rand(1, 8, 4, 4), ShuffleUnit(8, 8, 1).eval()
    with torch.no_grad():
        found = unit(x)
        assert torch.equal(found[:, 0::2], x[:, :4])
        assert torch.equal(found[:, 1::2], unit.main(x[:, 4:]))
    assert ShuffleUnit(8, 12, 2)(torch.rand(2, 8, 8, 8)).shape == (2, 12, 4, 4)


def test_a_mean_of_four_is_bilinear_resizing_by_half() -> None:
    x = torch.rand(2, 3, 8, 12)
    torch.testing.assert_close(Halve()(x), F.interpolate(x, scale_factor=0.5, mode="bilinear"))


def test_a_convolution_has_nanodet_s_slope_and_eps() -> None:
    block = LeakyConv(2, 2).eval()
    with torch.no_grad():
        block.conv.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]])[:, :, None, None])
        found = block(torch.ones(1, 2, 1, 1)).flatten()
    scale = (1 + 1e-5) ** -0.5
    torch.testing.assert_close(found, torch.tensor([scale, -0.1 * scale]))


def test_a_stage_has_its_channels_as_they_are_written() -> None:
    made = ShuffleStage.from_row(Row((24,), 4, (116,), 0.25, 64))
    assert made.channels == 116
    assert made.module(torch.rand(2, 24, 8, 8)).shape == (2, 116, 4, 4)
    with pytest.raises(ValueError, match="115 channels; a stage has an even number"):
        ShuffleStage.from_row(Row((24,), 4, (115,), 1.0, 1e9))


def test_maps_are_added() -> None:
    assert Add()([torch.full((1, 1, 1, 1), v) for v in (1.0, 2.0, 4.0)]).item() == 7
    with pytest.raises(ValueError, match=r"maps of \[8, 16\] channels cannot be added"):
        Add.from_row(Row((8, 16), 1, (), 1.0, 1e9))


def test_its_head_is_one_convolution_for_each() -> None:
    head = PlainHead(3, 8, (16, 16))
    head.strides = (8, 16)
    head.init_biases(prior=0.02, half_side=40.0)
    features = [torch.zeros(1, 16, 8, 8), torch.zeros(1, 16, 4, 4)]
    with torch.no_grad():
        decoded = head.decode(head(features))
    assert decoded.scores.mean().item() == pytest.approx(0.02, rel=1e-4)
    assert (decoded.boxes[:, 2:] / 2).mean().item() == pytest.approx(40, rel=0.15)
    names = set(head.state_dict())
    assert set(head.class_rows()) == {f"cls_out.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    assert set(head.box_names()) | set(head.class_rows()) | {"bins"} == names
    assert [tuple(weight.shape) for weight in head.predicting()] == [(32, 16, 1, 1)] * 2 + [(3, 16, 1, 1)] * 2


def test_fused_outputs_are_the_same(fuses_alike: Callable[..., None]) -> None:
    fuses_alike(model_of("m05x", 3), 64, 96)


def test_a_row_with_wrong_channels_is_named() -> None:
    path, scale = resolve_model_yaml("gfldet-nanodet-m05x")
    description = read_description(path, scale)
    rows = [list(row) for row in description.rows]
    rows[10][0] = [5, -1]
    with pytest.raises(ConfigError, match=r"row 10 .*maps of \[192, 96\] channels cannot be added"):
        build(type(description).from_dict({**description.to_dict(), "rows": rows}))
