"""ONNX files of YOLOv8: layers are known by what they compute, and other graphs are refused."""

from __future__ import annotations

import copy
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gfldet.config.assets import resolve_model_yaml
from gfldet.errors import CheckpointError, ConfigError
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import read_foreign
from gfldet.imports.save import save_imported
from gfldet.model import Model
from gfldet.nn import blocks
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel

NAMES = ("red", "blue", "green hat")
Decoded = Callable[[DetectionModel], Tensor]
Outputs = Callable[[ForeignModel], Tensor]
Shaken = Callable[[DetectionModel], DetectionModel]


class Exported(nn.Module):
    """A model of ours as YOLOv8's export decodes: the bins' mean is a convolution with their values as its weight."""

    def __init__(self, model: DetectionModel, apart: bool) -> None:
        super().__init__()
        self.model, self.apart = model, apart
        self.dfl = nn.Conv2d(model.reg_max, 1, 1, bias=False)
        self.dfl.weight.data = model.head.bins.detach().view(1, -1, 1, 1)  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor) -> Tensor:
        maps = [m.flatten(2) for m in self.model.graph(x)]
        rows = (4 * self.model.reg_max, self.model.nc)
        if self.apart:
            bins, logits = (torch.cat([m.split(rows, 1)[i] for m in maps], 2) for i in (0, 1))
        else:
            bins, logits = torch.cat(maps, 2).split(rows, 1)
        sides = self.dfl(bins.view(1, 4, self.model.reg_max, -1).transpose(2, 1).softmax(1)).view(1, 4, -1)
        return torch.cat((sides, logits.sigmoid()), 1)


def _by_split(block: blocks.C2f, x: Tensor) -> Tensor:
    """C2f's forward with the one operation by which YOLOv8's export halves the channels."""
    parts = list(block.cv1(x).split((block.hidden, block.hidden), dim=1))
    for inner in block.m:
        parts.append(inner(parts[-1]))
    return torch.as_tensor(block.cv2(torch.cat(parts, dim=1)))


def _export(model: DetectionModel, path: Path, apart: bool = False, **settings: Any) -> Path:
    pytest.importorskip("onnx")
    folded = copy.deepcopy(model)
    folded.fuse()
    for module in folded.modules():
        if isinstance(module, blocks.C2f):
            module.forward = types.MethodType(_by_split, module)  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
        torch.onnx.export(Exported(folded, apart).eval(), torch.rand(1, 3, 64, 64), path, dynamo=False, **settings)
    return path


@pytest.fixture(scope="module")
def full(shaken: Shaken) -> DetectionModel:
    """The smallest of the published graphs, whose class branches begin as its box branches do."""
    path, letter = resolve_model_yaml("gfldet-n")
    return shaken(DetectionModel(read_description(path, letter, 3), NAMES))


