"""Step -> learning rate; and everything else in a run that follows from its length or its data.

What is derived here is printed at the start of a run and saved with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gfldet.config.schema import TrainSettings
from gfldet.data.records import Split
from gfldet.data.sampling import balanced_weights

DEFAULT_LR = {"muon": 3e-3, "adamw": 1.5e-3, "sgd": 1e-2}
DEFAULT_DECAY = {"muon": 2e-2, "adamw": 2e-2, "sgd": 5e-4}  # for Muon the least; see `weight_decay`
WARMUP_STEPS = {"muon": 25, "adamw": 100, "sgd": 100}  # Muon's steps have one size from the first
ATSS_SHARE = 1 / 3  # of a run with assigner=tal-after-atss: as in TOOD and PicoDet, near PP-YOLOE's 30 of 80 epochs
LONGEST_WARMUP = 0.2  # share of the run: a warm-up as long as the run would never let it train


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of one run, none left open.

    `half_side` is the median half side of the training boxes in pixels of the training frame (None without boxes).
    `close_epoch` is the first epoch without mosaic and mixup, `tal_epoch` the first with the assigner that is chosen
    (before it, ATSS assigns).  `class_weights` has a number for each class, or is None.
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

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """The rate of optimiser step `step` (from 0): linear warm-up, flat, cosine to lr0 * lrf at the last step."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        begin = self.flat * self.total_steps
        progress = min(1.0, max(0.0, (step - begin) / max(self.total_steps - 1 - begin, 1.0)))
        return self.lr0 * warm * (self.lrf + (1 - self.lrf) * (1 + math.cos(math.pi * progress)) / 2)


def plan(settings: TrainSettings, split: Split, steps_per_epoch: int, half_side: float | None) -> Plan:
    """Settings and data -> the run's numbers.  What the user set is kept as it is; the rest follows from the run.

    `half_side` is `median_half_side` of the split in the run's frame.
    """
    total = settings.epochs * steps_per_epoch
    lr0 = DEFAULT_LR[settings.optimizer] if settings.lr0 is None else settings.lr0
    closed = settings.close_mosaic if settings.close_mosaic >= 1 else settings.close_mosaic * settings.epochs
    return Plan(
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        lr0=lr0,
        lrf=settings.lrf,
        flat=settings.flat,
        momentum=settings.momentum,
        weight_decay=weight_decay(settings.optimizer, lr0, total)
        if settings.weight_decay is None
        else settings.weight_decay,
        warmup_steps=warmup_steps(settings, total),
        close_epoch=settings.epochs - round(closed),
        half_side=half_side,
        class_weights=class_weights(settings, split),
        tal_epoch=round(ATSS_SHARE * settings.epochs) if settings.assigner == "tal-after-atss" else 0,
    )


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
