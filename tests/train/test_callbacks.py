"""Functions of `add_callback`: which event calls them, and what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet.errors import ConfigError
from gfldet.train.callbacks import EVENTS, Callback, RunState
from gfldet.train.events import EndReport, EpochReport, Observer, RunFacts, StepReport
from gfldet.train.schedule import Plan

PLAN = Plan(3, 2, 0.01, 0.1, 0.5, 0.9, 0.0, 0, 2, None)
FACTS = RunFacts(Path("runs/train"), PLAN, {"imgsz": 64}, ("cat", "dog"))
STEP = StepReport(1, 0, 2, torch.tensor([1.0, 2.0, 3.0]), {}, 0.01)  # type: ignore[arg-type]
EPOCH = EpochReport(1, 5.0, {"box": 1.0, "cls": 2.0, "dfl": 3.0}, 0.01, None, True)


def told(event: str) -> list[RunState]:
    """What a function at `event` is told in a run of one step and one epoch."""
    seen: list[RunState] = []
    callback = Callback(event, seen.append)
    callback.begin(FACTS)
    callback.step(STEP)
    callback.epoch(EPOCH)
    callback.end(EndReport("finished"))
    return seen


@pytest.mark.parametrize(
    ("event", "report"),
    [("on_train_start", FACTS), ("on_train_batch_end", STEP), ("on_fit_epoch_end", EPOCH), ("on_train_end", None)],
)
def test_each_event_calls_once(event: str, report: Any) -> None:
    (state,) = told(event)
    assert (state.epochs, state.save_dir, state.names, state.args.imgsz) == (
        3,
        Path("runs/train"),
        {0: "cat", 1: "dog"},
        64,
    )
    assert state.best == Path("runs/train/weights/best.pt")
    assert state.last == Path("runs/train/weights/last.pt")
    assert state.epoch == (0 if event == "on_train_start" else 1)
    assert report is None or state.report is report


def test_losses_and_metrics() -> None:
    assert told("on_train_batch_end")[0].losses.tolist() == [1, 2, 3]
    assert told("on_train_epoch_end")[0].losses == {"box": 1.0, "cls": 2.0, "dfl": 3.0}
    assert told("on_train_epoch_end")[0].metrics == {}  # it was not validated


def test_every_event_is_one_of_an_observer() -> None:
    assert {getattr(Observer, method).__name__ for method in EVENTS.values()} == {"begin", "step", "epoch", "end"}


def test_the_state_tells_and_changes_nothing() -> None:
    (state,) = told("on_train_end")
    with pytest.raises(AttributeError, match="RunState has no 'tloss': take losses"):
        _ = state.tloss
    with pytest.raises(AttributeError, match="cannot assign to field 'stop'"):
        state.stop = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("event", "function", "reason"),
    [
        ("on_train_strat", print, "no event on_train_strat; did you mean on_train_start"),
        ("on_predict_batch_end", print, r"predict\(\.\.\., stream=True\) gives one result at a time"),
        ("on_train_end", 3, "3 cannot be called; give a function of one argument"),
    ],
)
def test_what_cannot_be_called_back(event: str, function: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Callback(event, function)
