"""What is trained: a tiny model on a few of the built-in shapes, written as files; and the settings of each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from gfldet.data import shapes
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint
from measure.yolo import Picture, write

SIZE = 64  # px
IMAGES = {"train": 17, "val": 9}  # batches of 6, 6 and 5; two processes share the last one unequally
EPOCHS = 6
RUN = Path("runs/run")
MODEL = """\
nc: 4
reg_max: 8
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, Conv, [16, 3, 4]]
head:
  - [[3, 4], 1, GFLHead, [nc]]
"""
WORDS = (
    *("train", "data=../set/data.yaml", "model=../set/tiny.yaml", f"imgsz={SIZE}", "batch=6", f"epochs={EPOCHS}"),
    *("close_mosaic=2", "save_period=2", "threads=1", "plots=false", "name=run", "project=runs", "exist_ok=true"),
)
ROWS: dict[str, tuple[str, ...]] = {
    "muon": (),
    "adamw": ("optimizer=adamw",),
    "sgd": ("optimizer=sgd", "lr0=0.01"),
    "bfloat16": ("amp=on",),
    "end2end": ("end2end=true",),
    "class-weights": ("class_weights=auto",),
    "repeat-share": ("repeat_share=0.9",),
    "workers-2": ("workers=2",),
    "workers-4": ("workers=4",),
    "cache-none": ("cache=none",),
    "sync-bn": ("sync_bn=true",),
    "fine-tune": ("pretrained=../set/start.pt",),
    "patience": ("patience=2", "lr0=1e-9"),
    "all": (
        *("optimizer=adamw", "amp=on", "end2end=true", "class_weights=auto", "repeat_share=0.9", "workers=2"),
        *("cache=none", "sync_bn=true", "dgqp=true", "cls_loss=vfl", "mixup=0.3", "degrees=10"),
    ),
}


def pictures(split: str) -> Iterator[Picture]:
    """Of the built-in shapes, made smaller, with the first two truths of each image."""
    for item in shapes.index("shapes", split).items[: IMAGES[split]]:
        picture, labels = shapes.read(item.path), item.labels()
        small = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        boxes = np.asarray(labels.boxes, float)[:2] * SIZE / picture.shape[0]
        yield Picture(np.asarray(small, np.uint8), labels.classes[: len(boxes)], boxes)


def make(folder: Path) -> None:
    """Write the data set, the model's YAML, and weights to start from."""
    names = shapes.VARIANTS["shapes"].names
    write(folder, names, **{split: pictures(split) for split in IMAGES})
    model_yaml = folder / "tiny.yaml"
    model_yaml.write_text(MODEL, encoding="utf-8")
    description = read_description(model_yaml)
    torch.manual_seed(1)
    weights = DetectionModel(description, names).state_dict()
    checkpoints.save(folder / "start.pt", Checkpoint(description, names, tuple(range(len(names))), weights))
