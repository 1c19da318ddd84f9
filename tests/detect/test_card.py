"""The card: what goes in comes out, and what is no card of ours is refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfldet.detect import card as cards
from gfldet.detect import exported
from gfldet.detect.card import Card
from gfldet.errors import CheckpointError

CARD = Card(
    names=("a cell", "zelle, gro\xdf", "'"),
    category_ids=(1, 2, 9),
    imgsz=(320, 640),
    strides=(8, 16, 32),
    multiple=32,
    reg_max=16,
    layout="decoded",
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layout": "detections", "conf": 0.001, "iou": 0.7, "max_det": 300, "agnostic": True},
        {"dynamic": "all", "end2end": True, "precision": "int8", "licence": "123"},
        {"batch": 8, "model": "gfldet-n", "sample_bits": 12},
        {"tiles": (640, 0.2, True)},
    ],
)
def test_text_and_back(changes: dict[str, Any]) -> None:
    card = replace(CARD, **changes)
    assert Card.from_text(card.to_text(), "x.onnx") == card
    assert json.loads(json.dumps(card.to_dict()))["imgsz"] == [320, 640]


def test_a_later_file_may_know_more() -> None:
    assert Card.from_text({**CARD.to_text(), "colour": "green"}, "x.onnx") == CARD


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "gfldet-export-2"}, "its format is 'gfldet-export-2'"),
        ({"format": "gfldet-export-2"}, "reads up to 'gfldet-export-1'"),
        ({"format": "gfldet-export-2", "gfldet": "7.8.9"}, "use the gfldet that wrote it (7.8.9)"),
        ({"format": "gfldet-export-0"}, "its format is 'gfldet-export-0', expected 'gfldet-export-1'"),
        ({"format": "other-1"}, "its format is 'other-1'"),
        ({"format": "gfldet-export"}, "its format is 'gfldet-export'"),
        ({"format": None}, "it has no card"),
        ({"strides": "[8, 0]"}, "whole numbers"),
        ({"strides": "8"}, "strides 8, expected 1 to 64 whole numbers"),
        (
            {"imgsz": "[1000000000, 1000000000]"},
            "imgsz (1000000000, 1000000000), expected 2 whole numbers from 1 to 16384",
        ),
        ({"imgsz": "[16384, 16384]"}, "1 frames of 16384 x 16384 px in a run, expected at most 134217728 px in all"),
        ({"batch": "65536"}, "65536 frames of 320 x 640 px"),
        ({"batch": "true"}, "batch True, expected"),
        ({"names": "[1, 2, 3]"}, "names (1, 2, 3), expected a list of 1 to 100000 texts"),
        ({"names": '[["a"], ["b"], ["c"]]'}, "names (['a'], ['b'], ['c']), expected"),
        ({"names": "[" * 100_000 + "]" * 100_000}, "nested too deep"),
        ({"names": '{"a": 1}'}, "expected a list"),
        ({"category_ids": '["a", 1, 2]'}, "category_ids"),
        ({"category_ids": "[1" + "0" * 5000 + ", 1, 2]"}, "x.onnx: its card is damaged"),
        ({"reg_max": "1000000000"}, "reg_max 1000000000, expected a whole number from 1 to 256"),
        ({"multiple": "0"}, "multiple 0"),
        ({"conf": "[[[[]]]]"}, "conf ([[[...]]],), expected a number from 0 to 1"),
        ({"iou": "NaN"}, "iou nan"),
        ({"max_det": "-1"}, "max_det -1"),
        ({"end2end": "1"}, "end2end 1, expected one of True, False"),
        ({"dynamic": "some"}, "dynamic 'some', expected one of none, batch, all"),
        ({"precision": "int4"}, "precision 'int4'"),
        ({"imgsz": "[320]"}, "whole numbers"),
        ({"imgsz": "[320, 330]"}, "no multiple of 32"),
        ({"names": '["a"]'}, "1 name and 3 category ids"),
        ({"names": "a, b"}, "Expecting value"),
        ({"sample_bits": "17"}, "sample_bits 17, expected none, or a whole number from 8 to 16"),
        ({"sample_bits": "12.5"}, "sample_bits 12.5"),
        (
            {"tiles": "640"},
            "tiles 640, expected none, or a side of 1 to 16384, an overlap from 0 to below 1, and true or",
        ),
        ({"tiles": "[640, 1, true]"}, "tiles (640, 1, True)"),
        ({"tiles": "[640, 0.2]"}, "tiles (640, 0.2)"),
        ({"layout": "other"}, "layout 'other'"),
        ({"reg_max": None}, "reg_max"),
    ],
)
def test_what_is_refused(changes: dict[str, str | None], told: str) -> None:
    text = {name: value for name, value in {**CARD.to_text(), **changes}.items() if value is not None}
    with pytest.raises(CheckpointError, match=r"x\.onnx") as error:
        Card.from_text(text, "x.onnx")
    assert told in str(error.value)
    assert "gfldet export" in str(error.value)


# ------------------------------------------------------------------------------------------- formats with a number

FILES = Path(__file__).parent / "files"


def test_every_version_has_a_file() -> None:
    """A file of each, written by the gfldet of its time: that of version 1 from tests/store/files/checkpoint-1.pt."""
    pytest.importorskip("onnxruntime")
    assert list(cards.MIGRATIONS) == list(range(1, cards.VERSION))
    for version in range(1, cards.VERSION + 1):
        assert exported.load(FILES / f"export-{version}.onnx", "cpu", threads=1).card.names == ("red", "blue")


def test_a_file_of_version_1_computes_what_it_did() -> None:
    """A point of a frame of noise, in the numbers that the gfldet which wrote the file gave."""
    pytest.importorskip("onnxruntime")
    detector = exported.load(FILES / "export-1.onnx", "cpu", threads=1)
    card = detector.card
    assert (card.layout, card.precision, card.imgsz, card.strides) == ("raw", "float16", (64, 64), (8,))
    assert (card.pad_colour, card.channels, card.normalisation) == (114, "RGB", "x / 255")
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    boxes, scores = detector.points(detector.infer(frame))
    assert boxes[0, 27].tolist() == pytest.approx([17.7328, 17.6621, 38.2705, 38.7223], abs=0.02)
    assert scores[0, 27].tolist() == pytest.approx([0.0180900, 0.0182643], abs=1e-4)


def test_older_cards_are_migrated_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions on, `frame` is called `imgsz` and classes have ids."""
    steps = {
        1: lambda text: {("imgsz" if name == "frame" else name): value for name, value in text.items()},
        2: lambda text: {**text, "category_ids": "[1, 2, 9]"},
    }
    monkeypatch.setattr(cards, "VERSION", 3)
    monkeypatch.setattr(cards, "MIGRATIONS", steps)
    today = CARD.to_text()
    second = {name: value for name, value in today.items() if name != "category_ids"} | {"format": "gfldet-export-2"}
    first = {("frame" if name == "imgsz" else name): value for name, value in second.items()}
    for text in ({**today, "format": "gfldet-export-3"}, second, {**first, "format": "gfldet-export-1"}):
        assert Card.from_text(text, "x.onnx") == replace(CARD, format="gfldet-export-3")
    with pytest.raises(CheckpointError, match=r"x\.onnx: its format is 'gfldet-export-4', .* up to 'gfldet-export-3'"):
        Card.from_text({**today, "format": "gfldet-export-4"}, "x.onnx")
    steps[2] = lambda text: {**text, "category_ids": text["ids"]}
    with pytest.raises(CheckpointError, match=r"x\.onnx: its card is damaged \(it has no 'ids'\); export it anew"):
        Card.from_text(second, "x.onnx")
