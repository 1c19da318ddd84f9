"""Data sets with pictures that differ, and with faults that are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gfldet.data.findings import Reach
from gfldet.data.spec import load_spec
from gfldet.health.check import Health, check
from gfldet.health.survey import survey

SIDE = 64  # px of the images, and imgsz
ROW = "0 .5 .5 .3 .3\n"


def scene(seed: int, width: int = SIDE, height: int = SIDE) -> NDArray[np.uint8]:
    """(H, W, 3) soft patches of colour that no other seed has."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(20, 235, (6, 6, 3), np.uint8)
    picture = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + rng.integers(-6, 7, picture.shape), 0, 255).astype(np.uint8)


class Planter:
    """Writes a YOLO data set; `planted` has the stems of the files that each code is to be found for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = ["thing", "other"]
        self.planted: dict[str, set[str]] = defaultdict(set)
        self.seed = 0

    def image(
        self, stem: str, split: str = "train", picture: NDArray[np.uint8] | None = None, kind: str = "png"
    ) -> Path:
        self.seed += 1
        path = self.root / "images" / split / f"{stem}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), scene(self.seed) if picture is None else picture)
        return path

    def label(self, stem: str, rows: str = ROW, split: str = "train") -> None:
        path = self.root / "labels" / split / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rows, encoding="utf-8")

    def good(self, count: int, split: str) -> None:
        """Images with a box of each of the first two classes, of sizes that vary a little."""
        for number in range(count):
            size = 0.28 + 0.01 * (number % 5)
            self.image(f"good-{number}", split)
            self.label(f"good-{number}", f"0 .25 .3 {size} .3\n1 .7 .7 .3 {size}\n", split)

    def plant(self, code: str, stem: str, rows: str = ROW) -> None:
        """An image with these label rows, which are a fault of this code."""
        self.image(stem)
        self.label(stem, rows)
        self.planted[code].add(stem)

    def yaml(self, more: str = "") -> Path:
        path = self.root / "data.yaml"
        names = "".join(f"  - '{name}'\n" for name in self.names)
        path.write_text(f"train: images/train\nval: images/val\nnames:\n{names}{more}", encoding="utf-8")
        return path


@pytest.fixture
def planter(tmp_path: Path) -> Planter:
    return Planter(tmp_path / "set")


@pytest.fixture
def checked() -> Callable[..., Health]:
    """data, reach in px -> its health at SIDE px"""

    def run(data: Path, reach: float = 1e9, imgsz: int = SIDE) -> Health:
        reached = Reach((reach / 32 + 1) / 2, 32, 2)
        return check(survey(load_spec(data), (imgsz, imgsz), reached, lambda split: lambda done, total: None))

    return run


@pytest.fixture(name="scene")
def scene_of() -> Callable[..., NDArray[np.uint8]]:
    """seed, width, height -> a picture that no other seed has"""
    return scene
