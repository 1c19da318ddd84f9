"""YOLOX: what is read computes the features that its own code computes, and other files are refused by name."""

from __future__ import annotations

import copy
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfldet.errors import CheckpointError, ConfigError
from gfldet.imports import yolox
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import read_foreign
from gfldet.model import Model
from gfldet.nn.tasks import DetectionModel

sys.path.append(str(Path(__file__).parent))
from yolox_reference import YOLOX, BaseConv  # noqa: E402

SIZES = {"nano": (16, 1, True), "tiny": (24, 1, False)}  # width, bottlenecks, depthwise


@torch.no_grad()
def _made(size: str, nc: int = 80) -> YOLOX:
    """A YOLOX whose norms have statistics of the size that images of 0 to 255 give, so that features are about 1."""
    torch.manual_seed(5)
    width, bottlenecks, depthwise = SIZES[size]
    model = YOLOX(width, bottlenecks, nc, depthwise)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.uniform_(-0.3, 0.3)
        norm.momentum = None  # the plain mean
    for _ in range(2):
        model.train()(255 * torch.rand(2, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module", params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def theirs(size: str) -> YOLOX:
    return _made(size)


def _saved(model: YOLOX, path: Path) -> Path:
    torch.save({"start_epoch": 300, "model": model.state_dict(), "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def _images() -> Tensor:
    """RGB from 0 to 1."""
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _features(model: DetectionModel, x: Tensor) -> list[Tensor]:
    """What the head of a model of ours is given."""
    found: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, given: found.extend(given[0]))
    model.eval()(x)
    hook.remove()
    return found


def _body(foreign: ForeignModel) -> DetectionModel:
    model = DetectionModel(foreign.description, foreign.names)
    missing, unexpected = model.load_state_dict(dict(foreign.weights), strict=False)
    assert not unexpected
    assert all(name.startswith("graph.layers.24.") for name in missing)
    return model


def _assert_same(model: DetectionModel, x: Tensor, expected: list[Any], to: float = 1e-4) -> None:
    """Features equal to `to` of their size, before and after the norms are folded."""
    for fused in (False, True):
        if fused:
            model.fuse()
            assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        for feature, other in zip(_features(model, x), map(torch.as_tensor, expected), strict=True):
            assert feature.shape == other.shape
            assert float((feature - other).abs().max()) <= to * float(other.abs().max())


@torch.no_grad()
def test_features_are_those_of_its_own_code(theirs: YOLOX, size: str, tmp_path: Path) -> None:
    foreign = read_foreign(_saved(theirs, tmp_path / "yolox.pth"))
    assert (foreign.family, foreign.body_only, foreign.strides) == ("YOLOX", True, (8, 16, 32))
    assert (foreign.description.name, foreign.names[0], len(foreign.names)) == (f"gfldet-yolox-{size}", "person", 80)
    assert foreign.left == (f"its head ({len(theirs.head.state_dict())} tensors), which has an objectness and no bins",)
    assert "Apache-2.0" in str(foreign.licence)
    expected = theirs.backbone(255 * _images().flip(1))
    assert all(0.1 < float(feature.abs().max()) < 100 for feature in expected)
    _assert_same(_body(foreign), _images(), list(expected))


def test_another_number_of_classes_and_half_precision(tmp_path: Path) -> None:
    foreign = read_foreign(_saved(_made("nano", nc=3).half(), tmp_path / "yolox.pth"))
    assert (foreign.names, foreign.description.nc) == (("class0", "class1", "class2"), 3)
    assert {value.dtype for value in foreign.weights.values()} == {torch.float32, torch.int64}


def test_what_was_read_is_a_body_to_train(tmp_path: Path) -> None:
    path = _saved(_made("nano"), tmp_path / "yolox.pth")
    model = Model(path)
    assert model.description.name == "gfldet-yolox-nano"
    with pytest.raises(ConfigError, match=r"yolox\.pth: these are the weights of a body alone"):
        model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, save=False, verbose=False)


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
        r"it has 1 tensors that YOLOX-nano does not have, such as backbone\.backbone\.dark3\.1\.m\.3\.conv1\.conv\.weight",
    ),
    "transposed": (
        _with("backbone.C3_p4.conv3.conv.weight", 128, 128, 1, 2),
        r"its backbone\.C3_p4\.conv3\.conv\.weight is \[128, 128, 1, 2\]; \[128, 128, 1, 1\] is expected in YOLOX-nano",
    ),
    "another width": (
        _with(yolox.STEM, 40, 12, 3, 3),
        r"its first convolution \(.*stem.*\) is \[40, 12, 3, 3\], which no known size.*\[16, 12, 3, 3\] in nano,.* in x",
    ),
    "the width of another size": (
        _with(yolox.STEM, 24, 12, 3, 3),
        r"its backbone\.backbone\.stem\.conv\.bn\.weight is \[16\]; \[24\] is expected in YOLOX-tiny",
    ),
    "no first convolution": (_without(yolox.STEM), r"its backbone.*stem.* is missing; four sides are expected"),
    "no classes": (_without(yolox.CLASSES), r"its head\.cls_preds\.0\.weight is missing"),
    "classes beyond count": (_with(yolox.CLASSES, 100_001, 1, 1, 1), "its outputs are for 100001 classes"),
    "no number": (
        lambda state: state["backbone.C3_n4.conv1.bn.bias"].fill_(float("nan")),
        r"its backbone\.C3_n4\.conv1\.bn\.bias has values that are no finite numbers",
    ),
}


