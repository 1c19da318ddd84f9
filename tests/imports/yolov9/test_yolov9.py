"""Weights of YOLOv9: what is read computes what its own code computes; other files are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfldet import cli
from gfldet.config.assets import resolve_model_yaml
from gfldet.errors import CheckpointError
from gfldet.imports import yolov9
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import read_foreign
from gfldet.model import Model
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import checkpoint as checkpoints

Made = Callable[..., Any]
Changes = dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]]
HEAD = "22.heads."


def _close(found: Tensor, expected: Any, to: float = 1e-4) -> None:
    """Equal to `to` of the size of what is expected, and no smaller than `to`."""
    expected = torch.as_tensor(expected)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= to * max(1.0, float(expected.abs().max()))


@torch.no_grad()
def _assert_same(foreign: ForeignModel, x: Tensor, cls: Sequence[Any], bins: Sequence[Any]) -> DetectionModel:
    """The same class logits (B, C, H, W), bin logits (B, 4R, H, W) and sides in strides, before and after fuse().

    In the precision of `x`: deep networks of random weights make much of the last digits.
    """
    model = DetectionModel(foreign.description, foreign.names).eval()
    model.load_state_dict(dict(foreign.weights))
    model.to(x.dtype)
    for fused in (False, True):
        if fused:
            model.fuse()
            assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        _, maps = model(x)
        for found, logits, box in zip(maps, cls, map(torch.as_tensor, bins), strict=True):
            _close(found[:, : 4 * model.reg_max], box)
            _close(found[:, 4 * model.reg_max :], logits)
            sides = [_sides(b, model.reg_max) for b in (found[:, : 4 * model.reg_max], box)]
            _close(*sides)
    return model


def _sides(bins: Tensor, reg_max: int) -> Tensor:
    """(B, 4R, H, W) logits -> (B, 4, H, W) sides."""
    return torch.einsum("bsrhw,r->bshw", bins.unflatten(1, (4, reg_max)).softmax(2), torch.arange(reg_max).to(bins))


@torch.no_grad()
@pytest.mark.parametrize("size", ["t", pytest.param("c", marks=pytest.mark.long)])
def test_outputs_are_those_of_its_own_code(size: str, made: Made, saved: Made, images: Tensor, tmp_path: Path) -> None:
    theirs = made(size)
    foreign = read_foreign(saved(theirs, tmp_path / "w.pt"))
    assert (foreign.family, foreign.body_only, foreign.strides) == ("YOLOv9", False, (8, 16, 32))
    assert (foreign.description.name, foreign.names[0], len(foreign.names)) == (f"gfldet-v9-{size}", "person", 80)
    assert foreign.left == ("its auxiliary branch (12 tensors), which serves training alone",)
    assert "MIT" in str(foreign.licence)
    cls, bins = zip(*theirs.double()(images), strict=True)
    assert all(0.1 < float(x.abs().max()) < 100 for x in (*cls, *bins))
    assert all(float(_sides(x, 16).std()) > 0.01 for x in bins)
    _assert_same(foreign, images, cls, bins)


@pytest.mark.long
@torch.no_grad()
def test_a_training_s_checkpoint(made: Made, images: Tensor, tmp_path: Path) -> None:
    """Its average is taken where it has one, else its weights; both are under prefixes."""
    last, average = made("t", 3), made("t", 3)
    for value in average.state_dict().values():
        if value.is_floating_point() and value.ndim == 4:
            value *= 0.9
    one = {f"model.model.{name}": value for name, value in last.state_dict().items()}
    both = one | {f"ema.model.{name}": value for name, value in average.state_dict().items()}
    for state, expected, left in ((one, last, 1), (both, average, 2)):
        torch.save({"epoch": 2, "state_dict": state, "hyper_parameters": {"lr": 0.01}}, tmp_path / "last.ckpt")
        foreign = read_foreign(tmp_path / "last.ckpt")
        assert foreign.names == ("class0", "class1", "class2")
        assert len(foreign.left) == left
        _assert_same(foreign, images, *zip(*expected.double()(images), strict=True))
    assert f"the weights of its last step ({len(one)} tensors)" in foreign.left[1]
    torch.save({"state_dict": both | {"loss.weight": torch.ones(2)}}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"1 tensors that YOLOv9 does not have, such as loss\.weight"):
        read_foreign(tmp_path / "last.ckpt")


@pytest.mark.long
def test_half_precision_and_no_auxiliary_branch(small: dict[str, Tensor], tmp_path: Path) -> None:
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in small.items()
        if not name.startswith("23.")
    }
    torch.save(state, tmp_path / "w.pt")
    foreign = read_foreign(tmp_path / "w.pt")
    assert {value.dtype for value in foreign.weights.values()} == {torch.float32, torch.int64}
    assert foreign.left == ()


@pytest.mark.long
def test_reading_draws_no_random_numbers(small: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(small, tmp_path / "w.pt")
    before = torch.get_rng_state()
    read_foreign(tmp_path / "w.pt")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.long
def test_its_file_is_a_model(
    made: Made, saved: Made, dataset: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It predicts, validates, is exported and trained, from the file itself."""
    pytest.importorskip("onnx")
    path, data = saved(made("t", 2), tmp_path / "v9-t.pt"), dataset(train=3, val=1)
    its_names = data.yaml.with_name("its.yaml")
    its_names.write_text(data.yaml.read_text(encoding="utf-8").replace("red, blue", "class0, class1"), encoding="utf-8")
    words = [f"model={path}", "imgsz=64", "device=cpu"]
    assert cli.main(["val", *words, f"data={its_names}", "plots=false", f"project={tmp_path / 'runs'}"]) == 0
    assert cli.main(["export", *words, "format=onnx", f"out={tmp_path / 'v9.onnx'}"]) == 0
    found, exported = (
        Model(file).predict(str(data.images / "val"), conf=0.0, max_det=5, imgsz=64, device="cpu", verbose=False)[0]
        for file in (path, tmp_path / "v9.onnx")
    )
    np.testing.assert_allclose(found.boxes.data, exported.boxes.data, atol=1e-2)
    capsys.readouterr()
    train = [f"data={data.yaml}", f"pretrained={path}", f"project={tmp_path / 'runs'}", "epochs=1", "batch=3"]
    assert cli.main(["train", *train, *words[1:], "threads=1", "workers=0", "plots=false"]) == 0
    out = capsys.readouterr().out
    assert f"weights: {path}, weights of YOLOv9 for gfldet-v9-t" in out
    assert "  left out: its auxiliary branch (12 tensors), which serves training alone\n" in out
    best = checkpoints.load(tmp_path / "runs" / "train" / "weights" / "best.pt")
    assert best.description.name == "gfldet-v9-t"
    assert "MIT" in best.licence


