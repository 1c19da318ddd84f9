"""What a validation leaves in its run folder: metrics.json, predictions.json, curves and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split
from gfldet.detect.validate import Validation
from gfldet.metrics.coco import DetectionMetrics
from gfldet.store.runs import write_json
from gfldet.viz.pictures import Tile, save_picture, truth_and_detections
from gfldet.viz.plots import plot_confidence, plot_confusion, plot_precision_recall

SHOWN_IMAGES = 8
SHOWN_SCORE = 0.25  # detections drawn where no threshold of best F1 is known


def write_validation(folder: Path, found: Validation, split: Split, store: ImageStore, plots: bool) -> None:
    """Write everything that a validation of `split` gave into `folder`; pictures only if `plots`."""
    write_json(folder / "metrics.json", found.metrics.to_dict())
    write_json(folder / "predictions.json", found.predictions)
    if plots:
        plot_metrics(folder, found.metrics, split.names)
        picture = truths_beside_detections(split, store, found.predictions, found.metrics.best_conf)
        save_picture(folder / "val_truth_and_detections.jpg", picture)


def plot_metrics(folder: Path, metrics: DetectionMetrics, names: Sequence[str]) -> None:
    """Precision against recall, the three curves against the score threshold, and the confusion matrix."""
    curves = [curve if curve.truths else None for curve in metrics.curves]
    recall = [None if c is None else c.recall for c in curves]
    precision = [None if c is None else c.precision for c in curves]
    f1 = [None if c is None else c.f1 for c in curves]
    plot_precision_recall(
        folder / "precision_recall.png", recall, precision, names, [c.ap50 for c in metrics.per_class]
    )
    plot_confidence(
        folder / "thresholds.png",
        [None if c is None else c.scores for c in curves],
        {"precision": precision, "recall": recall, "F1": f1},
        names,
        metrics.best_conf,
    )
    if metrics.confusion is not None:
        plot_confusion(folder / "confusion_matrix.png", metrics.confusion, names)


def truths_beside_detections(
    split: Split, store: ImageStore, predictions: Sequence[Mapping[str, Any]], conf: float
) -> np.ndarray:
    """A picture of a few images spread over the split: truths left, detections above `conf` right."""
    step = max(1, len(split.records) // SHOWN_IMAGES)
    records = split.records[::step][:SHOWN_IMAGES]
    threshold = SHOWN_SCORE if np.isnan(conf) else conf
    wanted: dict[int | str, list[Mapping[str, Any]]] = {record.image_id: [] for record in records}
    for prediction in predictions:
        if prediction["score"] >= threshold and prediction["image_id"] in wanted:
            wanted[prediction["image_id"]].append(prediction)
    truths, found = [], []
    for record in records:
        sample = store.sample(record)
        truths.append(Tile(sample.image, sample.boxes, sample.classes, caption=record.file_name))
        found.append(_found(record, sample.image, wanted[record.image_id], split, threshold))
    return truth_and_detections(truths, found, split.names)


def _found(
    record: Record, image: np.ndarray, predictions: Sequence[Mapping[str, Any]], split: Split, threshold: float
) -> Tile:
    """The detections of one image, scaled to the size at which the store keeps it."""
    scale = np.array([image.shape[1] / record.width, image.shape[0] / record.height] * 2)
    boxes = np.array([p["bbox"] for p in predictions], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    position = {category: i for i, category in enumerate(split.category_ids)}
    classes = np.array([position[p["category_id"]] for p in predictions], dtype=np.int64)
    scores = np.array([p["score"] for p in predictions], dtype=np.float64)
    return Tile(image, boxes * scale, classes, scores, caption=f"found, score {threshold:.2f} and up")
