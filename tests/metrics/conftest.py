"""Small splits and detections for the tests of the metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfldet.data.records import Record, Split

Truth = tuple[int, tuple[float, float, float, float]]  # class, xyxy


def _split(
    images: Sequence[Sequence[Truth]],
    names: Sequence[str] = ("a", "b"),
    ignore: dict[int, list[tuple[float, float, float, float]]] | None = None,
    image_ids: Sequence[int | str] | None = None,
    category_ids: Sequence[int] | None = None,
    ignore_classes: dict[int, list[int]] | None = None,
) -> Split:
    records = []
    for i, truths in enumerate(images):
        records.append(
            Record(
                path=Path(f"{i}.jpg"),
                image_id=i if image_ids is None else image_ids[i],
                file_name=f"{i}.jpg",
                width=640,
                height=480,
                boxes=np.array([box for _, box in truths], np.float32).reshape(-1, 4),
                classes=np.array([c for c, _ in truths], np.int64),
                ignore=np.array((ignore or {}).get(i, []), np.float32).reshape(-1, 4),
                ignore_classes=None if ignore_classes is None else np.array(ignore_classes.get(i, []), np.int64),
            )
        )
    return Split("val", tuple(records), tuple(names), tuple(category_ids or range(len(names))))


def _found(image_id: int | str, category_id: int, xyxy: Sequence[float], score: float) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(v) for v in xyxy)
    return {"image_id": image_id, "category_id": category_id, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}


def _realistic(seed: int) -> tuple[Split, list[dict[str, Any]]]:
    """24 images with jittered hits, doubles, wrong classes and noise; crowd regions, images without truths or without
    detections, a class without truths, one without detections, equal scores, sizes from 8 to 300 px."""
    rng = np.random.default_rng(seed)
    names = [f"class {c}" for c in range(6)]  # nothing is of class 4, nothing is called class 3
    category_ids = [7, 0, 91, 12, 3, 44]
    images: list[list[Truth]] = []
    for i in range(24):
        size = np.exp(rng.uniform(np.log(8), np.log(300), (0 if i % 8 == 3 else rng.integers(1, 14), 2)))
        corner = rng.uniform(0, 1, size.shape) * np.maximum([640, 480] - size, 0)
        boxes = np.concatenate([corner, np.minimum(corner + size, [640, 480])], axis=1)
        images.append(
            [(int(c), tuple(box)) for c, box in zip(rng.choice([0, 1, 2, 3, 5], len(boxes)), boxes, strict=True)]
        )
    image_ids = rng.permutation(1000)[:24].tolist()
    split = _split(
        images, names, {5: [(50, 50, 400, 300)], 9: [(0, 0, 300, 480), (200, 0, 640, 200)]}, image_ids, category_ids
    )
    detections = []
    for record in split.records[:-1]:
        for box, c in zip(record.boxes, record.classes, strict=True):
            for _ in range(rng.integers(0, 5)):
                label = c if rng.random() < 0.8 else rng.integers(0, 6)
                jitter = rng.normal(0, 0.08, 4) * np.tile(box[2:] - box[:2], 2)
                x1, y1, x2, y2 = box + jitter
                if x2 > x1 and y2 > y1 and label != 3:
                    score = float(np.round(rng.beta(4, 3), 2))  # rounded: many are equal
                    detections.append(_found(record.image_id, category_ids[label], (x1, y1, x2, y2), score))
        for _ in range(130 if record.image_id == image_ids[0] else 10):  # one image above the cap of 100
            x, y, w, h = rng.uniform(0, 400), rng.uniform(0, 300), rng.uniform(4, 200), rng.uniform(4, 150)
            label = 0 if record.image_id == image_ids[0] else rng.choice([0, 1, 2, 4, 5])
            score = float(np.round(rng.beta(2, 5), 2))
            detections.append(_found(record.image_id, category_ids[label], (x, y, x + w, y + h), score))
    rng.shuffle(detections)
    return split, detections


@pytest.fixture
def make_split() -> Callable[..., Split]:
    """images (a list of truths (class, xyxy) each) -> Split"""
    return _split


@pytest.fixture
def found() -> Callable[..., dict[str, Any]]:
    """image id, category id, xyxy, score -> a COCO result dict"""
    return _found


@pytest.fixture
def realistic() -> Callable[[int], tuple[Split, list[dict[str, Any]]]]:
    """seed -> a split and its detections, with everything odd that real ones have"""
    return _realistic
