"""Large pictures in tiles, from pixels to boxes: with a detector that finds exactly what lies in its frame."""

from __future__ import annotations

import io
import json
import weakref
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gfldet.data.eval_set import EvalSet
from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split
from gfldet.data.sources import Frame, iter_source
from gfldet.detect.detector import Selection
from gfldet.detect.look import Look
from gfldet.detect.predict import Predictor
from gfldet.detect.validate import validate
from gfldet.machine.shared import Pool
from gfldet.metrics.table import split_results
from gfldet.ops.detections import Detections
from gfldet.ops.tiles import Tiles

RED = (255, 0, 0)
KIND = {"category_id": 7, "iscrowd": 0}


@dataclass(frozen=True)
class RedFinder:
    """A `Detector` that finds every patch of red, as far as its frame shows it; the larger, the better its score.

    frames  the shape (B, H, W) of each batch that it was given
    """

    frame: tuple[int, int] | None = None
    frames: list[tuple[int, ...]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=lambda: {0: "red"})
    multiple: int = 32
    end2end: bool = False
    device: str = "cpu"
    pad_colour: int = 114

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.frames.append(images.shape[:3])
        return images

    def select(self, outputs: np.ndarray, selection: Selection, classes: Any = None) -> list[Detections]:
        return [self._patches(image) for image in outputs]

    def _patches(self, image: np.ndarray) -> Detections:
        red = ((image[..., 0] > 180) & (image[..., 1] < 90)).astype(np.uint8)
        stats = cv2.connectedComponentsWithStats(red)[2][1:]
        boxes = np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], axis=1).astype(np.float32)
        scores = (0.5 + 0.4 * stats[:, 4] / image.shape[0] / image.shape[1]).astype(np.float32)
        found = Detections(boxes, scores, np.zeros(len(boxes), np.int64))
        return found.take(np.argsort(-scores, kind="stable"))


def picture(boxes: list[list[int]], width: int, height: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(70, 120, (height, width, 1), np.uint8)
    image = np.repeat(noise, 3, axis=2)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] = RED
    return image


# 500 x 400 px in tiles of 128 with 32 in common: borders at 96, 128, 192, 224, ... and, inward, at 272 and 372
SEAMS = [
    [x, y, x + 12, y + 12] for x in (0, 90, 122, 186, 218, 282, 314, 366, 488) for y in (0, 90, 122, 186, 266, 388)
]
LARGE = [[30, 215, 170, 250]]


def frame(name: str, boxes: list[list[int]], width: int = 500, height: int = 400) -> Frame:
    return Frame(picture(boxes, width, height), name, name, name)


def predictor(detector: RedFinder, size: int = 128, **options: Any) -> Predictor:
    values: dict[str, Any] = {"tiles": Tiles(128, 0.25), **options}
    return Predictor(detector, (size, size), Selection(conf=0.25), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("batch", [1, 7])
def test_every_object_on_every_seam_is_found_once(whole: bool, batch: int) -> None:
    detector = RedFinder()
    (found,) = predictor(detector, tiles=Tiles(128, 0.25, whole))([frame("a", SEAMS + LARGE)], batch)
    boxes = found.results.boxes.xyxy.tolist()
    assert sorted(box for box in boxes if box[2] - box[0] < 100) == sorted(SEAMS)
    assert [box for box in boxes if box[2] - box[0] > 100] == [pytest.approx(LARGE[0], abs=3 if whole else 0)]
    assert len(boxes) == len(SEAMS) + 1
    *tiles, last = detector.frames
    tiles += [] if whole else [last]
    assert {shape[1:] for shape in tiles} == {(128, 128)}
    assert sum(shape[0] for shape in tiles) == 5 * 4
    assert max(shape[0] for shape in tiles) == batch
    assert not whole or last == (1, 128, 128)  # 500 x 400 is 128 x 102 there


def test_tiles_pass_at_the_size_of_images() -> None:
    """With an imgsz of twice the tile, at twice the size; an exported file of one size takes its own."""
    detector = RedFinder()
    (found,) = predictor(detector, size=256)([frame("a", SEAMS)], 4)
    assert {shape[1:] for shape in detector.frames} == {(256, 256), (224, 256)}
    assert found.results.boxes.xyxy.shape == (len(SEAMS), 4)
    fixed = RedFinder(frame=(128, 128))
    (found,) = predictor(fixed)([frame("a", SEAMS, 500, 100)], 4)
    assert {shape[1:] for shape in fixed.frames} == {(128, 128)}


def test_large_and_small_frames_come_in_order() -> None:
    detector = RedFinder()
    frames = [
        frame("a", SEAMS[:1], 64, 48),
        frame("b", SEAMS[:1], 64, 48),
        frame("c", SEAMS),
        frame("d", SEAMS[:1], 64, 48),
    ]
    found = list(predictor(detector)(frames, 16))
    assert [one.frame.name for one in found] == list("abcd")
    assert [len(one.results) for one in found] == [1, 1, len(SEAMS), 1]
    assert detector.frames[0] == (2, 96, 128)
    for one, shown in zip(found, frames, strict=True):
        assert (one.results.orig_img[..., ::-1] == shown.image).all()
        assert (one.frame.image == shown.image).all()
        assert set(one.results.speed) == {"preprocess", "inference", "postprocess"}


def test_one_large_picture_at_a_time(tmp_path: Path) -> None:
    """When the next picture is read, nothing holds the pixels of the one before."""
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture(SEAMS, 500, 400))
    alive: list[weakref.ref[np.ndarray]] = []

    def watched() -> Iterator[Frame]:
        frames = iter_source(str(tmp_path))
        while True:
            assert all(one() is None for one in alive)
            shown = next(frames, None)
            if shown is None:
                return
            alive.append(weakref.ref(shown.image))
            handed = [shown]
            del shown
            yield handed.pop()

    for tiles in (Tiles(128), None):
        for found in predictor(RedFinder(), tiles=tiles)(watched(), 1):
            assert tiles is None or alive[-1]() is None  # the picture is in the result, once
            alive.append(weakref.ref(found.results.orig_img))
            del found
    assert len(alive) == 12