@pytest.mark.parametrize("what", STATE_CHANGES)
def test_other_state_dicts_are_refused(what: str, tmp_path: Path) -> None:
    change, told = STATE_CHANGES[what]
    state = YOLOX(16, 1, depthwise=True).state_dict()
    change(state)
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth: refused as YOLOX: {told}.*; give .*weights of YOLOX"):
        read_foreign(tmp_path / "other.pth")


def test_every_tensor_of_the_body_has_another_name() -> None:
    ours = DetectionModel(yolox._model_of((24, 12, 3, 3), 80).description).state_dict()
    named = [yolox.their_name(name) for name in ours if not name.startswith("graph.layers.24.")]
    assert sorted(named) == sorted(f"backbone.{name}" for name in YOLOX(24, 1).backbone.state_dict())


# ---- ONNX ----


def _exported(model: YOLOX, path: Path) -> Path:
    """As its authors export it: norms folded, the layers' names lost."""
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


@pytest.fixture(scope="module")
def nano() -> YOLOX:
    return _made("nano")


@pytest.fixture(scope="module")
def graph(nano: YOLOX, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _exported(nano, tmp_path_factory.mktemp("onnx") / "yolox.onnx")


def _proto(path: Path) -> Any:
    import onnx

    return onnx.load(path)


@torch.no_grad()
def test_an_onnx_file_computes_the_same(nano: YOLOX, graph: Path) -> None:
    foreign = read_foreign(graph)
    assert (foreign.description.name, foreign.imgsz, foreign.names[79]) == (
        *("gfldet-yolox-nano", (64, 96)),
        "toothbrush",
    )
    convolutions = sum(isinstance(module, nn.Conv2d) for module in nano.head.modules())
    assert foreign.left[0] == f"its head ({convolutions} convolutions), which has an objectness and no bins"
    assert "statistics of its norms" in foreign.left[1]
    _assert_same(_body(foreign), _images(), list(nano.backbone(255 * _images().flip(1))))


def test_names_in_an_onnx_file_do_not_matter(graph: Path, tmp_path: Path) -> None:
    proto = _proto(graph)
    names = {tensor.name: f"t{i}" for i, tensor in enumerate(proto.graph.initializer)}
    for tensor in proto.graph.initializer:
        tensor.name = names[tensor.name]
    for node in proto.graph.node:
        node.name = ""
        node.input[:] = [names.get(name, name) for name in node.input]
    path = tmp_path / "bare.onnx"
    path.write_bytes(proto.SerializeToString())
    weights = read_foreign(path).weights
    assert all(value.equal(weights[name]) for name, value in read_foreign(graph).weights.items())


def _nodes(proto: Any, kind: str) -> Iterator[Any]:
    return (node for node in proto.graph.node if node.op_type == kind)


def _attribute(kind: str, name: str, values: list[int]) -> Callable[[Any], Any]:
    def change(proto: Any) -> None:
        next(a for a in next(_nodes(proto, kind)).attribute if a.name == name).ints[:] = values

    return change


def _swapped(proto: Any) -> None:
    """Focus with its phases in another order."""
    node = next(_nodes(proto, "Concat"))
    node.input[:] = list(node.input)[::-1]


def _no_shortcut(proto: Any) -> None:
    next(_nodes(proto, "Add")).op_type = "Sub"


def _no_bias(proto: Any) -> None:
    del next(_nodes(proto, "Conv")).input[2:]


ONNX_CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "stride": (_attribute("Conv", "strides", [2, 2]), r"no Conv \[16, 12, 3, 3\] of stride 1 that computes what "),
    "phases in another order": (_swapped, r"no Conv \[16, 12, 3, 3\] .* what backbone\.backbone\.stem\.conv\.conv does"),
    "window": (
        _attribute("MaxPool", "kernel_shape", [3, 3]),
        r"no Conv \[256, 512, 1, 1\] .* what backbone\.backbone\.dark5\.1\.conv2\.conv does",
    ),
    "no shortcut": (_no_shortcut, r"no Conv \[32, 32, 1, 1\] .* what backbone\.backbone\.dark2\.1\.conv3\.conv does"),
    "no bias": (_no_bias, "has no bias in the file"),
}


