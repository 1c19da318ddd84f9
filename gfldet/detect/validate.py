"""Validation: a detector and a labelled split -> detections in original pixels -> COCO metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gfldet.data.eval_set import EvalBatch, EvalSet
from gfldet.data.loader import in_order
from gfldet.detect.detector import Detections, Detector, Selection
from gfldet.metrics.coco import DetectionMetrics, evaluate
from gfldet.ops.letterbox import Letterbox


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Metrics, and the predictions they were computed from (COCO results with `file_name`)."""

    metrics: DetectionMetrics
    predictions: list[dict[str, Any]]


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

    The metrics are those of the predictions returned, to the last bit: what is saved is what was measured.  `detailed`
    adds curves and the confusion matrix.  `progress` may wrap the batches (and their number) to show where it stands.
    """
    predictions: list[dict[str, Any]] = []
    keys = data.keys()
    batches: Iterator[EvalBatch] = in_order(data.load, keys, workers)
    if progress is not None:
        batches = progress(batches, len(keys))
    for batch in batches:
        found = detector.select(detector.infer(batch.images), selection)
        for record, box, one in zip(batch.records, batch.boxes, found, strict=True):
            predictions += coco_results(one, box, record.image_id, record.file_name, data.split.category_ids)
    return Validation(evaluate(data.split, predictions, evaluator, detailed), predictions)


def coco_results(
    found: Detections, box: Letterbox, image_id: int | str, file_name: str, category_ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    """The detections of one image as COCO results: bbox xywh in original pixels, rounded to what a file should hold."""
    corners = box.inverse(found.boxes).astype("float64")
    corners[:, 2:] -= corners[:, :2]
    return [
        {"image_id": image_id, "file_name": file_name, "category_id": category_ids[c], "bbox": b, "score": s}
        for b, s, c in zip(
            corners.round(3).tolist(),
            found.scores.astype("float64").round(6).tolist(),
            found.classes.tolist(),
            strict=True,
        )
    ]
