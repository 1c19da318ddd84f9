"""How long the epochs of a run take, what is left of it, and how many epochs fit into the `time` that it is given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

HOUR = 3600.0  # s
RECENT = 5  # epochs that tell how long the next ones take
SLACK = 0.1  # of an epoch: an estimate that wanders by less leaves the number of epochs as it is
ENOUGH = 0.5  # of an epoch: as much room as the last one of a schedule needs, which would not be whole without it
PARTS = (8, 4, 2)  # the first epoch is estimated after an eighth, a fourth and a half of its steps
FORWARD = 1 / 3  # what an image costs in validation, of its cost in training: there is no backward pass
DRAWING = 5.0  # s that the curves and pictures at the end take, about


class Pace:
    """The stop-watch of a run, and how long its epochs take, as this process has measured them.

    An epoch lasts from the end of the one before to its own: its training and validation, and the saving of the one
    before.  `finish` is what comes after the last epoch: the validation of the best weights and, if any, `drawing`.
    All times are in seconds.
    """

    def __init__(self, drawing: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        """The watch starts; `now` is the clock that it reads."""
        self._now, self._began = now, now()
        self._drawing = drawing
        self._epochs: list[float] = []
        self._validation = 0.0
        self._first_step = self._guess = math.nan

    @property
    def running(self) -> float:
        """The time since the last epoch ended, or since the run began."""
        return self._now() - self._began

    @property
    def epoch(self) -> float:
        """How long the next epochs take: the mean of the last ones but the first, which has more to do, or else what
        the steps of the first tell; NaN before there is any."""
        measured = self._epochs[1:][-RECENT:] or self._epochs
        return sum(measured) / len(measured) if measured else self._guess

    @property
    def finish(self) -> float:
        return self._validation + self._drawing

    def begin_epochs(self) -> float:
        """The first epoch begins: how long all before it took."""
        return self._lap()

    def end_epoch(self, validation: float) -> float:
        """An epoch is over: how long it took.  `validation` is the part of its validation, 0 without one."""
        took = self._lap()
        self._epochs.append(took)
        self._validation = validation
        return took

    def end_step(self, done: int, steps: int, validated: float) -> bool:
        """The first `done` of the `steps` of an epoch are taken: whether they tell of an epoch for the first time, or
        better than before.  After the first epoch the steps are not looked at.

        `validated` is the number of images of a validation for each of the training.
        """
        if self._epochs:
            return False
        if done == 1:  # it waits for the first batch and for memory
            self._first_step = self.running
        if done < 2 or done >= steps or done not in {-(-steps // part) for part in PARTS}:
            return False
        training = (self.running - self._first_step) / (done - 1) * steps
        self._validation = training * validated * FORWARD
        self._guess = training + self._validation
        return True

    def left(self, epochs: int) -> float:
        """The time until the end of a run that has so many epochs to go."""
        return epochs * self.epoch + self.finish if epochs else self.finish

    def room(self, seconds: float) -> float:
        """How many epochs, and the finish after them, fit into so much time; below 0 where the finish does not."""
        return (seconds - self.finish) / max(self.epoch, 1e-9)

    def _lap(self) -> float:
        took = self.running
        self._began += took
        return took


@dataclass(frozen=True, slots=True)
class Length:
    """How many epochs a run is to have, and whether a single one takes more than all of its time."""

    epochs: int
    too_long: bool = False


def length_in_time(pace: Pace, seconds: float, done: int, planned: int, begun: bool) -> Length:
    """The length of a run that has `seconds` left after its `done` epochs.

    `planned` is its length so far (0: not known yet); with `begun` another epoch is being done.
    """
    room = pace.room(seconds)
    more = max(int(begun), epochs_to_do(room, planned and planned - done))
    return Length(done + more, done + more == 1 and room < int(begun))


def epochs_to_do(room: float, planned: int) -> int:
    """How many epochs to do where there is time for `room` of them, and where `planned` were to be done so far (0: it
    is not known yet).

    As many as fit.  What was planned stays while it fits but for SLACK, and a single one is done in half of its time,
    so that a schedule that has come to its last epoch is whole.
    """
    if planned and planned - SLACK <= room < planned + 1:
        return planned
    return max(int(room), int(room >= ENOUGH))


def in_words(seconds: float) -> str:
    """5025 -> `1:23:45`, 62.5 -> `1:02`; of a number that is none `-`."""
    if math.isnan(seconds):
        return "-"
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
