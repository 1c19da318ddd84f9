"""The learning rate by hand, and the numbers that follow from a run's length and data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfldet.config.load import resolve
from gfldet.data.records import Record, Split
from gfldet.train.schedule import Plan, median_half_side, plan


def a_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "epochs": 10,
        "steps_per_epoch": 10,
        "lr0": 0.1,
        "lrf": 0.01,
        "flat": 0.5,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "warmup_steps": 4,
        "close_epoch": 8,
        "half_side": None,
    }
    return Plan(**{**values, **changes})


def test_rate_warms_up_stays_and_falls() -> None:
    rates = [a_plan().learning_rate(step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert rates[4:51] == [0.1] * 47
    middle = 50 + 49 / 2
    half = 0.1 * (0.01 + 0.99 / 2)
    assert (rates[math.floor(middle)] + rates[math.ceil(middle)]) / 2 == pytest.approx(half, rel=1e-6)
    assert rates[99] == pytest.approx(0.001)
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_rate_by_hand() -> None:
    # 100 steps, flat to 50: step 66 is 16 of 49 steps down the cosine.
    expected = 0.1 * (0.01 + 0.99 * (1 + math.cos(math.pi * 16 / 49)) / 2)
    assert a_plan().learning_rate(66) == pytest.approx(expected)
    assert a_plan(flat=0, warmup_steps=0).learning_rate(0) == 0.1
    assert a_plan(flat=0).learning_rate(0) == pytest.approx(0.025)
    assert a_plan(lrf=1).learning_rate(99) == pytest.approx(0.1)
    assert a_plan(flat=1).learning_rate(99) == 0.1


@pytest.mark.parametrize("flat", [0.0, 0.5, 1.0])
def test_shortest_run(flat: float) -> None:
    short = a_plan(epochs=1, steps_per_epoch=1, warmup_steps=0, flat=flat)
    assert short.learning_rate(0) == 0.1


def record(width: int, height: int, *boxes: tuple[float, ...]) -> Record:
    nothing = np.zeros((0, 4), np.float32)
    truths = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(Path("x"), 0, "x", width, height, truths, np.zeros(len(truths), np.int64), nothing)


SPLIT = Split("train", (record(100, 50, (0, 0, 20, 10), (0, 0, 30, 50)), record(64, 64)), ("a",), (0,))


def test_half_side_by_hand() -> None:
    # 100 x 50 into 64 x 64 is a scale of .64; the half sides are 10, 5, 15 and 25 px, and 15 the upper median.
    assert median_half_side(SPLIT, (64, 64)) == pytest.approx(15 * 0.64)
    assert median_half_side(SPLIT, (100, 200)) == pytest.approx(15 * 2)
    assert median_half_side(Split("train", (record(9, 9),), ("a",), (0,)), (64, 64)) is None


def planned(steps_per_epoch: int = 20, **settings: Any) -> Plan:
    resolved = resolve("train", {"imgsz": 64, **settings})
    return plan(resolved, SPLIT, steps_per_epoch, median_half_side(SPLIT, resolved.height_width))


def test_what_is_left_open_follows_from_the_run() -> None:
    found = planned(epochs=40)
    assert (found.lr0, found.warmup_steps, found.close_epoch) == (3e-3, 25, 34)
    assert found.half_side == pytest.approx(9.6)
    assert planned(epochs=40, optimizer="sgd").lr0 == 1e-2
    assert planned(epochs=40, optimizer="sgd").weight_decay == 5e-4
    assert planned(epochs=10, optimizer="adamw").warmup_steps == 40  # a fifth of 200 steps
    assert planned(epochs=40, optimizer="adamw").lr0 == 1.5e-3
    assert (planned(epochs=40, optimizer="adamw").momentum, planned(epochs=40).momentum) == (0.9, 0.9)
    assert planned(epochs=1, steps_per_epoch=2).warmup_steps == 0


def test_the_decay_of_muon_goes_with_the_length_of_the_run() -> None:
    plans = [planned(epochs=epochs) for epochs in (10, 40, 100, 10_000)]  # 200, 800, 2,000 and 200,000 steps
    assert [run.weight_decay for run in plans] == pytest.approx([1, 1 / 2.4, 1 / 6, 0.02])
    assert planned(epochs=40, lr0=0.03).weight_decay == pytest.approx(1 / 24)
    # What the decay alone leaves of a weight after a run at the full rate: 1 / e.
    assert (1 - plans[2].lr0 * plans[2].weight_decay) ** plans[2].total_steps == pytest.approx(math.exp(-1), rel=1e-3)
    assert planned(epochs=40, optimizer="adamw").weight_decay == 0.02


def test_class_weights() -> None:
    assert planned().class_weights is None
    assert planned(class_weights="auto").class_weights == (1,)
    assert planned(class_weights="2.5").class_weights == (2.5,)


def test_what_is_given_stays() -> None:
    given = planned(epochs=1, optimizer="sgd", lr0=0.5, weight_decay=0, warmup_steps=300)
    assert (given.lr0, given.weight_decay, given.warmup_steps) == (0.5, 0, 300)


@pytest.mark.parametrize(
    ("close_mosaic", "epochs", "first"),
    [(0.15, 100, 85), (0.15, 1, 1), (0, 10, 10), (0.5, 3, 1), (1, 10, 9), (10, 60, 50), (10, 5, -5)],
)
def test_mosaic_closes_by_share_or_by_epochs(close_mosaic: float, epochs: int, first: int) -> None:
    assert planned(epochs=epochs, close_mosaic=close_mosaic).close_epoch == first


def test_the_same_share_of_a_run_has_the_same_rate() -> None:
    # 640 images: 40 steps an epoch at batch 16, 10 at batch 64.
    small, large = (planned(steps, epochs=60, weight_decay=0) for steps in (40, 10))
    for epoch in (5, 20, 40, 50, 59):
        before, after = small.learning_rate(40 * epoch - 1), large.learning_rate(10 * epoch)
        change = abs(large.learning_rate(10 * epoch) - large.learning_rate(10 * epoch - 1))
        assert abs(before - after) <= change + 1e-5 * small.lr0
    assert small.learning_rate(799) == large.learning_rate(200) == 0.003
    assert large.learning_rate(800) == pytest.approx(0.00003)  # what the steps of batch 16 would have made of it
