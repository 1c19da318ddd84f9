"""`Detections`: the objects found in one image, as columns; the detector passes it to files and metrics.  Only numpy.

Everything known about a detection is a column here, so a new column (the spread of a side, a calibrated score, a track,
a tile) is added in one place.  Letter: D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
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
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    points: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Detections:
        """The detections at `rows`, in that order."""
        points = None if self.points is None else self.points[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.classes[rows], points)

    def in_image(self, box: Letterbox) -> Detections:
        """The same with boxes in px of the image, clipped to it; `box` says where the image lies in the frame."""
        return replace(self, boxes=box.inverse(self.boxes))


def joined(parts: Sequence[Detections]) -> Detections:
    """The detections of several parts of one image, all in the same px: best score first, ties in the given order.

    The result has no points, because their numbers hold in one frame only.
    """
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes for part in parts)])
    scores = np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)])
    classes = np.concatenate([np.zeros(0, np.int64), *(part.classes for part in parts)])
    return Detections(boxes, scores, classes).take(np.argsort(-scores, kind="stable"))


def survivors(detections: Detections, iou: float, agnostic: bool = False) -> NDArray[np.int64]:
    """Rows of the detections (best score first) that greedy non-maximum suppression keeps, best first.

    A kept detection suppresses the later ones of its class (of any class if `agnostic`) that it overlaps by more than
    `iou`.
    """
    if not len(detections):
        return np.empty(0, np.int64)
    corners = detections.boxes.astype(np.float64)
    corners -= min(0, corners.min())  # OpenCV sets classes apart by shifts of the largest coordinate, counted from 0
    corners[:, 2:] -= corners[:, :2]
    if agnostic:
        keep = cv2.dnn.NMSBoxes(corners, detections.scores, 0.0, iou)  # type: ignore[arg-type]
    else:
        labels = detections.classes.astype(np.int32)
        keep = cv2.dnn.NMSBoxesBatched(corners, detections.scores, labels, 0.0, iou)  # type: ignore[arg-type]
    return np.asarray(keep, np.int64).reshape(-1)
