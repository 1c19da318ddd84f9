"""What a validation leaves in its run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split
from gfldet.detect.validate import Validation
from gfldet.machine.shared import Pool
from gfldet.metrics.coco import evaluate
from gfldet.metrics.table import read_results
from gfldet.report.validation import draw_validation, truths_beside_detections, write_validation

NOTHING = np.zeros((0, 4), np.float32)


def labelled(count: int) -> tuple[Split, ImageStore]:
    """`count` black images of 200 x 100 px, each with a truth on the left."""
    box = np.array([[20, 20, 60, 80]], np.float32)
    records = tuple(Record(Path(f"{i}"), i, f"{i}.png", 200, 100, box, np.array([0]), NOTHING) for i in range(count))
    store = ImageStore((50, 100), Pool(0), lambda record: np.zeros((100, 200, 3), np.uint8))
    return Split("val", records, ("cat",), (91,)), store


def found(image_id: int, score: float = 0.9) -> dict[str, Any]:
    bbox = [120.0, 20.0, 40.0, 60.0]
    return {"image_id": image_id, "file_name": f"{image_id}.png", "category_id": 91, "bbox": bbox, "score": score}


def right(image_id: int) -> dict[str, Any]:
    return {**found(image_id), "bbox": [20.0, 20.0, 40.0, 60.0]}


@pytest.mark.parametrize(
    ("plots", "predictions"),
    [pytest.param(True, [], marks=pytest.mark.long), (True, [right(0), right(1), found(1, 0.1)]), (False, [found(0)])],
)
def test_files(tmp_path: Path, plots: bool, predictions: list[dict[str, Any]]) -> None:
    split, store = labelled(3)
    validation = Validation(evaluate(split, predictions), read_results(split, predictions))
    write_validation(tmp_path, validation, split)
    if plots:
        draw_validation(tmp_path, validation, split, store)
    names = {"confusion_matrix.png", "precision_recall.png", "thresholds.png", "val_truth_and_detections.jpg"}
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "predictions.json", *(names if plots else ())}
    assert json.loads((tmp_path / "predictions.json").read_text()) == predictions
    assert json.loads((tmp_path / "metrics.json").read_text()) == validation.metrics.to_dict()
    assert all(cv2.imread(str(tmp_path / name)) is not None for name in names if plots)


def coloured(picture: np.ndarray) -> np.ndarray:
    """Columns in which a box was drawn: neither black, white nor grey."""
    spread = picture.max(-1).astype(int) - picture.min(-1)
    return (spread > 60).any(0).nonzero()[0]


def test_truths_left_and_detections_right() -> None:
    split, store = labelled(1)
    picture = truths_beside_detections(split, store, read_results(split, [found(0)]), 0.5)
    width = picture.shape[1]
    columns = coloured(picture)
    left, detections = columns[columns < width // 2], columns[columns >= width // 2] - width // 2
    # Truths lie at .1 to .3 of the image's width, the detection at .6 to .8.
    assert left.min() == pytest.approx(0.1 * width / 2, abs=0.05 * width)
    assert detections.min() == pytest.approx(0.6 * width / 2, abs=0.05 * width)


def test_detections_below_the_threshold_are_not_drawn() -> None:
    split, store = labelled(1)
    for conf, shown in ((0.5, False), (0.2, True), (float("nan"), True), (0.31, False)):
        picture = truths_beside_detections(split, store, read_results(split, [found(0, 0.3)]), conf)
        assert (coloured(picture).max() > picture.shape[1] // 2) == shown


def test_images_are_spread_over_the_split() -> None:
    split, store = labelled(40)
    asked: list[str] = []
    spread = ImageStore((50, 100), Pool(0), lambda record: asked.append(record.file_name) or store.get(record))
    truths_beside_detections(split, spread, read_results(split, []), 0.5)
    assert asked == [f"{i}.png" for i in range(0, 40, 5)]
