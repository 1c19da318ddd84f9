"""The decoding of `ops.decode` in numpy, for exported files: a test holds both equal.

Letters: A anchor points of a frame, P some of them, C classes, R bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def anchor_points(height: int, width: int, strides: tuple[int, ...]) -> NDArray[np.float32]:
    """(A, 3): x, y in px of the frame and the stride of each point, level by level, row by row (see `ops.points`)."""
    levels = []
    for stride in strides:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.divmod(np.arange(rows * columns), columns)
        levels.append(np.stack(((x + 0.5) * stride, (y + 0.5) * stride, np.full(len(x), stride)), axis=1))
    return np.concatenate(levels).astype(np.float32)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + e^-x), without an overflow for large negative x."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)


def decode(bins: NDArray[np.float32], anchors: NDArray[np.float32], reg_max: int) -> NDArray[np.float32]:
    """Bins (4R, P) of points (P, 3) -> boxes (P, 4) xyxy in px of the frame.

    A side is the mean of its distribution (with R = 1 its softplus) times the stride, measured from the point.
    """
    if reg_max == 1:
        sides = np.logaddexp(0, bins)
    else:
        logits = bins.reshape(4, reg_max, -1)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        sides = np.einsum("srp,r->sp", weights, np.arange(reg_max, dtype=np.float32)) / weights.sum(1)
    left, top, right, bottom = sides * anchors[:, 2]
    x, y = anchors[:, 0], anchors[:, 1]
    return np.stack((x - left, y - top, x + right, y + bottom), axis=1)
