"""Validation: what is measured is what is returned, in original pixels and with the user's own ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfldet.config.load import resolve
from gfldet.data.eval_set import EvalSet
from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split
from gfldet.detect.detector import Selection
from gfldet.detect.torch_detector import TorchDetector, for_inference
from gfldet.detect.validate import validate
from gfldet.machine.shared import Pool
from gfldet.metrics.coco import evaluate
from gfldet.metrics.table import coco_results, split_results, table_of
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.ops import letterbox
from gfldet.ops.detections import Detections
from gfldet.ops.images import image_tensor

SIZES = [(128, 128), (160, 80), (90, 150), (128, 128), (50, 40)]  # width, height


@pytest.fixture
def labelled(draw: Callable[..., np.ndarray]) -> EvalSet:
    """Images of several shapes with a red rectangle each and a blue one in every other; ids as COCO may have them."""
    records, images = [], {}
    for i, (width, height) in enumerate(SIZES):
        truths = [(0, 8, 8, width // 2, height // 2)]
        if i % 2 == 0:
            truths.append((1, width // 2 + 4, height // 2 + 4, width - 4, height - 2))
        boxes = np.array([t[1:] for t in truths], np.float32)
        classes = np.array([t[0] for t in truths])
        image_id = 1000 - 7 * i if i else "first"
        records.append(Record(Path(f"{i}"), image_id, f"{i}.png", width, height, boxes, classes, boxes[:0]))
        images[f"{i}"] = draw(truths, width, height, i)
    split = Split("val", tuple(records), ("red", "blue"), (91, 0))
    return EvalSet(split, ImageStore((128, 128), Pool(0), lambda r: images[str(r.path)]), (128, 128), 3, 32)


@pytest.mark.parametrize("rect", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_known_boxes_come_back_in_original_pixels(
    labelled: EvalSet, colour_finder: DetectionModel, rect: bool, batch: int
) -> None:
    data = replace(labelled, rect=rect, batch=batch)
    found = validate(TorchDetector(colour_finder), data, Selection())
    rows = list(split_results(found.detections, data.split))
    assert len(rows) == len(found.detections) == 8
    truths = {
        (record.image_id, data.split.category_ids[c]): (record.file_name, box)
        for record in data.split.records
        for c, box in zip(record.classes, record.boxes, strict=True)
    }
    for prediction in rows:
        file_name, (x1, y1, x2, y2) = truths.pop((prediction["image_id"], prediction["category_id"]))
        assert prediction["file_name"] == file_name
        assert prediction["score"] == {91: 0.9, 0: 0.8}[prediction["category_id"]]
        assert prediction["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1.3)
    assert not truths
    assert found.metrics.map50 == 1
    assert found.metrics.to_dict() == evaluate(data.split, rows).to_dict()


def test_evaluators_and_detail(labelled: EvalSet, colour_finder: DetectionModel) -> None:
    plain = validate(TorchDetector(colour_finder), labelled, Selection(), detailed=False)
    assert plain.metrics.confusion is None
    detailed = validate(TorchDetector(colour_finder), labelled, Selection(), evaluator="pycocotools")
    assert detailed.metrics.confusion is not None
    assert detailed.metrics.map == pytest.approx(plain.metrics.map, abs=1e-12)


def test_workers_change_nothing(labelled: EvalSet, colour_finder: DetectionModel) -> None:
    results = [
        list(split_results(validate(TorchDetector(colour_finder), labelled, Selection(), n).detections, labelled.split))
        for n in (0, 1, 3)
    ]
    assert results[0] == results[1] == results[2]


def test_progress_sees_every_batch(labelled: EvalSet, colour_finder: DetectionModel) -> None:
    seen = []

    def progress(batches: Iterator[Any], count: int) -> Iterator[Any]:
        seen.append(count)
        for batch in batches:
            seen.append(len(batch.records))
            yield batch

    validate(TorchDetector(colour_finder), labelled, Selection(), progress=progress)
    assert seen[0] == len(seen) - 1 == len(labelled.keys())
    assert sum(seen[1:]) == 5


def test_nothing_found_is_measured_too(labelled: EvalSet, colour_finder: DetectionModel) -> None:
    found = validate(TorchDetector(colour_finder), labelled, Selection(conf=0.95))
    assert len(found.detections) == 0
    assert found.metrics.map == 0


def test_the_model_given_is_not_changed(tiny: Description) -> None:
    model = DetectionModel(tiny).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = for_inference(model, torch.device("cpu"))
    assert model.training
    assert not fused.model.training
    assert model.state_dict().keys() == before.keys() != fused.model.state_dict().keys()
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), np.uint8)
    with torch.no_grad():
        whole = model.eval()(image_tensor(torch.from_numpy(images), torch.device("cpu")))[0]
    torch.testing.assert_close(fused.infer(images).decoded().stacked(), whole, rtol=1e-4, atol=1e-4)


def test_input_by_hand() -> None:
    images = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    images[1, 2, 5, 0] = 51
    x = image_tensor(images, torch.device("cpu"))
    assert x.shape == (2, 3, 4, 6)
    assert x[1, 0, 2, 5] == pytest.approx(0.2)
    assert float(x.sum()) == pytest.approx(0.2)


def test_coco_results_by_hand() -> None:
    box = letterbox.fit(50, 100, (64, 64))  # .64 times, 16 px from the top
    detections = Detections(
        np.array([[6.4, 22.4, 32.0, 28.8], [-9.0, 0.0, 640.0, 64.0]], np.float32),
        np.array([0.87654321, 0.5], np.float32),
        np.array([1, 0]),
    )
    images = [(0, "other.png"), ("a", "b/a.png")]
    assert list(coco_results(table_of(1, detections.in_image(box)), images, (7, 91))) == [
        {"image_id": "a", "file_name": "b/a.png", "category_id": 91, "bbox": [10, 10, 40, 10], "score": 0.876543},
        {"image_id": "a", "file_name": "b/a.png", "category_id": 7, "bbox": [0, 0, 100, 50], "score": 0.5},
    ]
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert len(table_of(0, nothing.in_image(box))) == 0


def test_nms_of_settings() -> None:
    assert Selection(**resolve("val", {}).selection()) == Selection(0.001, 0.7, 300, False)
    assert Selection(**resolve("predict", {"source": "x"}).selection(0.25)).conf == 0.25
    given = {"conf": 0.0, "iou": 0.5, "max_det": 7, "agnostic_nms": True}
    assert Selection(**resolve("train", given).selection(0.25)) == Selection(0.0, 0.5, 7, True)
