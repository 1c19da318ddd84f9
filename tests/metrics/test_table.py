"""The table of a split's detections: what is saved is what is measured, in a few bytes each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gfldet.metrics.table import DetectionTable, joined, read_results, split_results, table_of
from gfldet.ops.detections import Detections
from gfldet.store.runs import write_rows


def some(count: int, seed: int) -> Detections:
    rng = np.random.default_rng(seed)
    corner = rng.random((count, 2)) * 100
    boxes = np.concatenate((corner, corner + rng.random((count, 2)) * 50), axis=1).astype(np.float32)
    return Detections(boxes, rng.random(count).astype(np.float32), rng.integers(0, 2, count))


def test_rows_are_rounded_before_they_are_measured() -> None:
    found = Detections(np.array([[1, 2, 4.00049, 8]], np.float32), np.array([0.12345678], np.float32), np.array([1]))
    table = table_of(7, found)
    assert table.boxes.tolist() == [[1, 2, 3, 6]]
    assert table.scores.tolist() == [0.123457]
    assert table.image.tolist() == [7]
    assert table.corners().tolist() == [[1, 2, 4, 8]]


def test_there_and_back(make_split, tmp_path: Path) -> None:
    split = make_split([[], [], []], image_ids=["b", 4, "c"], category_ids=[91, 7])
    table = joined([table_of(image, some(5, image)) for image in (2, 0)])
    rows = list(split_results(table, split))
    assert [row["image_id"] for row in rows] == ["c"] * 5 + ["b"] * 5
    again = read_results(split, rows)
    for name in ("image", "classes", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    write_rows(tmp_path / "predictions.json", rows)
    assert (tmp_path / "predictions.json").read_text() == json.dumps(rows)
    write_rows(tmp_path / "none.json", [])
    assert (tmp_path / "none.json").read_text() == "[]"


def test_a_detection_takes_a_few_bytes() -> None:
    table = joined([table_of(image, some(300, image)) for image in range(20)])
    size = sum(column.nbytes for column in (table.image, table.classes, table.boxes, table.scores))
    assert size / len(table) <= 64
    assert isinstance(table.take(slice(0, 3)), DetectionTable)
