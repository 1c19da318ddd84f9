"""Functions that are called at an event of a run, as users of other YOLO packages write them: `Model.add_callback`.

An observer (`events.py`) learns more.  A function here is given one object that tells how far the run is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gfldet.errors import ConfigError, nearest, no_attribute
from gfldet.metrics.coco import DetectionMetrics
from gfldet.train.events import EndReport, EpochReport, Observer, PlanReport, RunFacts, StepReport

EVENTS = {
    "on_pretrain_routine_end": "begin",
    "on_train_start": "begin",
    "on_train_batch_end": "step",
    "on_train_epoch_end": "epoch",
    "on_fit_epoch_end": "epoch",
    "on_train_end": "end",
}
"""The events of `add_callback`, each with the method of an observer that tells of it."""

_ELSEWHERE = {
    "model": "the weights of the run are in its files, best and last",
    "ema": "the weights of the run are in its files, best and last",
    "optimizer": "its settings are in args",
    "stop": "give patience= to train; Ctrl-C stops a run after its epoch",
    "validator": "take metrics",
    "fitness": "take report.metrics.map",
    "best_fitness": "take report.metrics.map, and report.best",
    "tloss": "take losses",
    "loss": "take losses",
    "loss_items": "take losses",
    "label_loss_items": "take losses",
    "data": "take args.data and names",
}


@dataclass(frozen=True)
class RunState:
    """How far a run is, for a function of `add_callback`; it changes nothing.

    epoch      the epoch that the event is of, from 0
    epochs     how many the run has
    save_dir   its folder
    best, last the files of its weights, once there are any
    args       its settings, as in args.epochs
    names      class number -> name
    losses     box, cls and dfl of this epoch so far: a mapping of floats; after a batch a tensor (3,)
    metrics    of the last validation, by the names that other packages give them; empty before it
    report     what an observer is told at this event
    """

    epoch: int
    epochs: int
    save_dir: Path
    args: SimpleNamespace
    names: dict[int, str]
    losses: Any = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    report: Any = None

    @property
    def best(self) -> Path:
        return self.save_dir / "weights" / "best.pt"

    @property
    def last(self) -> Path:
        return self.save_dir / "weights" / "last.pt"

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(self, name, _ELSEWHERE)


class Callback(Observer):
    """An observer that calls `function(RunState)` at one of EVENTS."""

    def __init__(self, event: str, function: Callable[[RunState], Any]) -> None:
        """Raises ConfigError for an event that there is not, or for a function that cannot be called."""
        if event not in EVENTS:
            close = nearest(event, EVENTS)
            guess = f"did you mean {close}? " if close else ""
            aside = "predict(..., stream=True) gives one result at a time. " if "predict" in event else ""
            raise ConfigError(f"add_callback: no event {event}; {guess}{aside}There are {', '.join(EVENTS)}")
        if not callable(function):
            raise ConfigError(f"add_callback: {function!r} cannot be called; give a function of one argument")
        self._event, self._function = EVENTS[event], function
        self._state: RunState | None = None

    def begin(self, facts: RunFacts) -> None:
        args, names = SimpleNamespace(**facts.settings), dict(enumerate(facts.names))
        self._state = RunState(facts.epoch, facts.plan.epochs, facts.folder, args, names)
        self._tell("begin", report=facts)

    def step(self, report: StepReport) -> None:
        self._tell("step", epoch=report.epoch, losses=report.losses, report=report)

    def epoch(self, report: EpochReport) -> None:
        metrics = _by_name(report.metrics)
        self._tell("epoch", epoch=report.epoch, losses=report.losses, metrics=metrics, report=report)

    def planned(self, report: PlanReport) -> None:
        self._tell("planned", epochs=report.plan.epochs)

    def end(self, report: EndReport) -> None:
        self._tell("end", metrics=_by_name(report.metrics), report=report)

    def _tell(self, event: str, **news: Any) -> None:
        """Take up the news, and call the function if this is its event."""
        assert self._state is not None  # `begin` comes first
        self._state = replace(self._state, **news)
        if event == self._event:
            self._function(self._state)


def _by_name(metrics: DetectionMetrics | None) -> Mapping[str, float]:
    return metrics.results_dict if metrics else {}
