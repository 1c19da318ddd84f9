"""The runner's own mathematics against torch's, and its refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfldet.detect import exported
from gfldet.detect.card import Card
from gfldet.detect.detector import Detections, Selection
from gfldet.detect.exported import Engine, ExportedDetector
from gfldet.detect.torch_detector import TorchDetector
from gfldet.errors import CheckpointError, ConfigError
from gfldet.export import onnx
from gfldet.nn.build import Description
from gfldet.nn.heads import GFLHead
from gfldet.nn.tasks import DetectionModel
from gfldet.ops import decode_numpy, points
from gfldet.ops.decode import Decoded
from gfldet.ops.images import image_tensor
from gfldet.ops.nms import non_max_suppression

CARD = Card(
    names=("red", "blue"),
    category_ids=(0, 1),
    imgsz=(64, 96),
    strides=(8, 32),
    multiple=32,
    reg_max=8,
    layout="decoded",
    dynamic="all",
)


def detector(card: Card) -> ExportedDetector:
    """Without a file: what is computed is given."""
    return ExportedDetector(Engine(lambda images: {}, card, "cpu"))


def test_planes_are_torchs() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    ours = exported.planes(images, CARD)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, image_tensor(torch.from_numpy(images), torch.device("cpu")), rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 32), (320, 160)])
def test_anchor_points_are_torchs(height: int, width: int) -> None:
    shapes = [(height // s, width // s) for s in (8, 16, 32)]
    place, stride = points.anchor_points(points.grids(shapes, (8, 16, 32)))
    ours = decode_numpy.anchor_points(height, width, (8, 16, 32))
    np.testing.assert_array_equal(ours, torch.cat((place, stride), dim=1).numpy())


def test_levels_that_do_not_divide_are_rounded_up() -> None:
    """As strided convolutions do: 96 px at stride 64 are two cells."""
    assert decode_numpy.anchor_points(96, 64, (64,)).tolist() == [[32, 32, 64], [32, 96, 64]]


def test_sigmoid_at_both_ends() -> None:
    logits = np.array([-1e4, -1, 0, 2, 1e4], np.float32)
    np.testing.assert_allclose(decode_numpy.sigmoid(logits), torch.from_numpy(logits).sigmoid(), rtol=1e-6)


@pytest.mark.parametrize("reg_max", [1, 8])
def test_decoding_is_the_heads(reg_max: int) -> None:
    head = GFLHead(2, reg_max, (8, 8))
    head.strides = (8, 32)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 4 * reg_max + 2, 64 // s, 96 // s, generator=generator) * 3 for s in head.strides]
    decoded = head.decode(maps).stacked().transpose(1, 2).detach().numpy()
    flat = torch.cat([m.flatten(2) for m in maps], dim=2).numpy()
    outputs = {"images": np.zeros((2, 3, 64, 96)), "bins": flat[:, : 4 * reg_max], "logits": flat[:, 4 * reg_max :]}
    boxes, scores = detector(replace(CARD, layout="raw", reg_max=reg_max)).points(outputs)
    centre, half = decoded[..., :2], decoded[..., 2:4] / 2
    np.testing.assert_allclose(boxes, np.concatenate((centre - half, centre + half), axis=-1), atol=1e-4)
    np.testing.assert_allclose(scores, decoded[..., 4:], atol=1e-6)


def crowd(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (1, A, 4) xyxy that overlap a lot, and scores (1, A, 2), no two alike."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 60, (count, 2)).astype(np.float32)
    boxes = np.concatenate((corner, corner + rng.integers(20, 40, (count, 2))), axis=1, dtype=np.float32)
    scores = rng.permutation(2 * count).reshape(count, 2) / (2 * count)
    return boxes[None], scores[None].astype(np.float32)


@pytest.mark.parametrize("classes", [None, (1,)])
@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize(
    "selection",
    [
        Selection(0.25, 0.7, 300),
        Selection(0.0, 0.5, 300),
        Selection(0.001, 0.3, 5),
        Selection(0.1, 0.5, 20, True),
        Selection(0.99, 0.7, 300),
    ],
)
def test_choice_is_that_of_ops_nms(selection: Selection, end2end: bool, classes: tuple[int, ...] | None) -> None:
    boxes, scores = crowd(200, seed=1)
    found = detector(replace(CARD, end2end=end2end)).select({"boxes": boxes, "scores": scores}, selection, classes)
    corners, wanted = torch.from_numpy(boxes), torch.tensor(classes) if classes else None
    xywh = torch.cat(((corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]), dim=-1)
    decoded = Decoded(xywh.transpose(1, 2), torch.from_numpy(scores).transpose(1, 2))
    iou = None if end2end else selection.iou
    (expected,) = non_max_suppression(decoded, selection.conf, iou, selection.max_det, selection.agnostic, wanted)
    np.testing.assert_allclose(found[0].boxes, expected.boxes, atol=1e-4)
    assert found[0].points is not None
    assert expected.points is not None
    np.testing.assert_array_equal(found[0].points, expected.points)
    np.testing.assert_array_equal(found[0].scores, expected.scores)
    np.testing.assert_array_equal(found[0].classes, expected.classes)


def test_nothing_above_the_threshold() -> None:
    boxes, scores = crowd(3, seed=0)
    (found,) = detector(CARD).select({"boxes": boxes, "scores": scores}, Selection(1.0))
    assert (found.boxes.shape, len(found.scores), len(found.classes)) == ((0, 4), 0, 0)


def test_detections_of_the_graph_are_filtered_only() -> None:
    boxes = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    outputs = {
        "boxes": boxes,
        "scores": np.array([[0.9, 0.5, 0.4, 0.0]], np.float32),
        "classes": np.array([[1, 0, 1, 0]]),
        "count": np.array([3]),
    }
    one = detector(replace(CARD, layout="detections", conf=0.1, max_det=4))

    def scores(selection: Selection, classes: tuple[int, ...] | None = None) -> list[float]:
        (found,) = one.select(outputs, selection, classes)
        assert isinstance(found, Detections)
        return [round(float(score), 3) for score in found.scores]

    assert scores(Selection(0.0)) == [0.9, 0.5, 0.4]
    assert scores(Selection(0.45)) == [0.9, 0.5]
    assert scores(Selection(0.0), (1,)) == [0.9, 0.4]
    assert scores(Selection(0.0, max_det=1)) == [0.9]


def written(model: DetectionModel, card: Card, path: Path) -> Path:
    onnx.save(onnx.to_graph(TorchDetector(model).model, card), card, path)
    return path


def test_a_file_for_two_images_runs_any_number(spread_model: DetectionModel, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 96, 3), np.uint8)
    whole = TorchDetector(spread_model).infer(images).decoded().scores.transpose(1, 2)
    model = exported.load(written(spread_model, replace(CARD, dynamic="none", batch=2), tmp_path / "two.onnx"))
    assert model.frame == (64, 96)
    for count in (1, 2, 3, 5):
        outputs = model.infer(images[:count])
        assert outputs["scores"].shape[0] == count
        np.testing.assert_allclose(outputs["scores"], whole[:count], atol=1e-4)


def test_files_that_are_refused(spread_model: DetectionModel, tmp_path: Path) -> None:
    import onnx as package

    with pytest.raises(CheckpointError, match=r"none\.onnx: no such file"):
        exported.load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(CheckpointError, match=r"text\.onnx: cannot be loaded"):
        exported.load(tmp_path / "text.onnx")
    whole = written(spread_model, CARD, tmp_path / "whole.onnx")
    (tmp_path / "cut.onnx").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"cut\.onnx: cannot be loaded"):
        exported.load(tmp_path / "cut.onnx")
    graph = package.load(str(whole))
    del graph.metadata_props[:]
    package.save(graph, str(tmp_path / "bare.onnx"))
    with pytest.raises(CheckpointError, match=r"bare\.onnx: not a file that this gfldet exported \(it has no card"):
        exported.load(tmp_path / "bare.onnx")
    package.helper.set_model_props(graph, replace(CARD, layout="raw").to_text())
    package.save(graph, str(tmp_path / "other.onnx"))
    with pytest.raises(CheckpointError, match=r"other\.onnx: another layout: input images and outputs boxes, scores"):
        exported.load(tmp_path / "other.onnx")


def test_devices_that_are_not_there(spread_model: DetectionModel, tmp_path: Path) -> None:
    file = written(spread_model, CARD, tmp_path / "model.onnx")
    assert exported.load(file, "cpu", threads=1).device == "cpu"
    with pytest.raises(ConfigError, match="device=cuda:0: this onnxruntime computes on"):
        exported.load(file, "cuda:0")
    with pytest.raises(ConfigError, match="device=mps: not for exported files"):
        exported.load(file, "mps")


def test_packages_that_are_missing(
    spread_model: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Description
) -> None:
    file = written(spread_model, CARD, tmp_path / "model.onnx")
    for name in ("onnxruntime", "openvino", "onnx"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.setattr(exported, "openvino_core", exported.openvino_core.__wrapped__)  # which no test has asked yet
    with pytest.raises(ConfigError, match="onnxruntime is not installed; pip install onnxruntime"):
        exported.load(file)
    with pytest.raises(ConfigError, match="OpenVINO is not installed; pip install openvino"):
        exported.load(file.rename(file.with_suffix(".xml")))
    with pytest.raises(ConfigError, match=r"pip install 'gfldet\[onnx\]'"):
        onnx.to_graph(DetectionModel(tiny), CARD)


# ---------------------------------------------------------------------------------- graphs that do not what they say

FRAMES = (2, 3, 64, 96)  # 96 cells at stride 8, 6 at stride 32
WHOLE: dict[str, dict[str, tuple[int, ...]]] = {
    "raw": {"bins": (2, 32, 102), "logits": (2, 2, 102)},
    "decoded": {"boxes": (2, 102, 4), "scores": (2, 102, 2)},
    "detections": {"boxes": (2, 5, 4), "scores": (2, 5), "classes": (2, 5), "count": (2,)},
}


def outputs_of(layout: str) -> dict[str, np.ndarray]:
    kinds = {"classes": np.int64, "count": np.int64}
    return {name: np.zeros(shape, kinds.get(name, np.float32)) for name, shape in WHOLE[layout].items()}


@pytest.mark.parametrize("layout", WHOLE)
def test_outputs_that_are_not_as_the_card_says(layout: Any) -> None:
    card = replace(CARD, layout=layout)
    assert exported.output_problem(card, FRAMES, outputs_of(layout)) == ""
    for name in WHOLE[layout]:
        found = outputs_of(layout)[name]
        for odd in (found[:1], found[..., None], found.astype(np.str_), found.astype(bool), [found], found[..., :0]):
            told = exported.output_problem(card, FRAMES, {**outputs_of(layout), name: odd})
            assert "where its card says" in told, name
    if layout == "detections":
        for name, value, told in (
            ("classes", 2, "classes from 0 to 2, where 0 to 1 are possible"),
            ("classes", -1, "classes from -1 to 0"),
            ("count", 6, "count from 0 to 6, where 0 to 5"),
        ):
            found = outputs_of(layout)
            found[name].flat[0] = value
            assert exported.output_problem(card, FRAMES, found).startswith(told)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        (
            "boxes, scores = Split<axis = 1, num_outputs = 2>(images)",
            r"gives boxes \[1, 2, 64, 96\] float32, where its car",
        ),
        (
            "shape = Constant<value_ints = [1, 7]>() boxes = Reshape(images, shape) scores = Identity(images)",
            r"fails when it is run \(.*\); export it anew",
        ),
    ],
)
def test_a_graph_that_loads_and_does_something_else(tmp_path: Path, nodes: str, told: str) -> None:
    parser, proto = pytest.importorskip("onnx.parser"), pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    graph = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> odd (float[N, 3, H, W] images) => (float[] boxes, float[] scores) '
        f"{{ {nodes} }}"
    )
    del graph.graph.output[0].type.tensor_type.shape.dim[:]
    for output in graph.graph.output:
        output.type.tensor_type.ClearField("shape")
    for key, text in CARD.to_text().items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, text
    path = tmp_path / "odd.onnx"
    proto.save(graph, str(path))
    loaded = exported.load(path, "cpu", threads=1)
    with pytest.raises(CheckpointError, match=rf"odd\.onnx: its graph {told}"):
        loaded.infer(np.zeros((1, 64, 96, 3), np.uint8))
