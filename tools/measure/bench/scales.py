"""How costs grow with what a user has more of: truths, images, classes, pixels, detections.  Ours alone.

Each task draws a problem of one size from a seed, and tells the seconds that our code takes for it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from measure.bench import probe

SIZES = {
    "truths": (10, 100, 1000, 5000),
    "images": (1000, 10_000, 118_000),
    "classes": (1, 20, 80, 365, 1203),
    "side": (320, 640, 1280, 2560, 4096),
    "detections": (100, 1000, 10_000, 30_000),
    "evaluated": (100, 1000, 5000),
}
WHAT = {
    "truths": "loss of one image of 640 px, by its truths",
    "images": "index of a COCO JSON, by its images (7 boxes each)",
    "classes": "training step of 4 images of 160 px, by the classes",
    "side": "`predict` of one image, by its side in px",
    "detections": "NMS of one image, by its candidates",
    "evaluated": "evaluation, by the images (7 truths, 30 detections each)",
}


def scale(what: str, size: int, repeats: int) -> dict[str, Any]:
    """Seconds of one measurement of a series."""
    return {"seconds": TASKS[what](size, repeats)}


def _truths(size: int, repeats: int) -> list[float]:
    import torch

    from gfldet.model import Model

    model = Model("gfldet-n").model.train()
    rng = np.random.default_rng(size)
    side = rng.uniform(0.01, 0.1, (size, 2))
    boxes = np.concatenate((rng.uniform(side / 2, 1 - side / 2), side), axis=1)
    classes = torch.from_numpy(rng.integers(0, model.nc, size))
    batch = _batch(torch.zeros(1, 3, 640, 640), classes, boxes)
    with torch.no_grad():
        maps = model.predict(batch["img"])
    model.loss(batch, maps)
    return probe.seconds(lambda: model.loss(batch, maps), repeats)


def _batch(images: Any, classes: Any, boxes: Any) -> dict[str, Any]:
    """A batch whose truths lie all in the first image."""
    import torch

    truths = {"cls": classes[:, None].float(), "bboxes": torch.from_numpy(boxes).float()}
    return {"img": images, "batch_idx": torch.zeros(len(classes)), **truths}


def _images(size: int, repeats: int) -> list[float]:
    from gfldet.data.spec import load_spec
    from gfldet.data.split import index_split

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = [{"id": n, "file_name": f"{n:06d}.jpg", "width": 640, "height": 480} for n in range(size)]
        owners, boxes = np.repeat(np.arange(size), 7), rng.uniform(10, 200, (7 * size, 4)).round(1).tolist()
        truths = [
            {"id": n, "image_id": int(image), "category_id": n % 80, "bbox": box, "iscrowd": 0}
            for n, (image, box) in enumerate(zip(owners, boxes, strict=True))
        ]
        categories = [{"id": n, "name": f"class {n}"} for n in range(80)]
        (root / "val.json").write_text(json.dumps({"images": images, "annotations": truths, "categories": categories}))
        (root / "images").mkdir()
        for image in images:
            (root / "images" / str(image["file_name"])).touch()
        (root / "data.yaml").write_text("train: val.json\nval: val.json\nimages: images\n")
        del images, truths
        return probe.seconds(lambda: index_split(load_spec(str(root / "data.yaml")), "val"), repeats)


def _classes(size: int, repeats: int) -> list[float]:
    import dataclasses

    import torch

    from gfldet.model import Model
    from gfldet.nn.tasks import DetectionModel

    model = DetectionModel(dataclasses.replace(Model("gfldet-n").description, nc=size)).train()
    rng = np.random.default_rng(0)
    boxes = np.concatenate((rng.uniform(0.3, 0.7, (20, 2)), rng.uniform(0.05, 0.5, (20, 2))), axis=1)
    batch = _batch(torch.rand(4, 3, 160, 160), torch.from_numpy(rng.integers(0, size, 20)), boxes)

    def step() -> None:
        model.loss(batch)[0].backward()

    step()
    return probe.seconds(step, repeats)


def _side(size: int, repeats: int) -> list[float]:
    from gfldet.model import Model

    model, image = Model("gfldet-n"), np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)

    def call() -> None:
        model.predict(image, imgsz=size, verbose=False)

    call()
    return probe.seconds(call, repeats)


def _detections(size: int, repeats: int) -> list[float]:
    from gfldet.ops.detections import Detections, survivors

    rng = np.random.default_rng(0)
    low, side = rng.uniform(0, 600, (size, 2)), rng.uniform(5, 80, (size, 2))
    boxes = np.concatenate((low, low + side), axis=1).astype(np.float32)
    found = Detections(boxes, np.sort(rng.random(size, np.float32))[::-1], rng.integers(0, 80, size))
    return probe.seconds(lambda: survivors(found, 0.7), repeats)


def _evaluated(size: int, repeats: int) -> list[float]:
    from gfldet.data.records import Record, Records, Split
    from gfldet.metrics.coco import evaluate
    from gfldet.metrics.table import DetectionTable

    rng = np.random.default_rng(0)
    low, side = rng.uniform(0, 500, (size, 7, 2)), rng.uniform(10, 120, (size, 7, 2))
    boxes, classes = np.concatenate((low, low + side), axis=2).astype(np.float32), rng.integers(0, 80, (size, 7))
    none = np.zeros((0, 4), np.float32)
    names = tuple(f"class {n}" for n in range(80))
    records = Records.of(
        Record(Path(f"{n}.jpg"), n, f"{n}.jpg", 640, 640, boxes[n], classes[n], none) for n in range(size)
    )
    pick = rng.integers(0, 7, (size, 30))
    rows = np.arange(size)[:, None]
    near = boxes[rows, pick] + rng.normal(0, 8, (size, 30, 4))
    xywh = np.concatenate((near[..., :2], np.maximum(near[..., 2:] - near[..., :2], 1)), axis=2).reshape(-1, 4)
    scores, found = rng.random(size * 30), classes[rows, pick].ravel()
    table = DetectionTable(np.repeat(np.arange(size), 30), found, xywh, scores)
    split = Split("val", records, names, tuple(range(80)))
    return probe.seconds(lambda: evaluate(split, table), repeats)


TASKS = {
    "truths": _truths,
    "images": _images,
    "classes": _classes,
    "side": _side,
    "detections": _detections,
    "evaluated": _evaluated,
}
