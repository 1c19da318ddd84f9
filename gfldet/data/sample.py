"""`Sample`: an image with its truths, on its way from the image store to a batch; and the check of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfldet.errors import DataError, counted

Boxes = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image (H, W, 3) uint8 RGB, its boxes (M, 4) and ignore regions (K, 4), float32 xyxy px, and classes (M,)."""

    image: Image
    boxes: Boxes
    classes: NDArray[np.int64]
    ignore: Boxes


# A user's own augmentation: (sample, random generator to draw from) -> sample; it may write into the sample.
CustomAugment = Callable[[Sample, np.random.Generator], Sample]


def customised(sample: Sample, function: CustomAugment, rng: np.random.Generator, number_of_classes: int) -> Sample:
    """What a user's own augmentation makes of a copy of the sample; DataError that names the function if unusable."""
    copy = Sample(sample.image.copy(), sample.boxes.copy(), sample.classes.copy(), sample.ignore.copy())
    name = getattr(function, "__name__", type(function).__name__)
    return checked(function(copy, rng), name, number_of_classes)


def checked(sample: object, name: str, number_of_classes: int) -> Sample:
    """What a user's own augmentation returned, if it is a usable sample; else a DataError that says what is wrong."""
    if not isinstance(sample, Sample):
        raise DataError(f"augment {name}: returned {type(sample).__name__}; return a gfldet.data.sample.Sample")
    image, classes = np.asarray(sample.image), np.asarray(sample.classes).reshape(-1)
    boxes, ignore = (_rows_of_four(array) for array in (sample.boxes, sample.ignore))
    problems = []
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        problems.append(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3), RGB")
    for what, array in (("boxes", boxes), ("ignore", ignore)):
        if array is None:
            problems.append(f"{what}: expected finite numbers (M, 4), left, top, right, bottom in pixels")
        elif (array[:, 2:] < array[:, :2]).any():
            bad = array[(array[:, 2:] < array[:, :2]).any(1)][0].tolist()
            problems.append(f"{what}: {bad} is no left, top, right, bottom in pixels")
    if boxes is not None and len(boxes) != len(classes):
        problems.append(f"{counted(len(boxes), 'box')} but {counted(len(classes), 'class')}")
    if not np.isin(classes, np.arange(number_of_classes)).all():
        problems.append(f"classes {classes.tolist()}; expected whole numbers from 0 to {number_of_classes - 1}")
    if problems or boxes is None or ignore is None:
        raise DataError(f"augment {name}: " + "; ".join(problems))
    return Sample(np.ascontiguousarray(image), boxes, classes.astype(np.int64), ignore)


def _rows_of_four(array: object) -> Boxes | None:
    """An array as (M, 4) float32, also an empty one of any shape; None if it is something else, or not finite."""
    try:
        rows = np.asarray(array, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    rows = rows.reshape(0, 4) if not rows.size else rows
    return rows if rows.ndim == 2 and rows.shape[1] == 4 and np.isfinite(rows).all() else None
