"""Looking at the scores first and decoding few points gives what decoding everything gives, in torch and in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfldet.detect.card import Card
from gfldet.detect.detector import Selection
from gfldet.detect.exported import Engine, ExportedDetector
from gfldet.nn.build import HEADS
from gfldet.nn.heads import DetectionHead, EndToEnd
from gfldet.ops.decode import Decoded, HeadMaps
from gfldet.ops.decode_numpy import sigmoid
from gfldet.ops.detections import Detections, logit_floor
from gfldet.ops.nms import non_max_suppression

STRIDES = (8, 16, 32)
SIZE, CLASSES = (128, 192), 4  # 384 + 96 + 24 points, with their classes a whole number of vectors
CHOICES = [
    {"conf": 0.25},
    {"conf": 0.0, "max_det": 1000},
    {"conf": 0.001, "iou": 0.3, "max_det": 7},
    {"conf": 0.6, "iou": None, "max_det": 20},
    {"conf": 0.2, "agnostic": True, "classes": torch.tensor([0, 2])},
    {"conf": 1.0},
]


def maps(reg_max: int, channels_last: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    height, width = SIZE
    some = [torch.randn(2, 4 * reg_max + CLASSES, height // s, width // s, generator=generator) * 2 for s in STRIDES]
    return [m.contiguous(memory_format=torch.channels_last) for m in some] if channels_last else some


def same(ours: list[Detections], theirs: list[Detections]) -> None:
    """Points, classes and scores to the bit, boxes to the last bits of float32."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.points is not None
        assert b.points is not None
        np.testing.assert_array_equal(a.points, b.points)
        np.testing.assert_array_equal(a.classes, b.classes)
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_allclose(a.boxes, b.boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("reg_max", [1, 5, 16])
def test_the_few_are_those_of_the_whole(reg_max: int, channels_last: bool, choice: dict[str, object]) -> None:
    few = HeadMaps(maps(reg_max, channels_last), CLASSES, torch.arange(float(reg_max)), reg_max, STRIDES)
    found = non_max_suppression(few, **choice)  # type: ignore[arg-type]
    same(found, non_max_suppression(few.decoded(), **choice))  # type: ignore[arg-type]
    assert sum(map(len, found)) > 10 or choice["conf"] == 1.0


@pytest.mark.parametrize("dgqp", [False, True])
@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize("name", list(HEADS))
def test_every_head(name: str, end2end: bool, dgqp: bool) -> None:
    torch.manual_seed(0)
    channels = (32, 32, 32)
    heads = [HEADS[name](CLASSES, 8, channels, dgqp) for _ in range(1 + end2end)]
    head: DetectionHead = EndToEnd(*heads) if end2end else heads[0]
    for parameter in head.predicting():
        nn.init.normal_(parameter, std=0.3)
    head.strides = STRIDES
    head.eval()
    with torch.inference_mode():
        made = head([torch.randn(1, 32, SIZE[0] // s, SIZE[1] // s) for s in STRIDES])
        conf = float(head.decode(made).scores.quantile(0.98))  # some of the points, whatever the head makes of noise
        few = non_max_suppression(head.outputs(made), conf)
        same(few, non_max_suppression(head.decode(made), conf))
    assert len(few[0]) > 3


@pytest.mark.parametrize("conf", [0.0, 1e-9, 1e-3, 0.25, 0.5, 0.9, 0.999999, 0.99999997, 1.0])
def test_no_score_above_the_threshold_has_a_logit_below_the_floor(conf: float) -> None:
    """Around the logit of the threshold, every float32 there is."""
    middle = min(max(logit_floor(conf), -90.0), 20.0)
    near = np.float32(middle) + np.arange(-5000, 5000, dtype=np.float32) * np.spacing(np.float32(middle))
    logits = torch.from_numpy(np.concatenate((near, np.linspace(-110, 40, 5000, dtype=np.float32))))
    for scores in (logits.sigmoid(), torch.from_numpy(sigmoid(logits.numpy()))):
        above = scores > conf
        assert bool((logits[above] > logit_floor(conf)).all())
        assert conf == 0 or int((logits > logit_floor(conf)).sum() - above.sum()) < 7500  # and it is near the threshold


def test_a_point_scores_the_same_wherever_it_lies() -> None:
    """Few points, an odd number of them, one alone."""
    whole = maps(16)
    few = HeadMaps(whole, CLASSES, torch.arange(16.0), 16, STRIDES)
    decoded = few.decoded()
    for points in (torch.tensor([503]), torch.tensor([1, 400, 490, 2, 7]), torch.arange(504)):
        torch.testing.assert_close(few.corners(1, points), decoded.corners(1, points), rtol=0, atol=1e-4)
    one = few.candidates(1, 0.9)
    assert len(one.scores) % 64
    assert torch.equal(one.scores, decoded.scores[1].T[one.points, one.classes])


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_runner_too(choice: dict[str, object]) -> None:
    card = Card(
        names=("a", "b", "c", "d"),
        category_ids=(0, 1, 2, 3),
        imgsz=SIZE,
        strides=STRIDES,
        multiple=32,
        reg_max=8,
        layout="raw",
        end2end=choice.get("iou", 0.7) is None,
    )
    flat = torch.cat([m.flatten(2) for m in maps(8)], dim=2).numpy()
    outputs = {"images": np.zeros((2, 3, *SIZE), np.float32), "bins": flat[:, :32], "logits": flat[:, 32:]}
    raw = ExportedDetector(Engine(lambda images: {}, card, "cpu"))
    boxes, scores = raw.points(outputs)
    every = ExportedDetector(Engine(lambda images: {}, replace(card, layout="decoded"), "cpu"))
    given = {name: value for name, value in choice.items() if name != "classes" and value is not None}
    classes = (0, 2) if "classes" in choice else None
    selection = Selection(**given)  # type: ignore[arg-type]
    found = raw.select(outputs, selection, classes)
    same(found, every.select({"boxes": boxes, "scores": scores}, selection, classes))
    torchs = HeadMaps(maps(8), CLASSES, torch.arange(8.0), 8, STRIDES)
    for ours, theirs in zip(found, non_max_suppression(torchs, **choice), strict=True):  # type: ignore[arg-type]
        assert ours.points is not None
        assert theirs.points is not None
        np.testing.assert_array_equal(ours.points, theirs.points)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)


def test_nothing_is_found_in_no_candidates() -> None:
    few = HeadMaps([m - 100 for m in maps(4)], CLASSES, torch.arange(4.0), 4, STRIDES)
    assert [len(one) for one in non_max_suppression(few, 0.5)] == [0, 0]
    assert isinstance(few.decoded(), Decoded)
