"""YOLOX's ONNX files: convolutions are known by what they compute; in another graph the first unknown one is named."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfldet.errors import CheckpointError
from gfldet.imports.registry import read_foreign

Made = Callable[..., Any]


@pytest.fixture(scope="module")
def nano(made: Made) -> Any:
    return made("nano")


@pytest.fixture(scope="module")
def graph(nano: Any, exported: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = exported(nano, tmp_path_factory.mktemp("onnx") / "yolox.onnx")
    return path


def _proto(path: Path) -> Any:
    import onnx

    return onnx.load(path)


@torch.no_grad()
def test_an_onnx_file_computes_the_same(nano: Any, graph: Path, assert_same: Made, images: Tensor) -> None:
    foreign = read_foreign(graph)
    assert (foreign.description.name, foreign.imgsz, foreign.body_only) == ("gfldet-yolox-nano", (64, 96), True)
    assert (foreign.names[79], len(foreign.names)) == ("toothbrush", 80)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in nano.head.modules())
    assert foreign.left[0] == f"its head ({convolutions} convolutions), which has an objectness and no bins"
    assert "statistics of its norms" in foreign.left[1]
    assert_same(foreign, images, nano.backbone(255 * images.flip(1)))


@pytest.mark.long
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


def _computed_twice(proto: Any) -> None:
    """A Conv and its SiLU once more, with other weights, for the second of the two that read what it gives."""
    nodes = list(proto.graph.node)
    triples = [nodes[i : i + 3] for i in range(len(nodes))]
    number, (conv, sigmoid, product) = next(
        (i, triple)
        for i, triple in enumerate(triples)
        if [node.op_type for node in triple] == ["Conv", "Sigmoid", "Mul"]
        and sum(triple[2].output[0] in node.input for node in nodes) == 2
    )
    weight = copy.deepcopy(next(tensor for tensor in proto.graph.initializer if tensor.name == conv.input[1]))
    weight.name = "other"
    proto.graph.initializer.append(weight)
    again = [copy.deepcopy(node) for node in (conv, sigmoid, product)]
    again[0].input[1] = "other"
    for node in again:
        node.input[:] = [f"{n}again" if n in (conv.output[0], sigmoid.output[0]) else n for n in node.input]
        node.output[0] += "again"
    readers = [node for node in proto.graph.node if product.output[0] in node.input]
    readers[1].input[:] = [f"{n}again" if n == product.output[0] else n for n in readers[1].input]
    for node in reversed(again):
        proto.graph.node.insert(number + 3, node)


def _long_bias(proto: Any) -> None:
    name = next(_nodes(proto, "Conv")).input[2]
    next(tensor for tensor in proto.graph.initializer if tensor.name == name).dims[:] = [4, 4]


def _flat_output(proto: Any) -> None:
    del proto.graph.output[0].type.tensor_type.shape.dim[2:]


ONNX_CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "stride": (_attribute("Conv", "strides", [2, 2]), r"no Conv \[16, 12, 3, 3\] of stride 1 that computes what "),
    "phases in another order": (
        _swapped,
        r"no Conv \[16, 12, 3, 3\] .* what backbone\.backbone\.stem\.conv\.conv does",
    ),
    "window": (
        _attribute("MaxPool", "kernel_shape", [3, 3]),
        r"no Conv \[256, 512, 1, 1\] .* what backbone\.backbone\.dark5\.1\.conv2\.conv does",
    ),
    "no shortcut": (_no_shortcut, r"no Conv \[32, 32, 1, 1\] .* what backbone\.backbone\.dark2\.1\.conv3\.conv does"),
    "no bias": (_no_bias, "has no bias in the file"),
    "a bias of another length": (_long_bias, r"has a bias \[4, 4\], which is not one a channel"),
    "another output": (_flat_output, r"its output is \[1, 126\]; images, points and 5 \+ classes are expected"),
    "two of what is one": (_computed_twice, "stands where one other Conv is used as well"),
}


@pytest.mark.parametrize("what", ONNX_CHANGES)
def test_other_graphs_are_refused(what: str, graph: Path, tmp_path: Path) -> None:
    change, told = ONNX_CHANGES[what]
    proto = _proto(graph)
    change(proto)
    (tmp_path / "other.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match=rf"other\.onnx: refused as YOLOX: .*{told}.*; give"):
        read_foreign(tmp_path / "other.onnx")


def test_real_weights(public: Made, assert_same: Made) -> None:
    """The official ONNX by onnxruntime, on noise and on squares; the .pth was made of it and equals it to 3e-4."""
    folder = public("GFLDET_WEIGHTS")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    proto = onnx.load(folder / "yolox_nano.onnx")
    stems = [n.input[0] for n in _nodes(proto, "Conv") if n.name in ("Conv_299", "Conv_332", "Conv_365")]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in stems)
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).integers(0, 256, (416, 416, 3), np.uint8)
    for bgr in (noise, np.kron(noise[:8, :8], np.ones((52, 52, 1), np.uint8))):
        expected = session.run(stems, {"images": bgr.transpose(2, 0, 1)[None].astype(np.float32)})
        x = torch.as_tensor(bgr[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
        for file, to in (("yolox_nano.onnx", 1e-4), ("yolox_nano_coco.pth", 3e-4)):
            assert_same(read_foreign(folder / file), x, expected, to)