# ------------------------------------------------------------------------------------------------ validation


@pytest.fixture
def labelled() -> EvalSet:
    """A picture to cut, one that is not cut, and another to cut, with more truths than the pictures show."""
    images, records = {}, []
    for number, (boxes, width, height) in enumerate(
        [(SEAMS + LARGE, 500, 400), (SEAMS[:1], 64, 48), (SEAMS[::3], 500, 400)]
    ):
        images[str(number)] = picture(boxes, width, height, number)
        truths = np.array([*boxes, [20, 20, 34, 37]], np.float32)
        classes = np.zeros(len(truths), np.int64)
        records.append(Record(Path(str(number)), number, f"{number}.png", width, height, truths, classes, truths[:0]))
    split = Split("val", tuple(records), ("red",), (7,))
    store = ImageStore(None, Pool(0), lambda one: images[str(one.path)])
    return EvalSet(split, store, (128, 128), 4, 32, tiles=Tiles(128, 0.25))


def test_validation_finds_what_prediction_finds(labelled: EvalSet) -> None:
    found = validate(RedFinder(), labelled, Selection()).detections
    for number, record in enumerate(labelled.split.records):
        shown = Frame(labelled.store.get(record), "a", "a", "a")
        (predicted,) = predictor(RedFinder())([shown], 4)
        mine = found.take(found.image == number)
        np.testing.assert_allclose(mine.corners(), predicted.detections.boxes, atol=1e-3)
    many = validate(RedFinder(), labelled, Selection(), workers=3).detections
    assert many.boxes.tolist() == found.boxes.tolist()


def test_ap_is_that_of_cocoeval_on_the_saved_predictions(labelled: EvalSet, tmp_path: Path) -> None:
    """By pycocotools itself, from files, with truths written anew."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = validate(RedFinder(), labelled, Selection())
    rows = list(split_results(found.detections, labelled.split))
    (tmp_path / "predictions.json").write_text(json.dumps(rows))
    truths = [(record.image_id, *box) for record in labelled.split.records for box in record.boxes.tolist()]
    annotations = [
        {"id": n, "image_id": i, **KIND, "bbox": [x, y, r - x, b - y], "area": (r - x) * (b - y)}
        for n, (i, x, y, r, b) in enumerate(truths, 1)
    ]
    images = [{"id": r.image_id, "width": r.width, "height": r.height} for r in labelled.split.records]
    categories = [{"id": 7, "name": "red"}]
    (tmp_path / "truths.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truths.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "predictions.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0.9 < found.metrics.map50 < 1
    assert found.metrics.map == pytest.approx(evaluation.stats[0], abs=1e-9)
    assert found.metrics.map50 == pytest.approx(evaluation.stats[1], abs=1e-9)


def test_what_the_tiles_find_of_small_objects_and_the_whole_picture_does_not(labelled: EvalSet) -> None:
    """12 px of 500 are 3 px in a frame of 128: found, but loosely."""
    tiled = validate(RedFinder(), labelled, Selection()).metrics
    plain = validate(RedFinder(), replace(labelled, tiles=None), Selection()).metrics
    assert tiled.map > plain.map + 0.3


def test_time_adds_up() -> None:
    look = Look(RedFinder(), (128, 128), Selection())  # type: ignore[arg-type]
    look.at_tiles(picture(SEAMS, 500, 400), Tiles(128), 4)
    first = look.milliseconds(1)
    assert min(first.values()) > 0
    look.at_tiles(picture(SEAMS, 500, 400), Tiles(128), 4)
    assert all(look.milliseconds(1)[step] > first[step] for step in first)
    assert look.milliseconds(2) == {step: value / 2 for step, value in look.milliseconds(1).items()}
