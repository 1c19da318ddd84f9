"""A data set in any of gfldet's formats -> a temporary YOLO copy for the peer, made from what gfldet loads."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import yaml

from gfldet.data import shapes
from gfldet.data.records import Record, Split
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split


def export(data: str, folder: Path) -> Path:
    """Write images (links where possible) and labels of train and val below `folder`; returns the peer's data YAML.

    Image number N of a split is called N, with leading zeros, so that the peer's predictions name it.  Images that
    gfldet cannot read are left out on both sides; ignore regions are left out too: the peer knows none.
    """
    spec = load_spec(data)
    for name in ("train", "val"):
        images, labels = folder / "images" / name, folder / "labels" / name
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number, record in enumerate(load_split(spec, name, "skip").records):
            _copy_image(record, images / f"{number:06d}")
            (labels / f"{number:06d}.txt").write_text(label_rows(record), encoding="ascii")
    description = {
        "path": str(folder),
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(spec.names)),
    }
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return path


def label_rows(record: Record) -> str:
    """The truths of an image, a row `class cx cy w h` each, normalised."""
    size = np.array([record.width, record.height], np.float64)
    low, high = record.boxes[:, :2] / size, record.boxes[:, 2:] / size
    rows = np.concatenate(((low + high) / 2, high - low), axis=1)
    return "".join(
        f"{cls} {' '.join(f'{v:.8f}' for v in row)}\n" for cls, row in zip(record.classes, rows, strict=True)
    )


def _copy_image(record: Record, stem: Path) -> None:
    if shapes.is_virtual(record.path):
        cv2.imwrite(str(stem.with_suffix(".png")), cv2.cvtColor(shapes.read(record.path), cv2.COLOR_RGB2BGR))
        return
    target = stem.with_suffix(record.path.suffix.lower())
    try:
        target.symlink_to(record.path.resolve())
    except OSError:  # not every file system has links
        shutil.copyfile(record.path, target)


def images_in(data: str, name: str) -> Split:
    """A split as both sides see it."""
    return load_split(load_spec(data), name, "skip")
