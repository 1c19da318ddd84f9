"""The next head, backbone and block are a class and one line in a registry: trained, used and exported like any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfldet import Model
from gfldet.nn import build
from gfldet.nn.blocks import Layer, Row
from gfldet.nn.build import read_description
from gfldet.nn.heads import Head
from gfldet.nn.tasks import DetectionModel


class PlainHead(Head):
    """One 1x1 convolution a level for all that is predicted."""

    def __init__(self, nc: int, reg_max: int, channels: Sequence[int], dgqp: bool = False) -> None:
        super().__init__(nc, reg_max, channels, dgqp)
        self.box = nn.ModuleList(nn.Conv2d(c, 4 * reg_max, 1) for c in channels)
        self.cls = nn.ModuleList(nn.Conv2d(c, nc, 1) for c in channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [self.join(box(x), cls(x)) for x, box, cls in zip(features, self.box, self.cls, strict=True)]

    def class_rows(self) -> tuple[str, ...]:
        return tuple(f"cls.{level}.{kind}" for level in range(len(self.cls)) for kind in ("weight", "bias"))

    def predicting(self) -> list[Tensor]:
        return [layer.weight for part in (self.box, self.cls) for layer in part]  # type: ignore[misc]

    @torch.no_grad()
    def init_biases(self, prior: float = 0.01, half_side: float | None = None) -> None:
        for layer in self.cls:
            layer.bias.fill_(-4.6)  # type: ignore[operator, union-attr]


class TwoMaps(nn.Module):
    """A backbone: images -> maps at 1/8 and 1/16, of 8 channels each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 2, 2)

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        return Layer(cls(), (8, 8))

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.first(x).relu()
        return [first, self.second(first).relu()]


class Doubled(nn.Module):
    """A block: its input twice over, along channels."""

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        return Layer(cls(), 2 * row.channels[0])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, x), dim=1)


YAMLS = {
    "head": """\
nc: 2
reg_max: 8
backbone:
  - [-1, 1, Conv, [8, 3, 8]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[0, 1], 1, PlainHead, [nc]]
""",
    "backbone": """\
nc: 2
reg_max: 8
backbone:
  - [-1, 1, TwoMaps, []]
head:
  - [-1, 1, GFLHead, [nc]]
""",
    "block": """\
nc: 2
reg_max: 8
backbone:
  - [-1, 1, Conv, [8, 3, 8]]
  - [-1, 1, Doubled, []]
head:
  - [-1, 1, GFLHead, [nc]]
""",
}


@pytest.fixture
def yaml_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """what, end2end -> a model YAML with the new class in it, which is registered by one line."""

    def write(what: str, end2end: bool = False) -> Path:
        monkeypatch.setitem(build.HEADS, "PlainHead", PlainHead)
        monkeypatch.setitem(build.BLOCKS, "TwoMaps", TwoMaps)
        monkeypatch.setitem(build.BLOCKS, "Doubled", Doubled)
        path = tmp_path / f"{what}.yaml"
        path.write_text(YAMLS[what] + f"end2end: {str(end2end).lower()}\n", encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("what", "end2end"),
    [
        pytest.param("head", False, marks=pytest.mark.long),
        ("head", True),
        ("backbone", False),
        pytest.param("block", True, marks=pytest.mark.long),
    ],
)
def test_a_new_part_trains_predicts_and_is_exported(
    what: str,
    end2end: bool,
    yaml_of: Callable[..., Path],
    dataset: Callable[..., Any],
    quick: dict[str, Any],
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    drawn = dataset()
    model = Model(yaml_of(what, end2end))
    fresh = {name: value.clone() for name, value in model.model.state_dict().items()}
    metrics = model.train(**{**quick, "epochs": 1}, data=drawn.yaml)
    assert metrics is not None
    assert model.save_dir is not None
    trained = Model(model.save_dir / "weights" / "best.pt")
    weights = trained.model.state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in weights.items() if name.endswith("weight"))
    assert trained.model.end2end == end2end
    images = sorted((drawn.images / "val").glob("*.png"))
    found = trained.predict(images, conf=0.0, max_det=5, verbose=False, device="cpu", threads=1)
    file = trained.export(out=tmp_path / "new.onnx", data=drawn.yaml, threads=1, verbose=False)
    again = Model(file).predict(images, conf=0.0, max_det=5, verbose=False, device="cpu", threads=1)
    for ours, theirs in zip(found, again, strict=True):
        assert len(ours.boxes) == len(theirs.boxes) == 5
        np.testing.assert_allclose(ours.boxes.conf, theirs.boxes.conf, atol=1e-4)


def test_strides_of_new_parts_are_measured(yaml_of: Callable[..., Path]) -> None:
    assert DetectionModel(read_description(yaml_of("head"))).strides == (8, 16)
    assert DetectionModel(read_description(yaml_of("backbone"))).strides == (8, 16)
    model = DetectionModel(read_description(yaml_of("block", end2end=True)))
    assert (model.strides, model.multiple) == ((8,), 8)
