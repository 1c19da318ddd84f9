"""Step -> learning rate; and everything else in a run that follows from its length or its data.

What is derived here is printed at the start of a run and saved with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gfldet.config.schema import TrainSettings
from gfldet.data.records import Split
from gfldet.data.sampling import balanced_weights
from gfldet.errors import counted

DEFAULT_LR = {"muon": 3e-3, "adamw": 1.5e-3, "sgd": 1e-2}
DEFAULT_DECAY = {"muon": 2e-2, "adamw": 2e-2, "sgd": 5e-4}  # for Muon the least; see `weight_decay`
WARMUP_STEPS = {"muon": 25, "adamw": 100, "sgd": 100}  # Muon's steps have one size from the first
ATSS_SHARE = 1 / 3  # of a run with assigner=tal-after-atss: as in TOOD and PicoDet, near PP-YOLOE's 30 of 80 epochs
ASSUMED_EPOCHS = 100  # of a run whose `time` decides, until its first steps were measured
LONGEST_WARMUP = 0.2  # share of the run: a warm-up as long as the run would never let it train


@dataclass(frozen=True, slots=True)
class Joint:
    """Where a run stood when its number of epochs was changed: the step, and the parts of the schedule and of the
    warm-up that were done before it."""

    step: int = 0
    share: float = 0.0
    warm: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of one run, none left open.

    `half_side` is the median half side of the training boxes in pixels of the training frame (None without boxes).
    `close_epoch` is the first epoch without mosaic and mixup, `tal_epoch` the first with the assigner that is chosen
    (before it, ATSS assigns).  `class_weights` has a number for each class, or is None.

    After `joint` what is left of the steps takes what is left of the schedule, so that the rate goes on without a jump
    and still ends at lr0 * lrf.
    """

    epochs: int
    steps_per_epoch: int
    lr0: float
    lrf: float
    flat: float
    momentum: float
    weight_decay: float
    warmup_steps: int
    close_epoch: int
    half_side: float | None
    tal_epoch: int = 0
    class_weights: tuple[float, ...] | None = None
    joint: Joint = Joint()

    def of_length(self) -> str:
        """The numbers that follow from the length of the run, in words."""
        told = f"weight decay {self.weight_decay:.2g}, warm-up {counted(self.warmup_steps, 'step')}"
        return f"{told}; no mosaic from epoch {self.close_epoch + 1}" if self.close_epoch < self.epochs else told

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """The rate of optimiser step `step` (from 0): linear warm-up, flat, cosine to lr0 * lrf at the last step."""
        begin = self.flat * self.total_steps
        progress = min(1.0, max(0.0, (self._place(step) - begin) / max(self.total_steps - 1 - begin, 1.0)))
        return self.lr0 * self.warm(step) * (self.lrf + (1 - self.lrf) * (1 + math.cos(math.pi * progress)) / 2)

    def warm(self, step: int) -> float:
        """The part of the full rate that the warm-up allows to optimiser step `step`, up to 1."""
        if not self.warmup_steps:
            return 1.0
        return min(1.0, self.joint.warm + (step + 1 - self.joint.step) / self.warmup_steps)

    def share(self, step: int) -> float:
        """The part of the schedule that is done before optimiser step `step`, 0 to 1."""
        return self._place(step) / self.total_steps

    def _place(self, step: int) -> float:
        """The step at which a run of this length stands in its schedule that had it from its start."""
        last = self.total_steps - 1
        if not self.joint.step or step >= last:
            return step
        begun = self.joint.share * self.total_steps
        return begun + (step - self.joint.step) * (last - begun) / max(last - self.joint.step, 1)

    def joint_at(self, step: int) -> Joint:
        """Where a run of this plan stands before `step`."""
        return Joint(step, self.share(step), self.warm(step - 1))


def plan(settings: TrainSettings, split: Split, steps_per_epoch: int, half_side: float | None) -> Plan:
    """Settings and data -> the run's numbers.  What the user set is kept as it is; the rest follows from the run.

    `half_side` is `median_half_side` of the split in the run's frame.
    """
    lr0 = DEFAULT_LR[settings.optimizer] if settings.lr0 is None else settings.lr0
    return Plan(
        steps_per_epoch=steps_per_epoch,
        lr0=lr0,
        lrf=settings.lrf,
        flat=settings.flat,
        momentum=settings.momentum,
        half_side=half_side,
        class_weights=class_weights(settings, split),
        **_by_length(settings, ASSUMED_EPOCHS if settings.time else settings.epochs, steps_per_epoch, lr0),
    )


def _by_length(settings: TrainSettings, epochs: int, steps_per_epoch: int, lr0: float) -> dict[str, Any]:
    """The numbers of a plan that follow from the length of the run."""
    total = epochs * steps_per_epoch
    closed = settings.close_mosaic if settings.close_mosaic >= 1 else settings.close_mosaic * epochs
    decay = weight_decay(settings.optimizer, lr0, total) if settings.weight_decay is None else settings.weight_decay
    return {
        "epochs": epochs,
        "weight_decay": decay,
        "warmup_steps": warmup_steps(settings, total),
        "close_epoch": epochs - round(closed),
        "tal_epoch": round(ATSS_SHARE * epochs) if settings.assigner == "tal-after-atss" else 0,
    }


def with_epochs(numbers: Plan, settings: TrainSettings, epochs: int, epoch: int, joint: Joint) -> Plan:
    """The plan of a run that is to have another number of epochs from now on, in `epoch`, where it stands at `joint`.

    What has happened in the run stays so: mosaic that is closed is not opened again, nor is the assigner changed back.
    """
    new = _by_length(settings, epochs, numbers.steps_per_epoch, numbers.lr0)
    for name in ("close_epoch", "tal_epoch"):
        before = getattr(numbers, name)
        new[name] = min(new[name], before) if before <= epoch else new[name]
    return replace(numbers, joint=joint, **new)


def warmup_steps(settings: TrainSettings, total_steps: int) -> int:
    """The steps over which the rate rises in a run of `total_steps`."""
    if settings.warmup_steps is not None:
        return settings.warmup_steps
    return min(WARMUP_STEPS[settings.optimizer], int(LONGEST_WARMUP * total_steps))


def weight_decay(optimizer: str, lr0: float, total_steps: int) -> float:
    """The decay of weight matrices for a run of `total_steps`.

    Muon's is 1 / (lr0 x steps), from .02 to 1: at the full rate, a weight that nothing pushes falls to 1/e over the
    run.  The time in which a weight forgets is to go with the time that it has (Wang and Aitchison, How to set AdamW's
    weight decay as you scale model and dataset size, 2024); a constant small enough for 100,000 steps does nothing in
    a few hundred.
    """
    least = DEFAULT_DECAY[optimizer]
    return min(1.0, max(least, 1 / (lr0 * total_steps))) if optimizer == "muon" else least


def class_weights(settings: TrainSettings, split: Split) -> tuple[float, ...] | None:
    """The weight of each class in the loss, if they have any."""
    given = settings.class_weights
    return balanced_weights(split) if isinstance(given, str) else given


def median_half_side(split: Split, frame: tuple[int, int]) -> float | None:
    """Median half side (over width and height of all boxes) in pixels of images fitted to `frame` (height, width)."""
    records = split.records
    scales = records.scales(frame).astype(np.float32)[records.images, None]
    sides = (scales * (records.boxes[:, 2:] - records.boxes[:, :2]) / 2).reshape(-1)
    if not len(sides):
        return None
    sides.sort()
    return float(sides[len(sides) // 2])
