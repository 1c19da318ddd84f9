"""Matches the detections of a split to its truths, at one IoU threshold.

The rule is that of COCOeval: in order of falling score, each detection takes the free truth with the highest IoU (of
its class, unless `any_class`).  A detection that finds no truth but lies in an ignore region is ignored: it counts
neither as right nor as wrong.  Unlike COCOeval, there is no limit of 100 detections per image: all detections that a
user sees count.

Letters: N detections of the split, T truths of the split, K ignore regions of the split, D and M of one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gfldet.data.records import ANY_CLASS
from gfldet.metrics.table import DetectionTable, Floats, Ints

if TYPE_CHECKING:
    from gfldet.data.records import Split


@dataclass(frozen=True, eq=False)
class SplitTruths:
    """All truths and ignore regions of a split, image after image.

    boxes, classes  (T, 4) xyxy px, (T,);  those of image i are rows start[i] to start[i + 1]
    ignore          (K, 4) xyxy px;  those of image i are rows ignore_start[i] to ignore_start[i + 1]
    ignore_classes  (K,) each region ignores the detections of this class, ANY_CLASS: of all classes
    """

    boxes: Floats
    classes: Ints
    start: Ints
    ignore: Floats
    ignore_classes: Ints
    ignore_start: Ints


@dataclass(frozen=True, eq=False)
class Matches:
    """truth: (N,) row of the truth that a detection found, -1 for none; ignored: (N,) bool, detections to leave out."""

    truth: Ints
    ignored: NDArray[np.bool_]


def truth_columns(split: Split) -> SplitTruths:
    """Every truth and ignore region of the split, in float64."""
    records = split.records
    return SplitTruths(
        boxes=records.boxes.astype(np.float64),
        classes=records.classes,
        start=records.starts,
        ignore=records.ignore.astype(np.float64),
        ignore_classes=records.ignore_classes,
        ignore_start=records.ignore_starts,
    )


def match(truths: SplitTruths, detections: DetectionTable, iou: float = 0.5, any_class: bool = False) -> Matches:
    """Matches all images at one IoU threshold; with `any_class` a detection may find a truth of another class."""
    found = np.full(len(detections.scores), -1, np.int64)
    ignored = np.zeros(len(detections.scores), np.bool_)
    xyxy = detections.corners()
    # By image, then by falling score; equal scores keep their order.
    order = np.lexsort((-detections.scores, detections.image))
    ends = np.searchsorted(detections.image[order], np.arange(len(truths.start)))
    for i in np.flatnonzero(np.diff(ends)):
        rows = order[ends[i] : ends[i + 1]]
        first, last = truths.start[i], truths.start[i + 1]
        overlap = pairwise_iou(xyxy[rows], truths.boxes[first:last])
        if not any_class:
            overlap *= detections.classes[rows][:, None] == truths.classes[None, first:last]
        taken = _greedy(overlap, iou)
        found[rows] = np.where(taken >= 0, taken + first, -1)
        here = slice(truths.ignore_start[i], truths.ignore_start[i + 1])
        if here.stop > here.start:
            covered = covered_share(xyxy[rows], truths.ignore[here])
            labels = truths.ignore_classes[here]
            if not any_class:
                covered *= (labels == ANY_CLASS) | (labels == detections.classes[rows][:, None])
            ignored[rows] = (covered.max(axis=1, initial=0.0) >= iou) & (taken < 0)
    return Matches(found, ignored)


def _greedy(overlap: Floats, iou: float) -> Ints:
    """(D, M) IoU, rows by falling score -> (D,) the column that each row takes, or -1; only one row takes a column."""
    taken = np.full(len(overlap), -1, np.int64)
    overlap = np.where(overlap >= iou, overlap, 0.0)
    for row in np.flatnonzero(overlap.any(axis=1)):  # short loop: most detections overlap no truth enough
        best = overlap.shape[1] - 1 - int(overlap[row, ::-1].argmax())  # the last of equal ones, as COCOeval does
        if overlap[row, best] > 0:
            taken[row] = best
            overlap[:, best] = 0.0
    return taken


def pairwise_iou(a: Floats, b: Floats) -> Floats:
    """(D, 4) and (M, 4) xyxy -> (D, M) IoU; 0 where both boxes are empty."""
    inter = _intersection(a, b)
    union = _area(a)[:, None] + _area(b)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def covered_share(a: Floats, regions: Floats) -> Floats:
    """(D, 4) and (K, 4) xyxy -> (D, K): the share of each box that lies inside each region."""
    inter = _intersection(a, regions)
    area = np.broadcast_to(_area(a)[:, None], inter.shape)
    return np.divide(inter, area, out=np.zeros_like(inter), where=area > 0)


def _intersection(a: Floats, b: Floats) -> Floats:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    size: Floats = np.clip(high - low, 0, None)
    return size[..., 0] * size[..., 1]


def _area(boxes: Floats) -> Floats:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
