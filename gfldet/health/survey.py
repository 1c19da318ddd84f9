"""A data set as it is looked at: every split read with its problems, each image's pixels in a few numbers.

Letters: N truths of the survey, in the order of its pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.data.findings import Reach
from gfldet.data.gather import GivenBoxes
from gfldet.data.records import Record, Split
from gfldet.data.spec import DataSpec
from gfldet.data.split import Progress, Reading, read_split

SPLITS = ("train", "val", "test")
THUMB = 32  # px; the side of the grey picture that stands for an image
_SAMPLES = 64  # rows and columns of an image that its contrast is measured on

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """What is kept of an image: a digest of its pixels and size, the picture (THUMB, THUMB) float32 grey of it, and the
    standard deviation of its samples."""

    digest: bytes
    thumb: NDArray[np.float32]
    contrast: float


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One image of a split, with what its label file gives."""

    split: str
    record: Record
    given: GivenBoxes
    pixels: Pixels


@dataclass(frozen=True, eq=False)
class Truths:
    """The truths of all pictures as columns.

    picture (N,) position in `Survey.pictures`;  row (N,) position in the given boxes of its picture
    classes (N,);  boxes (N, 4) xyxy px of the image, clipped;  sides (N, 2) width and height, px at the chosen imgsz
    """

    picture: Ints
    row: Ints
    classes: Ints
    boxes: Floats
    sides: Floats


@dataclass(frozen=True, eq=False)
class Survey:
    """All that is known of a data set.

    frame     (height, width) px of training
    reach     how large a box the bins of the model can express
    readings  of each split, in the order of SPLITS
    pictures  the images that can be read, in the order of the splits
    """

    spec: DataSpec
    frame: tuple[int, int]
    reach: Reach
    readings: tuple[Reading, ...]
    pictures: tuple[Picture, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.spec.names

    @cached_property
    def truths(self) -> Truths:
        rows = [np.flatnonzero(picture.given.truth) for picture in self.pictures]
        counts = [len(of_picture) for of_picture in rows]
        boxes = [picture.record.boxes.astype(np.float64) for picture in self.pictures]
        number = np.repeat(np.arange(len(counts)), counts)
        joined = np.concatenate([np.zeros((0, 4)), *boxes])
        scales = np.array([self.scale(picture.record) for picture in self.pictures])
        return Truths(
            number,
            np.concatenate([np.zeros(0, np.int64), *rows]),
            np.concatenate([np.zeros(0, np.int64), *(picture.record.classes for picture in self.pictures)]),
            joined,
            (joined[:, 2:] - joined[:, :2]) * scales[number, None] if len(number) else np.zeros((0, 2)),
        )

    def scale(self, record: Record) -> float:
        """By what an image is scaled to fit the frame; small ones keep their size."""
        return min(self.frame[0] / record.height, self.frame[1] / record.width, 1.0)

    def split(self, name: str) -> Split | None:
        """The split as training sees it, of the images that can be read; None if there is no such split."""
        reading = next((reading for reading in self.readings if reading.name == name), None)
        if reading is None:
            return None
        return Split(name, reading.records, self.names, self.spec.category_ids, reading.findings, reading.bits)


def survey(
    spec: DataSpec,
    frame: tuple[int, int],
    reach: Reach,
    progress: Callable[[str], Progress],
    bits: int | None = None,
) -> Survey:
    """Reads every split of a data set, each image once; `progress(split)` is told how far that is."""
    readings: list[Reading] = []
    pictures: list[Picture] = []
    for name in SPLITS:
        if name not in spec.splits:
            continue
        looks = _Looks()
        of_train = readings[0].bits if readings else None
        reading = read_split(spec, name, looks.take, progress(name), bits or of_train)
        readings.append(reading)
        pictures += [
            Picture(name, record, given, looks.of(record.path))
            for record, given in zip(reading.records, reading.given, strict=True)
        ]
    return Survey(spec, frame, reach, tuple(readings), tuple(pictures))


class _Looks:
    """Takes the pixels of images from any thread, and keeps what `Pixels` has of each."""

    def __init__(self) -> None:
        self._kept: dict[str, Pixels] = {}
        self._lock = threading.Lock()

    def take(self, path: str, image: NDArray[np.uint8]) -> None:
        looked = look(image)
        with self._lock:
            self._kept[path] = looked

    def of(self, path: Path) -> Pixels:
        return self._kept[str(path)]


def look(image: NDArray[np.uint8]) -> Pixels:
    """What is kept of an image (H, W, 3) uint8 RGB."""
    height, width = image.shape[:2]
    hashed = blake2b(f"{height}x{width}".encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(image).data)
    samples = image[:: max(1, height // _SAMPLES), :: max(1, width // _SAMPLES)]
    small = cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32)
    return Pixels(hashed.digest(), grey, float(samples.reshape(-1, 3).std(0).max()))
