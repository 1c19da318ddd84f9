"""A batch to assign, drawn from a seed: both sides get the same truths, and predictions as a half-trained head makes.

Letters: B images, A points, M truths of an image, C classes.  Boxes are xyxy in pixels of a square input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

STRIDES = (8, 16, 32)
SIDES = (8.0, 128.0)  # px of a truth's mean side; small and large are equally likely in the logarithm


@dataclass(frozen=True)
class Problem:
    """Class logits (B, A, C), predicted boxes (B, A, 4), points (A, 2), truths (B, M, 4), their classes (B, M)."""

    logits: Array
    boxes: Array
    points: Array
    truths: Array
    classes: NDArray[np.int64]

    def save(self, path: Path) -> None:
        np.savez(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})


def draw(images: int, truths: int, classes: int, size: int, seed: int) -> Problem:
    """Predictions at points inside a truth spread around the smallest such one; elsewhere they are background."""
    rng = np.random.default_rng((seed, truths))
    points, strides = _points(size)
    boxes = np.stack([_truths(truths, size, rng) for _ in range(images)])
    numbers = rng.integers(0, classes, (images, truths))
    logits = rng.normal(-5, 1, (images, len(points), classes)).astype(np.float32)
    predicted = np.empty((images, len(points), 4), np.float32)
    for image in range(images):
        owner = _smallest_around(points, boxes[image])
        inside = owner >= 0
        sides = strides[:, None] * rng.lognormal(np.log(2), 0.5, (len(points), 4))
        near = _sides(points[inside], boxes[image][owner[inside]])
        sides[inside] = near * rng.lognormal(0, 0.2, near.shape)
        predicted[image] = np.concatenate((points - sides[:, :2], points + sides[:, 2:]), axis=1)
        logits[image, inside.nonzero()[0], numbers[image][owner[inside]]] += rng.normal(4, 1.5, inside.sum())
    return Problem(logits, predicted, points, boxes, numbers.astype(np.int64))


def _points(size: int) -> tuple[Array, Array]:
    """Cell centres (A, 2) in pixels, level by level and row by row, and the stride (A,) of each."""
    points, strides = [], []
    for stride in STRIDES:
        middle = (np.arange(size // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(middle, middle, indexing="ij")
        points.append(np.stack((x, y), axis=-1).reshape(-1, 2))
        strides.append(np.full(x.size, stride, np.float32))
    return np.concatenate(points), np.concatenate(strides)


def _truths(count: int, size: int, rng: np.random.Generator) -> Array:
    """Boxes (M, 4) with centres anywhere, sides as `SIDES` says, most of them from 2:3 to 3:2, cut at the frame."""
    side = np.exp(rng.uniform(math.log(SIDES[0]), math.log(SIDES[1]), (count, 1)))
    aspect = np.exp(rng.normal(0, 0.2, (count, 1)))
    half = np.concatenate((side * aspect, side / aspect), axis=1) / 2
    centre = rng.uniform(0, size, (count, 2))
    centre = np.clip(centre, SIDES[0] / 2, size - SIDES[0] / 2)
    return np.clip(np.concatenate((centre - half, centre + half), axis=1), 0, size).astype(np.float32)


def _sides(points: Array, boxes: Array) -> Array:
    """Distances (P, 4) from points (P, 2) to the left, upper, right and lower side of boxes (P, 4)."""
    return np.concatenate((points - boxes[:, :2], boxes[:, 2:] - points), axis=1)


def _smallest_around(points: Array, boxes: Array) -> NDArray[np.int64]:
    """For each point (A,) the smallest of the boxes (M, 4) that it lies in, -1 for none."""
    owner = np.full(len(points), -1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for number in np.argsort(-area):  # the smallest last, so that it stays
        owner[(_sides(points, boxes[number][None].repeat(len(points), 0)) > 0).all(1)] = number
    return owner
