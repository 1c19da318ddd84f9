"""Reading of values: what is accepted in which form, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfldet.config import kinds


@pytest.mark.parametrize("word", ["true", "True", "YES", "on", "1", " true ", True, 1])
def test_flag_true(word: object) -> None:
    assert kinds.Flag().read(word) is True


@pytest.mark.parametrize("word", ["false", "False", "NO", "off", "0", False, 0])
def test_flag_false(word: object) -> None:
    assert kinds.Flag().read(word) is False


@pytest.mark.parametrize(
    ("kind", "value", "settled"),
    [
        (kinds.Whole(1), "16", 16),
        (kinds.Whole(1), 16.0, 16),
        (kinds.Whole(1), np.int64(16), 16),
        (kinds.Whole(-1), "-1", -1),
        (kinds.Whole(0), "9007199254740993", 9007199254740993),  # not through a float
        (kinds.Real(0, 1), "1e-3", 0.001),
        (kinds.Real(0, 1), 1, 1.0),
        (kinds.Real(0, 1), "0", 0.0),
        (kinds.Text(), Path("a/b"), "a/b"),
        (kinds.Text(), 2024, "2024"),
        (kinds.Text(), "001", "001"),
        (kinds.Text(empty=True), "", ""),
        (kinds.Choice("sgd", "adamw"), "SGD", "sgd"),
        (kinds.Weights(), "Auto", "auto"),
        (kinds.Weights(), "1, 2.5", (1.0, 2.5)),
        (kinds.Weights(), [3, 1], (3.0, 1.0)),
        (kinds.Choice("auto", "on", true="on"), True, "on"),
        (kinds.OrNone(kinds.Whole(1)), "None", None),
        (kinds.OrNone(kinds.Whole(1)), None, None),
        (kinds.OrNone(kinds.Whole(1)), "3", 3),
        (kinds.NameOrNone("a file"), "a.pt", "a.pt"),
        (kinds.NameOrNone("a file"), "none", None),
        (kinds.NameOrNone("a file"), False, None),
        (kinds.NameOrNone("a file"), "False", None),
        (kinds.ImageSize(), "640", 640),
        (kinds.ImageSize(), "480,640", (480, 640)),
        (kinds.ImageSize(), "[480, 640]", (480, 640)),
        (kinds.ImageSize(), [480, 640], (480, 640)),
        (kinds.ImageSize(), (640,), 640),
        (kinds.Device(), 0, "cuda:0"),
        (kinds.Device(), "1", "cuda:1"),
        (kinds.Device(), "CPU", "cpu"),
        (kinds.Device(), "cuda:3", "cuda:3"),
        (kinds.Device(), "0,1", "0,1"),
        (kinds.Device(), "cuda:2, cuda:0", "2,0"),
        (kinds.Device(), [0, 3], "0,3"),
        (kinds.Device(), ("1",), "cuda:1"),
        (kinds.Device(), "CPU:2", "cpu:2"),
        (kinds.Device(), "cpu:1", "cpu"),
        (kinds.FlagOr("a path"), None, False),
        (kinds.FlagOr("a path"), "true", True),
        (kinds.FlagOr("a path"), False, False),
        (kinds.FlagOr("a path"), "runs/train/weights/last.pt", "runs/train/weights/last.pt"),
        (kinds.Freeze(), "10", 10),
        (kinds.Freeze(), 10, 10),
        (kinds.Freeze(), "[0, 1,2]", (0, 1, 2)),
        (kinds.Freeze(), [5], (5,)),
        (kinds.ClassPick(), "0,traffic light", (0, "traffic light")),
        (kinds.ClassPick(), "['dog', \"cat\"]", ("dog", "cat")),
        (kinds.ClassPick(), ["dog", 3], ("dog", 3)),
        (kinds.ClassPick(), 3, (3,)),
        (kinds.Source(), Path("images"), "images"),
    ],
)
def test_settled_form(kind: kinds.Kind, value: object, settled: object) -> None:
    got = kind.read(value)
    assert got == settled
    assert type(got) is type(settled)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (kinds.Flag(), "Flase"),
        (kinds.Flag(), 2),
        (kinds.Flag(), 1.0),
        (kinds.Flag(), None),
        (kinds.Whole(1), 0),
        (kinds.Whole(1), "3.5"),
        (kinds.Whole(1), True),
        (kinds.Whole(1), "many"),
        (kinds.Whole(1), None),
        (kinds.Whole(1), float("inf")),
        (kinds.Whole(1, 8), 9),
        (kinds.Real(0, 1), 1.01),
        (kinds.Real(0, 1), "nan"),
        (kinds.Real(), "inf"),
        (kinds.Real(), 10**400),
        (kinds.Real(0, 1), False),
        (kinds.Real(0, 1), [0.5]),
        (kinds.Real(0, 1, above=True), 0),
        (kinds.Text(), ""),
        (kinds.Text(), False),
        (kinds.Text(), None),
        (kinds.NameOrNone("a file"), "true"),
        (kinds.NameOrNone("a file"), True),
        (kinds.NameOrNone("a file"), ""),
        (kinds.NameOrNone("a file"), ["a.pt"]),
        (kinds.Choice("sgd", "adamw"), "adam"),
        (kinds.Choice("sgd", "adamw"), 1),
        (kinds.ImageSize(), "640x640"),
        (kinds.ImageSize(), (640, 640, 3)),
        (kinds.ImageSize(), []),
        (kinds.ImageSize(), 16),
        (kinds.Device(), "gpu"),
        (kinds.Device(), "0,0"),
        (kinds.Device(), "0,cpu"),
        (kinds.Device(), "cpu:0"),
        (kinds.Device(), "cpu:two"),
        (kinds.Device(), []),
        (kinds.Device(), [[0], 1]),
        (kinds.Device(), [True, 0]),
        (kinds.Device(), [0.0]),
        (kinds.Device(), True),
        (kinds.Freeze(), -1),
        (kinds.Freeze(), "[]"),
        (kinds.Weights(), "1,0"),
        (kinds.Weights(), "balanced"),
        (kinds.Weights(), True),
        (kinds.ClassPick(), ""),
        (kinds.ClassPick(), [1.5]),
        (kinds.Source(), None),
        (kinds.Source(), ""),
    ],
)
def test_refused(kind: kinds.Kind, value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is made by the caller, see test_load
        kind.read(value)


def test_augment_takes_a_callable() -> None:
    def mine(sample: Any) -> Any:
        return sample

    assert kinds.Augment("default", "none").read(mine) is mine


def test_source_keeps_an_array() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    assert kinds.Source().read(image) is image


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (kinds.Whole(1), "a whole number from 1 up"),
        (kinds.Whole(0, 4294967295), "a whole number from 0 to 4294967295"),
        (kinds.Real(0, 0.5, above=True), "a number above 0, up to 0.5"),
        (kinds.Real(), "a number"),
        (kinds.Choice("a", "b", "c"), "a, b or c"),
        (kinds.OrNone(kinds.Real(0, 1)), "a number from 0 to 1, or none"),
        (kinds.NameOrNone("a file"), "a file, or none"),
    ],
)
def test_describe(kind: kinds.Kind, words: str) -> None:
    assert kind.describe() == words