@pytest.fixture(scope="module")
def small(made: Made) -> dict[str, Tensor]:
    state: dict[str, Tensor] = made("t", 2).state_dict()
    return state


def _without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.pop(name)


def _with(name: str, *shape: int) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.update({name: torch.zeros(shape)})


def _transposed(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.update({name: state[name].transpose(0, 1).contiguous()})


def _widened(state: dict[str, Tensor]) -> None:
    for row in yolov9.TELLING:
        state[f"{row}.conv4.conv.weight"] = torch.zeros(72, 8, 1, 1)


def _of_bins(state: dict[str, Tensor]) -> None:
    for level in range(3):
        state[f"{HEAD}{level}.anchor_conv.2.weight"] = torch.zeros(32, 16, 1, 1)
        state[f"{HEAD}{level}.anc2vec.anc2vec.weight"] = torch.arange(8.0).reshape(1, 8, 1, 1, 1)


CHANGES: Changes = {
    "a tensor too few": (
        _without("8.conv3.0.bottleneck.2.conv1.conv2.bn.bias"),
        r"its 8\.conv3\.0\.bottleneck\.2\.conv1\.conv2\.bn\.bias is missing; \[32\] is expected in YOLOv9-t",
    ),
    "a tensor too many": (
        _with("4.conv2.0.bottleneck.3.conv1.conv1.conv.weight", 16, 16, 3, 3),
        r"it has 1 tensors that YOLOv9-t does not have, such as 4\.conv2\.0\.bottleneck\.3\.conv1",
    ),
    "transposed": (
        _transposed("6.conv4.conv.weight"),
        r"its 6\.conv4\.conv\.weight is \[192, 96, 1, 1\]; \[96, 192, 1, 1\] is expected in YOLOv9-t",
    ),
    "transposed classes": (
        _transposed(f"{HEAD}0.class_conv.2.weight"),
        r"its 22\.heads\.0\.class_conv\.0\.conv\.weight is \[64, 64, 3, 3\]; \[128, 64, 3, 3\] is expected",
    ),
    "a side too few": (
        _with("9.conv5.conv.weight", 128, 256),
        r"its 9\.conv5\.conv\.weight is \[128, 256\]; \[128, 256, 1, 1\] is expected",
    ),
    "another size": (
        _widened,
        r"its rows 4, 6, 8, .* give \[72, 72, 72, 72, 72, 72, 72\] channels.*\[64, 96, .*\] in t, .* in c",
    ),
    "a stem of another size": (
        _with("0.conv.weight", 32, 3, 3, 3),
        r"its 0\.conv\.weight is \[32, 3, 3, 3\]; \[16, 3, 3, 3\] is expected in YOLOv9-t",
    ),
    "8 bins": (_of_bins, r"its 22\.heads\.0\.anchor_conv\.2\.weight is for 8 bins a side of a box; 16 is"),
    "8 bins in one level": (
        _with(f"{HEAD}1.anchor_conv.2.weight", 32, 16, 1, 1),
        r"its 22\.heads\.1\.anchor_conv\.2\.weight is \[32, 16, 1, 1\]; \[64, 16, 1, 1\] is expected",
    ),
    "bins of other values": (
        lambda state: state[f"{HEAD}2.anc2vec.anc2vec.weight"].mul_(2),
        r"the values of its box bins \(dfl\) are not 0, 1, 2",
    ),
    "no classes": (_without(f"{HEAD}0.class_conv.2.weight"), r"its 22\.heads\.0\.class_conv\.2\.weight is missing"),
    "classes beyond count": (
        _with(f"{HEAD}0.class_conv.2.weight", 100_001, 1, 1, 1),
        "its outputs are for 100,001 classes",
    ),
    "no number": (
        lambda state: state["21.conv4.bn.running_var"].fill_(float("nan")),
        r"its 21\.conv4\.bn\.running_var has values that are no finite numbers",
    ),
}


# Seen only once a model of ours is built to compare with, which takes its time; others of the kind stand for these.
SEEN_LATE = (
    *("a tensor too many", "transposed", "transposed classes", "a side too few", "a stem of another size"),
    *("8 bins in one level", "bins of other values", "no number"),
)


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.long] if what in SEEN_LATE else []) for what in CHANGES]
)
def test_other_state_dicts_are_refused(what: str, small: dict[str, Tensor], tmp_path: Path) -> None:
    change, told = CHANGES[what]
    state = {name: value.clone() for name, value in small.items()}
    change(state)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"other\.pt: refused as YOLOv9: {told}.*; give .*weights of YOLOv9"):
        read_foreign(tmp_path / "other.pt")


