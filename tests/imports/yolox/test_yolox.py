"""Weights of YOLOX: what is read computes the features that its own code computes; other files are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gfldet.errors import CheckpointError, ConfigError
from gfldet.imports import yolox
from gfldet.imports.registry import read_foreign
from gfldet.imports.shapes import body_shapes
from gfldet.model import Model

Made = Callable[..., Any]


@torch.no_grad()
@pytest.mark.parametrize("size", ["nano", pytest.param("tiny", marks=pytest.mark.long)])
def test_features_are_those_of_its_own_code(
    size: str, made: Made, saved: Made, assert_same: Made, images: Tensor, tmp_path: Path
) -> None:
    theirs = made(size)
    foreign = read_foreign(saved(theirs, tmp_path / "yolox.pth"))
    assert (foreign.family, foreign.body_only, foreign.strides) == ("YOLOX", True, (8, 16, 32))
    assert (foreign.description.name, foreign.names[0], len(foreign.names)) == (f"gfldet-yolox-{size}", "person", 80)
    assert foreign.left == (f"its head ({len(theirs.head.state_dict())} tensors), which has an objectness and no bins",)
    assert "Apache-2.0" in str(foreign.licence)
    expected = theirs.backbone(255 * images.flip(1))
    assert all(0.1 < float(feature.abs().max()) < 1e4 for feature in expected)
    assert_same(foreign, images, expected)


@pytest.mark.long
def test_another_number_of_classes_and_half_precision(made: Made, saved: Made, tmp_path: Path) -> None:
    foreign = read_foreign(saved(made("nano", nc=3).half(), tmp_path / "yolox.pth"))
    assert (foreign.names, foreign.description.nc) == (("class0", "class1", "class2"), 3)
    assert {value.dtype for value in foreign.weights.values()} == {torch.float32, torch.int64}


@pytest.mark.long
def test_what_was_read_is_a_body_to_train(made: Made, saved: Made, tmp_path: Path) -> None:
    model = Model(saved(made("nano"), tmp_path / "yolox.pth"))
    assert model.description.name == "gfldet-yolox-nano"
    with pytest.raises(ConfigError, match=r"yolox\.pth: these are the weights of a body alone"):
        model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, save=False, verbose=False)


@pytest.fixture(scope="module")
def nano(made: Made) -> dict[str, Tensor]:
    state: dict[str, Tensor] = made("nano").state_dict()
    return state


def _without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.pop(name)


def _with(name: str, *shape: int) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.update({name: torch.zeros(shape)})


CSP = "backbone.backbone.dark3.1"
STATE_CHANGES: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "a tensor too few": (
        _without(f"{CSP}.m.2.conv2.dconv.bn.bias"),
        rf"its {CSP}\.m\.2\.conv2\.dconv\.bn\.bias is missing; \[32\] is expected in YOLOX-nano",
    ),
    "a tensor too many": (
        _with(f"{CSP}.m.3.conv1.conv.weight", 32, 32, 1, 1),
        r"it has 1 tensors that YOLOX-nano does not have, such as backbone\.backbone\.dark3\.1\.m\.3\.conv1",
    ),
    "transposed": (
        _with("backbone.C3_p4.conv3.conv.weight", 128, 128, 1, 2),
        r"its backbone\.C3_p4\.conv3\.conv\.weight is \[128, 128, 1, 2\]; \[128, 128, 1, 1\] is expected in YOLOX-nano",
    ),
    "another width": (
        _with(yolox.STEM, 40, 12, 3, 3),
        r"its first convolution .* is \[40, 12, 3, 3\], which no known size.*\[16, 12, 3, 3\] in nano,.* in x",
    ),
    "the width of another size": (
        _with(yolox.STEM, 24, 12, 3, 3),
        r"its backbone\.backbone\.stem\.conv\.bn\.weight is \[16\]; \[24\] is expected in YOLOX-tiny",
    ),
    "no first convolution": (_without(yolox.STEM), r"its backbone.*stem.* is missing; four sides are expected"),
    "no classes": (_without(yolox.CLASSES), r"its head\.cls_preds\.0\.weight is missing"),
    "classes beyond count": (_with(yolox.CLASSES, 100_001, 1, 1, 1), "its outputs are for 100,001 classes"),
    "no number": (
        lambda state: state["backbone.C3_n4.conv1.bn.bias"].fill_(float("nan")),
        r"its backbone\.C3_n4\.conv1\.bn\.bias has values that are no finite numbers",
    ),
}


@pytest.mark.parametrize("what", STATE_CHANGES)
def test_other_state_dicts_are_refused(what: str, nano: dict[str, Tensor], tmp_path: Path) -> None:
    change, told = STATE_CHANGES[what]
    state = {name: value.clone() for name, value in nano.items()}
    change(state)
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth: refused as YOLOX: {told}.*; give .*weights of YOLOX"):
        read_foreign(tmp_path / "other.pth")


@pytest.mark.parametrize("size", ["nano", "tiny"])
def test_fixtures(size: str, public: Made, assert_same: Made) -> None:
    folder = public("GFLDET_FOREIGN")
    told = np.load(folder / f"yolox_{size}-random.npz")
    foreign = read_foreign(folder / f"yolox_{size}-random.pth")
    assert_same(foreign, torch.as_tensor(told["input_rgb01"]).float(), [told[f"feature{i}"] for i in range(3)])


@pytest.mark.parametrize("size", ["nano", "tiny", "s", "m", "l"])
def test_names_and_shapes_of_every_size(size: str, public: Made) -> None:
    shapes = json.loads((public("GFLDET_FOREIGN") / "shapes.json").read_text(encoding="utf-8"))[f"yolox_{size}"]
    model = yolox.model_of(tuple(shapes[yolox.STEM]), 80)
    assert model.description.name == f"gfldet-yolox-{size}"
    body = {yolox.their_name(ours): list(shape) for ours, shape in body_shapes(model).items()}
    assert body == {there: shape for there, shape in shapes.items() if there.startswith("backbone.")}
