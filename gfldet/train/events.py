"""What a run tells those who watch it: how it begins, each step and epoch, how it ends, and its warnings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from gfldet.data.train_set import TrainBatch
from gfldet.errors import ConfigError, GfldetError
from gfldet.messages import warn
from gfldet.metrics.coco import DetectionMetrics
from gfldet.train.schedule import Plan

ITEMS = ("box", "cls", "dfl")

Reason = Literal["finished", "patience", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run before its first step: its folder, its numbers, its settings as plain data, the class names, and the first
    epoch and step that it does (from 0; more for a run that is resumed)."""

    folder: Path
    plan: Plan
    settings: Mapping[str, Any]
    names: tuple[str, ...]
    epoch: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StepReport:
    """What an optimiser step gave.  Steps that were left out, as not finite, are warned of instead.

    `epoch`, `number` (in the epoch) and `step` (in the run) count from 0.  `losses` (3,) are the means of ITEMS over
    the epoch so far, on the run's device: to read them makes a GPU wait.  `batch` is what the model was shown, on the
    CPU; where several processes share a batch, it is the part of rank 0.
    """

    epoch: int
    number: int
    step: int
    losses: Tensor
    batch: TrainBatch
    rate: float


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch (from 0) gave: mean losses by name, the rate of its last step, metrics if it was validated.

    `seconds` are those of the run so far, from the reading of its images on, and `left` those until its end, as its
    epochs so far tell (NaN if nothing does).
    """

    epoch: int
    seconds: float
    losses: Mapping[str, float]
    rate: float
    metrics: DetectionMetrics | None
    best: bool
    left: float = math.nan


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The number of epochs is another one from now on, since `time` decides it: the plan, the hours of the whole run,
    the seconds that an epoch takes, as far as was measured, and whether this is longer than the run may take."""

    plan: Plan
    hours: float
    epoch_seconds: float
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class EndReport:
    """How a run ended: after its last epoch, by its patience, by the user (KeyboardInterrupt), or by an error.

    `metrics` are those of the best weights, if the run came that far and has a val split.
    """

    reason: Reason
    error: BaseException | None = None
    metrics: DetectionMetrics | None = None


class Observer:
    """Who is told how a run goes, and changes nothing in it.  A subclass overrides what it wants to know.

    Where several processes do a run, those of rank 0 alone are told.
    An exception that an observer raises is told as a warning, once, and the observer is left out from then on (see
    `left_out`); the run goes on.  Those of gfldet itself (as OutputError: a disk that is full) stop the run.
    """

    def begin(self, facts: RunFacts) -> None:
        """The run is ready: everything was found good, and its folder is there."""

    def step(self, report: StepReport) -> None:
        """A step was taken."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch was trained and validated; its checkpoints are written after this."""

    def planned(self, report: PlanReport) -> None:
        """The number of epochs was estimated, or estimated anew, in a run whose `time` decides it."""

    def end(self, report: EndReport) -> None:
        """The run is over, whichever way; told of every run that began."""

    def warn(self, message: str) -> None:
        """Something went wrong that does not stop the run."""

    def left_out(self) -> None:
        """This observer has raised an exception and is told nothing more, not even the end: time to close what it has
        open.  What it raises here is lost."""


class Observers:
    """All observers of a run, told one after the other in their order."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        """Raises ConfigError for what is no Observer."""
        self._observers = list(observers)
        for observer in self._observers:
            if not isinstance(observer, Observer):
                raise ConfigError(f"observers: {observer!r} is no Observer; make its class one of gfldet.Observer")

    def begin(self, facts: RunFacts) -> None:
        self._each(lambda observer: observer.begin(facts))

    def step(self, report: StepReport) -> None:
        self._each(lambda observer: observer.step(report))

    def epoch(self, report: EpochReport) -> None:
        self._each(lambda observer: observer.epoch(report))

    def planned(self, report: PlanReport) -> None:
        self._each(lambda observer: observer.planned(report))

    def end(self, report: EndReport) -> None:
        """Tell everybody, whoever fails: there is nothing left to stop, and an error of the run is not to be hidden."""
        self._each(lambda observer: observer.end(report), stopping=())

    def warn(self, message: str) -> None:
        self._each(lambda observer: observer.warn(message))

    def _each(self, tell: Callable[[Observer], None], stopping: tuple[type[Exception], ...] = (GfldetError,)) -> None:
        """`tell` each observer; errors of the `stopping` kinds pass, others cost the observer its place."""
        for observer in tuple(self._observers):
            try:
                tell(observer)
            except stopping:
                raise
            except Exception as error:  # whatever a logger of the user's may raise
                self._observers.remove(observer)
                name = type(observer).__name__
                warn(f"observer {name}: left out from here on, as it raised {type(error).__name__}: {error}")
                with suppress(Exception):
                    observer.left_out()