@pytest.mark.parametrize("name", ["v9-t-random-nc80", "v9-s-random-nc5"])
def test_fixtures(name: str, public: Made) -> None:
    """Bins there are (B, R, 4, H, W); the logits are so large that the smallest difference of float32 is above 1e-4."""
    folder = public("GFLDET_FOREIGN")
    told = np.load(folder / f"{name}.npz")
    foreign = read_foreign(folder / f"{name}.pt")
    bins = [torch.as_tensor(told[f"dist{i}"]).transpose(1, 2).flatten(1, 2) for i in range(3)]
    x = torch.as_tensor(told["input"]).float()
    model = _assert_same(foreign, x, [told[f"cls{i}"] for i in range(3)], bins)
    with torch.no_grad():
        for level, found in enumerate(model(x)[1]):
            _close(_sides(found[:, :64], 16), told[f"sides{level}"])


@pytest.mark.parametrize("size", ["t", "s", "m", "c"])
def test_names_and_shapes_of_every_size(size: str, public: Made) -> None:
    shapes = json.loads((public("GFLDET_FOREIGN") / "shapes.json").read_text(encoding="utf-8"))[f"v9-{size}"]
    path, scale = resolve_model_yaml(f"gfldet-v9-{size}")
    model = DetectionModel(read_description(path, scale, shapes[yolov9.CLASS_OUT][0]))
    ours = {yolov9.their_name(name): list(value.shape) for name, value in model.state_dict().items()}
    ours |= {name: [1, 16, 1, 1, 1] for name in yolov9.BINS}
    assert ours == {name: shape for name, shape in shapes.items() if int(name.partition(".")[0]) < 23}
