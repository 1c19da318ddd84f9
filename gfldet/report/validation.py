"""Writes the results of a validation into its run folder: metrics.json, predictions.json, curves and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split, spread
from gfldet.detect.validate import Validation
from gfldet.errors import DataError
from gfldet.messages import warn
from gfldet.metrics.coco import DetectionMetrics, working_conf
from gfldet.metrics.table import DetectionTable, split_results
from gfldet.store.runs import write_json, write_rows
from gfldet.viz.fonts import fonts_for
from gfldet.viz.pictures import Tile, save_picture, truth_and_detections
from gfldet.viz.plots import plot_confidence, plot_confusion, plot_precision_recall

SHOWN_IMAGES = 8


def write_validation(folder: Path, found: Validation, split: Split) -> None:
    """Writes the numbers of a validation of `split` into `folder`: its metrics and its detections."""
    write_json(folder / "metrics.json", found.metrics.to_dict())
    write_rows(folder / "predictions.json", split_results(found.detections, split))


def draw_validation(folder: Path, found: Validation, split: Split, store: ImageStore) -> None:
    """Draws its curves, and truths beside detections on a few of its images."""
    for curve in curves_of(folder, found.metrics, split.names):
        curve()
    draw_examples(folder, found, split, store)


def draw_examples(folder: Path, found: Validation, split: Split, store: ImageStore) -> None:
    """Draws truths beside detections on a few of its images."""
    try:
        picture = truths_beside_detections(split, store, found.detections, found.metrics.best_conf)
    except DataError as error:  # an image is gone by now; the numbers are written
        warn(f"val_truth_and_detections.jpg is not drawn: {error}")
        return
    save_picture(folder / "val_truth_and_detections.jpg", picture)


def curves_of(folder: Path, metrics: DetectionMetrics, names: Sequence[str]) -> list[Callable[[], None]]:
    """What plots precision against recall, three curves against the score threshold, and the confusion matrix; each
    call can be pickled."""
    missing = fonts_for(names).missing
    if missing:
        warn(
            f"no font of this system has the letters {missing[:40]!r} of the class names: the plots show boxes in "
            "their place; install one that has them, such as Noto Sans CJK for Chinese, Japanese and Korean"
        )
    curves = [curve if curve.truths else None for curve in metrics.curves]
    recall = [None if c is None else c.recall for c in curves]
    precision = [None if c is None else c.precision for c in curves]
    f1 = [None if c is None else c.f1 for c in curves]
    ap50 = [c.ap50 for c in metrics.per_class]
    scores = [None if c is None else c.scores for c in curves]
    by_score = {"precision": precision, "recall": recall, "F1": f1}
    drawn: list[Callable[[], None]] = [
        partial(plot_precision_recall, folder / "precision_recall.png", recall, precision, names, ap50),
        partial(plot_confidence, folder / "thresholds.png", scores, by_score, names, metrics.best_conf),
    ]
    if metrics.confusion is not None:
        drawn.append(partial(plot_confusion, folder / "confusion_matrix.png", metrics.confusion, names))
    return drawn


def truths_beside_detections(split: Split, store: ImageStore, detections: DetectionTable, conf: float) -> np.ndarray:
    """A picture of a few images spread over the split: truths on the left, detections on the right.

    Only detections with score >= `conf` are shown; `working_conf` replaces a `conf` that is NaN.
    """
    threshold = working_conf(conf)
    sure = detections.take(detections.scores >= threshold)
    truths, found = [], []
    for number in spread(range(len(split.records)), SHOWN_IMAGES):
        record = split.records[number]
        sample = store.sample(record)
        truths.append(Tile(sample.image, sample.boxes, sample.classes, caption=record.file_name))
        found.append(_detections_tile(record, sample.image, sure.take(sure.image == number), threshold))
    return truth_and_detections(truths, found, split.names)


def _detections_tile(record: Record, image: np.ndarray, detections: DetectionTable, threshold: float) -> Tile:
    """The detections of one image, scaled to the size of the image in the store."""
    scale = np.array([image.shape[1] / record.width, image.shape[0] / record.height] * 2)
    caption = f"found, score {threshold:.2f} and up"
    return Tile(image, detections.corners() * scale, detections.classes, detections.scores, caption=caption)
