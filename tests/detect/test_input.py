"""What a card says of the input is obeyed: channel order, values and padding, against preprocessing made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfldet import Model
from gfldet.data.eval_set import EvalSet
from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split
from gfldet.data.sources import Frame
from gfldet.detect import exported
from gfldet.detect.card import Card, Values
from gfldet.detect.detector import Selection
from gfldet.detect.exported import Engine, ExportedDetector
from gfldet.detect.predict import Predictor
from gfldet.detect.torch_detector import TorchDetector
from gfldet.errors import CheckpointError
from gfldet.export import onnx
from gfldet.machine.shared import Pool
from gfldet.nn.tasks import DetectionModel
from gfldet.ops import letterbox

CARD = Card(
    names=("red", "blue"),
    category_ids=(0, 1),
    imgsz=(64, 96),
    strides=(8, 32),
    multiple=32,
    reg_max=8,
    layout="decoded",
)
MEAN, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
IMAGENET = f"(x - {json.dumps(MEAN)}) / {json.dumps(SCALE)}"
FRAMES = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)


@pytest.mark.parametrize(
    ("text", "mean", "scale"),
    [
        ("x", (0, 0, 0), (1, 1, 1)),
        ("x / 255", (0, 0, 0), (255, 255, 255)),
        ("x / 127.5", (0, 0, 0), (127.5, 127.5, 127.5)),
        ("(x - [1, 2.5, 3e-1]) / [4, -5, 6e2]", (1, 2.5, 0.3), (4, -5, 600)),
        (IMAGENET, MEAN, SCALE),
    ],
)
def test_values(text: str, mean: tuple[float, ...], scale: tuple[float, ...]) -> None:
    assert Values.of(text) == Values(mean, scale)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "y",
            "x/255",
            "x / 0",
            "x / ",
            "x - 1",
            "x / 255 ",
            "x / 1e999",
            "(x - [1, 2]) / [3, 4]",
            "__import__('os')",
        ),
        *("(x - [1, 2, 3]) / [1, 0, 1]", "(x - [1, 2, 3]) / 255", "(x - [a, b, c]) / [1, 2, 3]"),
    ],
)
def test_values_that_are_unknown(text: str) -> None:
    with pytest.raises(ValueError, match='expected "x", "x / 255" or '):
        Values.of(text)


def test_the_default_is_the_same_to_the_bit() -> None:
    by_hand = (FRAMES.astype(np.float32) * np.float32(1 / 255)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(exported.planes(FRAMES, CARD), by_hand)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("normalisation", ["x", "x / 255", IMAGENET])
def test_planes(channels: Any, normalisation: str) -> None:
    found = exported.planes(FRAMES, replace(CARD, channels=channels, normalisation=normalisation))
    by_hand = FRAMES.astype(np.float64)[..., :: 1 if channels == "RGB" else -1]
    if normalisation == "x / 255":
        by_hand = by_hand / 255
    elif normalisation == IMAGENET:
        by_hand = (by_hand - MEAN) / SCALE  # of the first channel of the input first, whichever that is
    assert (found.dtype, found.shape) == (np.float32, (2, 3, 64, 96))
    np.testing.assert_allclose(found, by_hand.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


def test_a_file_is_fed_as_its_card_says(spread_model: DetectionModel, tmp_path: Path) -> None:
    """A graph that takes BGR less a mean: its outputs are those of the plain one on the values made by hand."""
    card = replace(CARD, channels="BGR", normalisation=IMAGENET, pad_colour=7)
    path = tmp_path / "bgr.onnx"
    onnx.save(onnx.to_graph(TorchDetector(spread_model).model, CARD), card, path)
    detector = exported.load(path, "cpu", threads=1)
    assert detector.card == card
    assert detector.pad_colour == 7
    values = torch.from_numpy(((FRAMES[..., ::-1].astype(np.float32) - MEAN) / SCALE).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        wanted = spread_model.decode(values.contiguous())
    boxes, scores = detector.points(detector.infer(FRAMES))
    np.testing.assert_allclose(scores, wanted.scores.transpose(1, 2), atol=1e-4)
    centre, size = wanted.boxes.transpose(1, 2).split(2, dim=2)
    np.testing.assert_allclose(boxes, torch.cat((centre - size / 2, centre + size / 2), dim=2), atol=0.05)


class Seen:
    """An engine that keeps what it is given."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []

    def __call__(self, images: np.ndarray) -> dict[str, Any]:
        self.images.append(images)
        return {"boxes": np.zeros((len(images), 1, 4), np.float32), "scores": np.zeros((len(images), 1, 2), np.float32)}


def test_padding_in_prediction() -> None:
    seen = Seen()
    detector = ExportedDetector(Engine(seen, replace(CARD, pad_colour=200, normalisation="x"), "cpu"))
    frame = Frame(np.full((10, 96, 3), 50, np.uint8), "a.png", "a", "a.png")
    list(Predictor(detector, (64, 96), Selection())([frame], 1))
    (given,) = seen.images
    assert given[0, :, :27].min() == given[0, :, :27].max() == 200
    assert (given[0, :, 27:37] == 50).all()
    assert (given[0, :, 37:] == 200).all()


def test_padding_in_validation(tmp_path: Path) -> None:
    record = Record(
        tmp_path / "a.png", 1, "a.png", 96, 10, *(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 4)))
    )
    split = Split("val", (record,), ("red", "blue"), (0, 1))
    store = ImageStore((64, 96), Pool(0), lambda r: np.full((10, 96, 3), 50, np.uint8))
    data = EvalSet(split, store, (64, 96), 1, 32, rect=False, pad_colour=200)
    images = data.load(data.keys()[0]).images
    assert sorted(np.unique(images)) == [50, 200]
    np.testing.assert_array_equal(images[0], letterbox.framed(store.get(record), (64, 96), 200))


def test_val_and_predict_obey(
    checkpoint: Callable[..., Path], dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx as package

    drawn = dataset(width=64, height=40)
    file = Model(checkpoint(drawn.yaml)).export(out=tmp_path / "a.onnx", threads=1, verbose=False)
    graph = package.load(str(file))
    card = replace(exported.load(file).card, pad_colour=0)
    package.helper.set_model_props(graph, card.to_text())
    package.save(graph, str(tmp_path / "black.onnx"))
    colours = []
    apply = letterbox.apply

    def spied(image: Any, box: Any, pad_colour: int = 114) -> Any:
        colours.append(pad_colour)
        return apply(image, box, pad_colour)

    monkeypatch.setattr(letterbox, "apply", spied)
    model = Model(tmp_path / "black.onnx")
    model.predict(drawn.images / "val", verbose=False)
    model.val(data=str(drawn.yaml), verbose=False, plots=False, workers=0, project=str(tmp_path / "runs"))
    assert set(colours) == {0}
    assert len(colours) == 8


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"channels": "GBR"}, "channels 'GBR', expected one of RGB, BGR"),
        ({"normalisation": "x / 255 - 1"}, "normalisation 'x / 255 - 1', expected"),
        ({"pad_colour": "256"}, "pad_colour 256, expected a whole number from 0 to 255"),
        ({"pad_colour": "[1, 2, 3]"}, r"pad_colour \(1, 2, 3\)"),
        ({"pad_colour": "true"}, "pad_colour True"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_the_file(changes: dict[str, str], told: str) -> None:
    with pytest.raises(CheckpointError, match=rf"x\.onnx: its card is damaged \({told}.*export it anew"):
        Card.from_text({**CARD.to_text(), **changes}, "x.onnx")
