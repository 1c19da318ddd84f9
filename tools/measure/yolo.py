"""A data set to measure with, written as YOLO files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image (H, W, 3) uint8 RGB; the classes (M,) and boxes (M, 4), xyxy px, of what it shows."""

    image: NDArray[np.uint8]
    classes: Sequence[int]
    boxes: NDArray[np.float64]


def write(folder: Path, names: Sequence[str], **splits: Iterable[Picture]) -> Path:
    """Write the splits below `folder`; the data YAML.  Without a split `train` that of `val` stands for it."""
    for split, pictures in splits.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            cv2.imwrite(str(folder / "images" / split / f"{number:03d}.png"), picture.image[..., ::-1])
            (folder / "labels" / split / f"{number:03d}.txt").write_text(_rows(picture), encoding="utf-8")
    yaml = folder / "data.yaml"
    train = "train" if "train" in splits else "val"
    yaml.write_text(f"train: images/{train}\nval: images/val\nnames: [{', '.join(names)}]\n", encoding="utf-8")
    return yaml


def _rows(picture: Picture) -> str:
    height, width = picture.image.shape[:2]
    low, high = picture.boxes[:, :2], picture.boxes[:, 2:]
    shares = np.concatenate([(low + high) / 2, high - low], axis=1) / np.array([width, height] * 2)
    return "".join(f"{c} {' '.join(map(str, row))}\n" for c, row in zip(picture.classes, shares.tolist(), strict=True))