@pytest.fixture(scope="module")
def exported(full: DetectionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(full, tmp_path_factory.mktemp("onnx") / "full.onnx")


def _proto(path: Path) -> Any:
    import onnx

    return onnx.load(path)


def _told(proto: Any, **entries: str) -> Any:
    for key, value in entries.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return proto


def _saved(proto: Any, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def test_an_onnx_file_computes_the_same(
    exported: Path, full: DetectionModel, tmp_path: Path, outputs: Outputs, decoded: Decoded
) -> None:
    told = {"names": str(dict(enumerate(NAMES))), "imgsz": "[64, 96]", "license": "AGPL-3.0", "task": "detect"}
    foreign = read_foreign(_saved(_told(_proto(exported), **told), tmp_path / "full.onnx"))
    assert torch.allclose(outputs(foreign), decoded(full), rtol=1e-5, atol=1e-4)
    assert (foreign.description.name, foreign.names, foreign.imgsz) == ("yolov8n", NAMES, (64, 96))
    assert (foreign.strides, foreign.licence) == ((8, 16, 32), "AGPL-3.0")
    assert save_imported(foreign, tmp_path / "imported.pt").is_file()
    assert torch.equal(decoded(Model(tmp_path / "imported.pt").model), outputs(foreign))


@pytest.mark.parametrize("shuffled", [pytest.param(False, marks=pytest.mark.long), True])
def test_names_and_order_of_an_onnx_file_do_not_matter(
    exported: Path, full: DetectionModel, tmp_path: Path, shuffled: bool, outputs: Outputs, decoded: Decoded
) -> None:
    proto = _proto(exported)
    names: dict[str, str] = {tensor.name: f"onnx::Conv_{i}" for i, tensor in enumerate(proto.graph.initializer)}
    for tensor in proto.graph.initializer:
        tensor.name = names[tensor.name]
    for i, node in enumerate(proto.graph.node):
        node.name = f"n{i}"
        node.input[:] = [names.get(name, name) for name in node.input]
    if shuffled:  # another order in which every node still comes after what it reads
        nodes, known = list(proto.graph.node), {proto.graph.input[0].name, "", *names.values()}
        del proto.graph.node[:]
        while nodes:
            last = next(node for node in reversed(nodes) if known.issuperset(node.input))
            nodes.remove(last)
            known.update(last.output)
            proto.graph.node.append(last)
    foreign = read_foreign(_saved(proto, tmp_path / "bare.onnx"))
    assert foreign.names == ("class0", "class1", "class2")
    assert torch.allclose(outputs(foreign), decoded(full), rtol=1e-5, atol=1e-4)


def _attribute(kind: str, name: str, values: list[int]) -> Callable[[Any], Any]:
    def change(proto: Any) -> Any:
        node = next(node for node in proto.graph.node if node.op_type == kind)
        next(attribute for attribute in node.attribute if attribute.name == name).ints[:] = values
        return proto

    return change


def _swapped(kind: str) -> Callable[[Any], Any]:
    """The first operation of a kind, with what it reads the other way round."""

    def change(proto: Any) -> Any:
        node = next(node for node in proto.graph.node if node.op_type == kind)
        node.input[:] = list(node.input)[::-1]
        return proto

    return change


def _renamed_operation(old: str, new: str) -> Callable[[Any], Any]:
    def change(proto: Any) -> Any:
        next(node for node in proto.graph.node if node.op_type == old).op_type = new
        return proto

    return change


def _elsewhere(proto: Any) -> Any:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    return proto


def _larger(proto: Any) -> Any:
    """A weight that tells a side of a billion and has the numbers of before."""
    proto.graph.initializer[0].dims[0] = 1 << 40
    return proto


def _no_bias(proto: Any) -> Any:
    del next(node for node in proto.graph.node if node.op_type == "Conv").input[2:]
    return proto


ONNX_CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "task": (lambda proto: _told(proto, task="segment"), "it is a model for 'segment'"),
    "names": (lambda proto: _told(proto, names="{0: 'a'}"), "names of its 3 classes are missing"),
    "operation": (_renamed_operation("Sigmoid", "HardSigmoid"), "its graph has a HardSigmoid"),
    "quantised": (_renamed_operation("Add", "DequantizeLinear"), "its graph has a DequantizeLinear"),
    "stride": (_attribute("Conv", "strides", [1, 1]), r"its Conv .* \[16, 3, 3, 3\] is at no place known"),
    "dilation": (_attribute("Conv", "dilations", [2, 2]), "is at no place known"),
    "window": (_attribute("MaxPool", "kernel_shape", [3, 3]), "is at no place known"),
    "joined the other way round": (_swapped("Concat"), "is at no place known"),
    "no shortcut": (_renamed_operation("Add", "Sub"), "is at no place known"),
    "no activation": (_renamed_operation("Mul", "Add"), "is at no place known"),
    "no bias": (_no_bias, "has no bias in the file"),
    "weights elsewhere": (_elsewhere, "its weights are in another file"),
    "weights told larger": (_larger, "shapes of no known model"),
}


# Seen only once a model of ours is built to compare with, which takes its time; others of the kind stand for these.
SEEN_LATE = ("dilation", "window", "joined the other way round", "no activation", "weights told larger")


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.long] if what in SEEN_LATE else []) for what in ONNX_CHANGES]
)
def test_other_onnx_graphs_are_refused(exported: Path, tmp_path: Path, what: str) -> None:
    change, told = ONNX_CHANGES[what]
    path = _saved(change(_proto(exported)), tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match=rf"other\.onnx: refused as YOLOv8: .*{told}.*; give a YOLOv8"):
        read_foreign(path)


def test_an_onnx_file_of_another_model(tmp_path: Path, ours: DetectionModel) -> None:
    path = _export(ours, tmp_path / "small.onnx", apart=True)
    with pytest.raises(
        CheckpointError, match=r"small\.onnx: refused as YOLOv8: its 27 convolutions have shapes of no known model"
    ):
        read_foreign(path)


@pytest.mark.parametrize("content", [b"", b"no onnx", bytes(range(256)) * 9])
def test_an_onnx_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("onnx")
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.onnx: .*; give a YOLOv8"):
        read_foreign(path)


def test_an_onnx_file_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r'a\.onnx: the package onnx.*is missing; pip install "gfldet\[onnx\]"'):
        read_foreign(tmp_path / "a.onnx")
