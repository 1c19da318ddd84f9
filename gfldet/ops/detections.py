"""`Detections`: the objects found in one image, as columns, and how they are chosen from candidates.  Only numpy.

Everything known about a detection is a column here, so a new column (the spread of a side, a calibrated score, a track,
a tile) is added in one place.  Letters: D detections, P candidates or points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gfldet.ops.letterbox import Letterbox


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """D detections of one image, best score first.

    boxes    (D, 4) float32 xyxy in px of a frame, or in px of the image after `in_image`
    scores   (D,) float32
    classes  (D,) int64, positions in the class names
    points   (D,) int64, the anchor point of each; None where an exported graph does not report it
    tracks   (D,) int64, the track of each, -1 for none yet; None where nothing is tracked
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    points: NDArray[np.int64] | None = None
    tracks: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Detections:
        """The detections at `rows`, in that order."""
        points = None if self.points is None else self.points[rows]
        tracks = None if self.tracks is None else self.tracks[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.classes[rows], points, tracks)

    def in_image(self, box: Letterbox) -> Detections:
        """The same with boxes in px of the image, clipped to it; `box` says where the image lies in the frame."""
        return replace(self, boxes=box.inverse(self.boxes))


def concatenated(parts: Sequence[Detections]) -> Detections:
    """The detections of several parts of one image, all in the same px, in the given order and without points."""
    return Detections(
        np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.classes for part in parts)]),
    )


def logit_floor(conf: float) -> float:
    """A logit below which no float32 sigmoid exceeds `conf`: what lies above it may be a candidate, the rest cannot be.

    It is lower than the logit of `conf` by more than the rounding of a sigmoid, so that the score decides in the end.
    """
    low = conf * (1 - 1e-6)
    return -math.inf if low <= 0 else math.log(low / (1 - low)) if low < 1 else math.inf


def chosen(
    candidates: Detections,
    boxes_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    iou: float | None,
    max_det: int,
    agnostic: bool = False,
) -> Detections:
    """The best `max_det` of the candidates (best score first, their boxes not made yet) that suppression keeps.

    `boxes_of` gives the boxes (P, 4) xyxy of points (P,).  See `survivors`; `iou` None suppresses nothing.
    """
    # Suppression goes from the highest score down, so a few candidates decide the best `max_det`.  More are taken only
    # when too few survive.  The result is the same as with all candidates.
    take = max_det if iou is None else 4 * max_det
    while True:
        best = candidates.take(slice(take))
        assert best.points is not None
        best = replace(best, boxes=boxes_of(best.points))
        if iou is None:
            return best
        keep = survivors(best, iou, agnostic, max_det)
        if len(keep) == max_det or take >= len(candidates):
            return best.take(keep)
        take *= 4


_TOGETHER = 64  # candidates that are compared with all later ones at a time
_MANY = 4000  # candidates of which each class is looked at by itself


def survivors(
    detections: Detections,
    iou: float,
    agnostic: bool = False,
    most: int | None = None,
    tiles: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Rows of the detections (best score first) that greedy non-maximum suppression keeps, best first.

    A kept detection suppresses the later ones of its class (of any class if `agnostic`) that it overlaps by more than
    `iou`.  Boxes of different classes never meet, wherever they lie.  The overlaps are computed in float32, as
    torchvision's `nms` does, so that both keep the same.  With `most`, only the first so many rows are wanted.  With
    `tiles` (D,), detections of one tile do not suppress each other, as they were told apart there.
    """
    boxes = detections.boxes.astype(np.float32, copy=False)
    classes = np.zeros(len(boxes), np.int64) if agnostic else detections.classes
    limit = np.float32(iou)
    if float(limit) > iou:
        limit = np.nextafter(limit, np.float32(-np.inf))  # the float32 that tells the same overlaps apart as `iou` does
    if len(boxes) <= _MANY:
        return _greedy(boxes, classes, limit, np.arange(len(boxes)), most, tiles)
    of_class = [(classes == c).nonzero()[0] for c in np.unique(classes)]
    return np.sort(np.concatenate([_greedy(boxes, classes, limit, rows, most, tiles) for rows in of_class]))[:most]


def _greedy(
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    limit: np.float32,
    left: NDArray[np.int64],
    most: int | None,
    tiles: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """The rows of `left` (P,), best first, that survive; see `survivors`."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept, found = [np.empty(0, np.int64)], 0
    while len(left) and (most is None or found < most):
        some = left[:_TOGETHER]
        meets = _iou(boxes[some], areas[some], boxes[left], areas[left]) > limit
        meets &= classes[some][:, None] == classes[left]
        if tiles is not None:
            meets &= tiles[some][:, None] != tiles[left]
        gone = np.zeros(len(left), np.bool_)
        for row in range(len(some)):
            if not gone[row]:
                gone[row + 1 :] |= meets[row, row + 1 :]
        kept.append(some[~gone[: len(some)]])
        found += len(kept[-1])
        left = left[len(some) :][~gone[len(some) :]]
    return np.concatenate(kept)[:most]


def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU (P, D) of boxes a (P, 4) with boxes b (D, 4), both xyxy; NaN for two empty boxes."""
    a_areas, b_areas = ((one[:, 2] - one[:, 0]) * (one[:, 3] - one[:, 1]) for one in (a, b))
    return _iou(a, a_areas, b, b_areas)


def _iou(
    a: NDArray[np.float32], a_areas: NDArray[np.float32], b: NDArray[np.float32], b_areas: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Overlap (P, D) of boxes a (P, 4) with boxes b (D, 4), both xyxy with their areas; NaN for two empty boxes."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        inside = np.minimum(a[:, None, 2], b[:, 2])
        inside -= np.maximum(a[:, None, 0], b[:, 0])
        height = np.minimum(a[:, None, 3], b[:, 3])
        height -= np.maximum(a[:, None, 1], b[:, 1])
        inside = np.maximum(inside, 0, out=inside)
        inside *= np.maximum(height, 0, out=height)
        union = np.add(a_areas[:, None], b_areas, out=height)
        union -= inside
        out: NDArray[np.float32] = np.divide(inside, union, out=inside)
    return out
