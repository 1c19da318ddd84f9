"""The card: what goes in comes out, and what is no card of ours is refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

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
        {"batch": 8, "model": "gfldet-n"},
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
        ({"format": None}, "it has no card"),
        ({"strides": "[8, 0]"}, "whole numbers"),
        ({"strides": "8"}, "iterable"),
        ({"imgsz": "[320]"}, "whole numbers"),
        ({"imgsz": "[320, 330]"}, "no multiple of 32"),
        ({"names": '["a"]'}, "1 names and 3 category ids"),
        ({"names": "a, b"}, "Expecting value"),
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
