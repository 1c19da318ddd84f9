"""Where a training run stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """Where a run stands: finished epochs, optimiser steps taken, the best epoch (by AP50-95) so far.

    Of epochs with one and the same AP the last is the best, but `improved` is the first of them: patience counts the
    epochs since the AP rose.
    `seconds` are those of the run up to its last whole epoch, in all processes that did a part of it one after another.
    `share` is the part of its schedule that is done.  It is what outlives another batch size or data set, with which an
    epoch has other steps: the steps taken then count anew, as those of the same share (see `Trainer.restore`).
    `planned` is the number of epochs of a run whose `time` decides how many there are; 0 in other runs, and before it
    was estimated.
    `running` is 1 until the best weights are measured, after the last epoch: a run that is killed in between can be
    resumed for that alone.  Older checkpoints do not tell.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    bad_steps: int = 0
    share: float = 0.0
    improved: int = -1
    planned: int = 0
    running: int = 0

    def __post_init__(self) -> None:
        if self.improved < 0:  # older checkpoints do not tell; with them the first of equal epochs was the best
            self.improved = self.best_epoch


def out_of_patience(progress: Progress, patience: int) -> bool:
    """Whether `patience` epochs (0: any number) have gone by without a better AP."""
    return patience > 0 and progress.epoch - 1 - progress.improved >= patience
