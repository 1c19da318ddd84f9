"""Validation: a detector and a labelled split -> detections in original pixels -> COCO metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gfldet.data.eval_set import EvalBatch, EvalSet
from gfldet.data.loader import in_order
from gfldet.detect.detector import Detector, Selection
from gfldet.metrics.coco import DetectionMetrics, evaluate
from gfldet.metrics.table import DetectionTable, joined, table_of


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Metrics, and the detections that they were computed from."""

    metrics: DetectionMetrics
    detections: DetectionTable


def validate(
    detector: Detector,
    data: EvalSet,
    selection: Selection,
    workers: int = 1,
    evaluator: str = "hotcoco",
    detailed: bool = True,
    progress: Callable[[Iterator[EvalBatch], int], Iterator[EvalBatch]] | None = None,
) -> Validation:
    """Run a detector over a split.

    The metrics are those of the detections returned, to the last bit: what is saved is what was measured.  `detailed`
    adds curves and the confusion matrix.  `progress` may wrap the batches (and their number) to show where it stands.
    """
    parts: list[DetectionTable] = []
    keys = data.keys()
    batches: Iterator[EvalBatch] = in_order(data.load, keys, workers)
    if progress is not None:
        batches = progress(batches, len(keys))
    for (_, numbers), batch in zip(keys, batches, strict=True):
        found = detector.select(detector.infer(batch.images), selection)
        parts += [
            table_of(number, one.in_image(box)) for number, box, one in zip(numbers, batch.boxes, found, strict=True)
        ]
    table = joined(parts)
    return Validation(evaluate(data.split, table, evaluator, detailed), table)
