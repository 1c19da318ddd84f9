"""ResNet + FPN as a row of a model YAML, and the models of the papers built on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gfldet.config.assets import resolve_model_yaml
from gfldet.nn.backbones import ResNetFPN
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel

PAPERS = ("retinanet", "atss", "gfl", "gflv2")


def model_of(name: str, nc: int = 3) -> DetectionModel:
    path, scale = resolve_model_yaml(name)
    return DetectionModel(read_description(path, scale, nc))


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "gflv2" else [pytest.mark.long]) for name in PAPERS]
)
def test_models_of_the_papers(name: str) -> None:
    model = model_of(f"{name}-r18")
    assert model.strides == (8, 16, 32, 64, 128)
    assert model.multiple == 32
    maps = model.train()(torch.rand(1, 3, 96, 160))
    channels = 4 * model.reg_max + 3
    assert [tuple(m.shape) for m in maps] == [
        (1, channels, h, w) for h, w in ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))
    ]
    decoded, _ = model.eval()(torch.rand(1, 3, 96, 160))
    assert decoded.shape == (1, 7, 240 + 60 + 15 + 6 + 2)
    with pytest.raises(ValueError, match="multiples of 32"):
        model(torch.rand(1, 3, 96, 100))


@pytest.mark.parametrize("name", PAPERS)
def test_deeper_ones_are_described_alike(name: str) -> None:
    small, large = (read_description(*resolve_model_yaml(f"{name}-r{depth}")) for depth in (18, 50))
    assert large.rows[0][3] == ["resnet50", 256]
    assert (small.reg_max, small.dgqp, small.preferred) == (large.reg_max, large.dgqp, large.preferred)


@pytest.mark.long
def test_fused_outputs_are_the_same(fuses_alike: Callable[..., None]) -> None:
    fuses_alike(model_of("gflv2-r18"), 64, 64)


def test_a_resnet_that_is_none() -> None:
    with pytest.raises(ValueError, match="resnet19"):
        ResNetFPN("resnet19")