@pytest.mark.parametrize("what", ONNX_CHANGES)
def test_other_graphs_are_refused(what: str, graph: Path, tmp_path: Path) -> None:
    change, told = ONNX_CHANGES[what]
    proto = _proto(graph)
    change(proto)
    (tmp_path / "other.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match=rf"other\.onnx: refused as YOLOX: .*{told}.*; give"):
        read_foreign(tmp_path / "other.onnx")


# ---- public files, where they lie ----


def _folder(variable: str) -> Path:
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no folder with public files")
    return Path(os.environ[variable])


def test_fixtures(size: str) -> None:
    folder = _folder("GFLDET_FOREIGN")
    told = np.load(folder / f"yolox_{size}-random.npz")
    body = _body(read_foreign(folder / f"yolox_{size}-random.pth"))
    _assert_same(body, torch.as_tensor(told["input_rgb01"]).float(), [told[f"feature{i}"] for i in range(3)])


@pytest.mark.parametrize("name", ["nano", "tiny", "s", "m", "l"])
def test_names_and_shapes_of_every_size(name: str) -> None:
    shapes = json.loads((_folder("GFLDET_FOREIGN") / "shapes.json").read_text())[f"yolox_{name}"]
    model = yolox._model_of(tuple(shapes[yolox.STEM]), 80)
    assert model.description.name == f"gfldet-yolox-{name}"
    body = {yolox.their_name(ours): list(shape) for ours, shape in yolox.body_of(model).items()}
    assert body == {there: shape for there, shape in shapes.items() if there.startswith("backbone.")}


def test_real_weights() -> None:
    """The official ONNX by onnxruntime, on noise and on large shapes; the .pth was made of it and equals it to 3e-4."""
    folder = _folder("GFLDET_WEIGHTS")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    proto = onnx.load(folder / "yolox_nano.onnx")
    stems = [n for n in _nodes(proto, "Conv") if n.name in ("Conv_299", "Conv_332", "Conv_365")]
    proto.graph.output.extend(onnx.ValueInfoProto(name=node.input[0]) for node in stems)
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).integers(0, 256, (416, 416, 3), np.uint8)
    for bgr in (noise, np.kron(noise[:8, :8], np.ones((52, 52, 1), np.uint8))):
        given = {"images": bgr.transpose(2, 0, 1)[None].astype(np.float32)}
        expected = session.run([node.input[0] for node in stems], given)
        x = torch.as_tensor(bgr[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
        for file, to in (("yolox_nano.onnx", 1e-4), ("yolox_nano_coco.pth", 3e-4)):
            _assert_same(_body(read_foreign(folder / file)), x, expected, to)
