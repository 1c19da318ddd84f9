"""The confusion matrix: confused classes, missed truths, and detections on background."""

from __future__ import annotations

import numpy as np

from gfldet.metrics.matching import SplitTruths, match
from gfldet.metrics.table import DetectionTable, Ints


def confusion_matrix(
    truths: SplitTruths, detections: DetectionTable, classes: int, conf: float = 0.25, iou: float = 0.5
) -> Ints:
    """(C+1, C+1) counts: rows are true classes, columns are predicted classes, the last row and column are background.

    Detections with score >= `conf` are matched to truths of any class, the highest score first.  [c, C] counts
    truths of class c that no detection found, [C, c] counts detections of class c that found no truth; [C, C] stays 0.
    Detections in ignore regions are left out.
    """
    keep = detections.scores >= conf
    kept = detections.take(keep)
    matches = match(truths, kept, iou, any_class=True)
    hit = matches.truth >= 0
    missed = np.delete(truths.classes, matches.truth[hit])
    made_up = kept.classes[~hit & ~matches.ignored]
    rows = np.concatenate([truths.classes[matches.truth[hit]], missed, np.full_like(made_up, classes)])
    columns = np.concatenate([kept.classes[hit], np.full_like(missed, classes), made_up])
    side = classes + 1
    return np.bincount(rows * side + columns, minlength=side * side).astype(np.int64).reshape(side, side)
