"""Rows of YOLO labels that hold keypoints: `class cx cy w h`, then K points of x y, or of x y and a visibility.

The box is in the first five columns.  Such a row is no longer than that of a polygon, and read as one it gives the hull
of a centre, a size and points: a wrong box, without any sign of it.  `kpt_shape` of the data YAML tells which it is.
Without it, a split's rows are looked at together: one polygon may look like keypoints, all of them hardly do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gfldet.data.located import Located

KptShape = tuple[int, int]  # K points of 2 or 3 values
Look = Literal["polygon", "points", "odd points"]

ALL_ROWS = 0.9  # share of the rows that have to look like keypoints; some points lie outside of their box
ODD_ROWS = 0.2  # share of the rows that have to be odd as polygons
MAX_POINTS = 200  # of a row whose sides are compared with each other
SLACK = 0.1  # of the box; so far may a point lie outside of it
_VISIBILITIES = (0.0, 1.0, 2.0)


@dataclass(slots=True)
class LongRows:
    """The rows of label files that are longer than a box: how many of each length and look, and where one is."""

    looks: Counter[tuple[int, Look]] = field(default_factory=Counter)
    # Of each length the first row that has a shape, and that shape.
    seen: dict[int, tuple[Located, KptShape] | None] = field(default_factory=dict)

    def add(self, values: Sequence[float], place: Located) -> None:
        """Counts a row of `values`, without its class."""
        shape = shape_of(values)
        self.looks[len(values), look(values, shape)] += 1
        if self.seen.get(len(values)) is None:
            self.seen[len(values)] = shape and (place, shape)

    def update(self, other: LongRows) -> None:
        """Adds the rows of another file."""
        self.looks.update(other.looks)
        for length, seen in other.seen.items():
            self.seen[length] = self.seen.get(length) or seen

    def keypoints(self) -> tuple[Located, KptShape] | None:
        """Place and shape of a row if the rows look like keypoints; None if they are polygons, or if there are none.

        All rows of keypoints have one length.  In nearly all of them the first four values are a box in the image that
        holds the points.  So may the first two points of a small polygon; but then the second one lies near the first.
        """
        if len(self.seen) != 1:
            return None
        ((length, seen),) = self.seen.items()
        points, odd = self.looks[length, "points"], self.looks[length, "odd points"]
        total = points + odd + self.looks[length, "polygon"]
        return seen if points + odd >= ALL_ROWS * total and odd >= ODD_ROWS * total else None


def fitting_shapes(length: int) -> list[KptShape]:
    """The shapes of keypoints that rows of `length` values, without the class, may have."""
    return [((length - 4) // size, size) for size in (3, 2) if length > 4 and (length - 4) % size == 0]


def shape_of(values: Sequence[float]) -> KptShape | None:
    """The shape of keypoints that a row, without its class, looks like; None: it is no box that holds points."""
    return next((shape for shape in fitting_shapes(len(values)) if _holds_points(values, shape[1])), None)


def look(values: Sequence[float], shape: KptShape | None) -> Look:
    """How a row of that `shape_of` looks: as a polygon, like keypoints too, or like keypoints and odd as a polygon."""
    if shape is None or _is_parallelogram(values):
        return "polygon"
    return "odd points" if shape[1] == 3 or _is_odd_polygon(values) else "points"


def _holds_points(values: Sequence[float], size: int) -> bool:
    """Whether the first four values are a box in the image that holds the points; a point at 0, 0 is one not seen."""
    x, y, w, h = values[:4]
    if not (w > 0 and h > 0 and abs(x - 0.5) + w / 2 < 0.51 and abs(y - 0.5) + h / 2 < 0.51):
        return False
    if size == 3 and any(value not in _VISIBILITIES for value in values[6::3]):
        return False
    points = zip(values[4::size], values[5::size], strict=True)
    reach_x, reach_y = (0.5 + SLACK) * w, (0.5 + SLACK) * h
    return all((px == 0 and py == 0) or (abs(px - x) <= reach_x and abs(py - y) <= reach_y) for px, py in points)


def _is_parallelogram(values: Sequence[float]) -> bool:
    """Four corners in order, as of a rotated box: the two diagonals have nearly the same middle."""
    if len(values) != 8:
        return False
    xs, ys = values[0::2], values[1::2]
    extent = math.hypot(max(xs) - min(xs), max(ys) - min(ys))
    return math.hypot(xs[0] - xs[1] + xs[2] - xs[3], ys[0] - ys[1] + ys[2] - ys[3]) < extent / 4


def _is_odd_polygon(values: Sequence[float]) -> bool:
    """Whether a polygon of these points would be a strange one.

    Lines from point to point, in no order, cross each other where there are five or more.  A polygon of three or four
    is strange where its second point, which is a size if the row holds keypoints, lies far from all the others; but
    one of four corners that bulges everywhere is what people draw.
    """
    points = np.array(values).reshape(-1, 2)
    if 4 < len(points) <= MAX_POINTS:
        return _crosses_itself(points)
    if len(points) == 4 and _is_convex(points):
        return False
    x, y, w, h = values[:4]
    if abs(w - x) > (0.5 + SLACK) * w or abs(h - y) > (0.5 + SLACK) * h:
        return True
    others = np.delete(points, 1, axis=0)
    far = np.hypot(*(others - points[1]).T).min() > math.hypot(*np.ptp(others, axis=0)) / 2
    return len(points) > 3 and bool(far)


def _is_convex(points: NDArray[np.float64]) -> bool:
    """Whether a polygon (n, 2) of four corners turns the same way at each."""
    along = np.roll(points, -1, axis=0) - points
    after = np.roll(along, -1, axis=0)
    turns = along[:, 0] * after[:, 1] - along[:, 1] * after[:, 0]
    return bool((turns > 0).all() or (turns < 0).all())


def _crosses_itself(points: NDArray[np.float64]) -> bool:
    """Whether two sides of a polygon (n, 2) that have no corner in common cross each other."""
    ends = np.roll(points, -1, axis=0)

    def side_of(line: int, others: NDArray[np.float64]) -> NDArray[np.float64]:
        along, away = ends[line] - points[line], others - points[line]
        return along[0] * away[:, 1] - along[1] * away[:, 0]

    sides = [(side_of(line, points), side_of(line, ends)) for line in range(len(points))]
    parted = np.array([start * end < 0 for start, end in sides])  # [i, j]: the line of side i parts the ends of side j
    return bool((parted & parted.T).any())
