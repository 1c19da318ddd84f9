"""The errors of a validation that a page shows: those at the score threshold that people work with, the worst first.

The surest are the worst.  Of misses these are the ones that no detection finds at any score, then those of the lowest
scores; of equal ones the larger truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gfldet.data.records import Split
from gfldet.metrics.matching import SplitTruths, truth_columns
from gfldet.metrics.table import DetectionTable, Ints
from gfldet.metrics.tide import KINDS, RIGHT, Errors, Kind, find_errors

PER_KIND = 30
OF_CLASS = 4  # of a kind, before another class has fewer


@dataclass(frozen=True, slots=True)
class Example:
    """One error.

    image  position in `Split.records`
    truth  row in `Mistakes.truths`, -1 for none: what is missed, or what the detection is about
    found  row in `Mistakes.detections`, -1 for none: the wrong detection; of a miss one of a lower score that finds it
    """

    kind: Kind
    image: int
    truth: int
    found: int


@dataclass(frozen=True, eq=False)
class Mistakes:
    """All errors of a split in numbers, and the worst of each kind.

    conf      only detections of this score and more are looked at
    every     what all detections are, whatever their score
    sure      rows in `detections` of those that are looked at
    right     how many of these find a truth
    counts    how many errors of each kind there are
    examples  of each kind PER_KIND at most, the worst first
    """

    conf: float
    truths: SplitTruths
    detections: DetectionTable
    every: Errors
    sure: Ints
    right: int
    counts: Mapping[Kind, int]
    examples: Mapping[Kind, tuple[Example, ...]]

    def classes(self, example: Example) -> list[int]:
        """The classes that an example is about: of its truth, and of its detection if that is another."""
        truth = [int(self.truths.classes[example.truth])] if example.truth >= 0 else []
        found = [int(self.detections.classes[example.found])] if example.found >= 0 else []
        return sorted({*truth, *found})


def find_mistakes(split: Split, detections: DetectionTable, conf: float) -> Mistakes:
    """The errors that are left at the score threshold `conf`; truths that are found at a lower score are missed."""
    truths = truth_columns(split)
    sure = np.flatnonzero(detections.scores >= conf)
    every = find_errors(truths, detections)
    errors = every.take(sure)
    counts: dict[Kind, int] = {}
    examples: dict[Kind, tuple[Example, ...]] = {}
    for number, kind in enumerate(KINDS):
        if kind == "Miss":
            counts[kind] = int(errors.missed.sum())
            examples[kind] = _misses(truths, errors, _unsure(every, detections, conf), detections)
            continue
        rows = np.flatnonzero(errors.kind == number)
        counts[kind] = len(rows)
        rows = rows[np.argsort(-detections.scores[sure[rows]], kind="stable")]
        rows = rows[_chosen(detections.classes[sure[rows]])]
        found = sure[rows]
        columns = zip(detections.image[found].tolist(), errors.truth[rows].tolist(), found.tolist(), strict=True)
        examples[kind] = tuple(Example(kind, *row) for row in columns)
    return Mistakes(conf, truths, detections, every, sure, int((errors.kind == RIGHT).sum()), counts, examples)


def _unsure(every: Errors, detections: DetectionTable, conf: float) -> Ints:
    """(T,) row of the detection below `conf` that finds a truth, -1 for none."""
    rows = np.flatnonzero((every.kind == RIGHT) & (detections.scores < conf))
    found = np.full(len(every.missed), -1, np.int64)
    found[every.truth[rows]] = rows
    return found


def _misses(truths: SplitTruths, errors: Errors, unsure: Ints, detections: DetectionTable) -> tuple[Example, ...]:
    missed = np.flatnonzero(errors.missed)
    score = np.zeros(len(missed))
    found = unsure[missed] >= 0
    score[found] = detections.scores[unsure[missed][found]]
    area = (truths.boxes[missed, 2:] - truths.boxes[missed, :2]).prod(axis=1)
    missed = missed[np.lexsort((-area, score))]
    missed = missed[_chosen(truths.classes[missed])]
    image = np.searchsorted(truths.start, missed, side="right") - 1
    columns = zip(image.tolist(), missed.tolist(), unsure[missed].tolist(), strict=True)
    return tuple(Example("Miss", *row) for row in columns)


def _chosen(classes: Ints) -> Ints:
    """Which of the errors of these classes, the worst first, are shown: PER_KIND, in rounds of OF_CLASS of a class."""
    order = np.argsort(classes, kind="stable")
    first = np.flatnonzero(np.diff(classes[order], prepend=-1))
    place = np.empty(len(classes), np.int64)
    place[order] = np.arange(len(classes)) - np.repeat(first, np.diff(first, append=len(classes)))
    chosen: Ints = np.sort(np.argsort(place // OF_CLASS, kind="stable")[:PER_KIND])
    return chosen
