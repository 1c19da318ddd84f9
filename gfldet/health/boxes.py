"""Findings about single boxes: tiny, outside, twice there, beyond the bins, of an odd size or shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gfldet.data.records import Finding
from gfldet.errors import part_of
from gfldet.health.codes import KINDS
from gfldet.health.survey import Floats, Ints, Picture, Survey
from gfldet.metrics.matching import pairwise_iou

TINY = 2.0  # px of the image
SMALL = 8.0  # px at the chosen imgsz: the finest stride
INSIDE = 0.5  # share of a box that has to lie in its image
SAME_BOX = 0.9  # IoU of two boxes of one object
FILLED = 0.99  # share of its image
ODD = 6.0  # robust standard deviations from the median of the class
MIN_SPREAD = 0.15  # of the logarithm of a size or shape; a class that hardly varies is no measure
ENOUGH = 30  # boxes of a class that its median is taken from


def findings_of_boxes(survey: Survey) -> list[Finding]:
    """All findings about single boxes, of each code the worst first."""
    return [
        *_outside(survey),
        *_tiny(survey),
        *_twice(survey),
        *_beyond_reach(survey),
        *_under_8px(survey),
        *_filling(survey),
        *_odd(survey),
    ]


def box_finding(survey: Survey, code: str, picture: Picture, row: int, told: str) -> Finding:
    """A finding about the box in row `row` of what a picture's label file gives."""
    place, box = picture.given.places[row], picture.given.boxes[row].tolist()
    label = survey.names[int(picture.given.classes[row])]
    return Finding(
        code,
        KINDS[code].severity,
        f"{picture.split}: {place}: {label!r}, {told}",
        place.file or picture.record.path,
        place.line,
        (box[0], box[1], box[2], box[3]),
        split=picture.split,
        image=picture.record.path,
        label=label,
    )


def _outside(survey: Survey) -> list[Finding]:
    rows: list[tuple[float, Picture, int]] = []
    for picture in survey.pictures:
        boxes, record = picture.given.boxes, picture.record
        size = np.array([record.width, record.height] * 2, np.float64)
        inside = np.clip(boxes, 0, size)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        share = np.divide((inside[:, 2:] - inside[:, :2]).prod(1), area, out=np.ones_like(area), where=area > 0)
        rows += [(float(share[row]), picture, int(row)) for row in np.flatnonzero(share < INSIDE)]
    rows.sort(key=lambda one: one[0])
    return [
        box_finding(survey, "box-outside", picture, row, f"{1 - share:.0%} of the box outside of its image")
        for share, picture, row in rows
    ]


def _tiny(survey: Survey) -> list[Finding]:
    rows: list[tuple[float, Picture, int]] = []
    for picture in survey.pictures:
        given = picture.given
        sides = given.boxes[:, 2:] - given.boxes[:, :2]
        shorter = sides.min(1, initial=np.inf)
        rows += [(float(shorter[row]), picture, int(row)) for row in np.flatnonzero(given.truth & (shorter < TINY))]
    rows.sort(key=lambda one: one[0])
    return [box_finding(survey, "box-tiny", picture, row, f"{_size(picture, row)} px") for _, picture, row in rows]


def _size(picture: Picture, row: int) -> str:
    x1, y1, x2, y2 = picture.given.boxes[row].tolist()
    return f"{x2 - x1:.3g} x {y2 - y1:.3g}"


def _twice(survey: Survey) -> list[Finding]:
    """Boxes of one class, or of two, that are nearly the same; equal ones of one class are told with the repairs."""
    found: list[tuple[float, Finding]] = []
    for picture in survey.pictures:
        rows = np.flatnonzero(picture.given.truth)
        boxes, classes = picture.record.boxes.astype(np.float64), picture.record.classes
        for first, second, overlap in _overlapping(boxes):
            same = classes[first] == classes[second]
            if same and (boxes[first] == boxes[second]).all():
                continue
            place = picture.given.places[rows[first]]
            other = f"line {place.line}" if place.line else place.rpartition(": ")[2]
            code = "box-nearly-repeated" if same else "box-of-two-classes"
            kind = "" if same else f", {survey.names[classes[first]]!r}"
            told = f"nearly the same box as that of {other}{kind} (IoU {overlap:.2f})"
            found.append((-overlap, box_finding(survey, code, picture, int(rows[second]), told)))
    return [finding for _, finding in sorted(found, key=lambda one: one[0])]


def _overlapping(boxes: Floats) -> Iterator[tuple[int, int, float]]:
    """For each box the earlier one that it overlaps most, where that is enough for one object."""
    for second in range(1, len(boxes)):
        overlap = pairwise_iou(boxes[second : second + 1], boxes[:second])[0]
        first = int(overlap.argmax())
        if overlap[first] >= SAME_BOX:
            yield first, second, float(overlap[first])


def _beyond_reach(survey: Survey) -> list[Finding]:
    truths, reach = survey.truths, survey.reach.px
    sides = truths.sides.max(1, initial=0)
    told = f"larger than the {reach:.0f} px that reg_max={survey.reach.reg_max} can express at this imgsz"
    return _of_truths(
        survey, "box-beyond-reach", _falling(sides, sides > reach), lambda n: f"{sides[n]:.0f} px long, {told}"
    )


def _under_8px(survey: Survey) -> list[Finding]:
    """One finding for each split, with the smallest box."""
    truths, found = survey.truths, []
    sides = truths.sides.max(1, initial=0)
    for name in dict.fromkeys(picture.split for picture in survey.pictures):
        of_split = np.array([survey.pictures[n].split == name for n in truths.picture], bool)
        small = np.flatnonzero(of_split & (sides < SMALL))
        if not len(small):
            continue
        smallest = int(small[sides[small].argmin()])
        (example,) = _of_truths(survey, "boxes-under-8px", [smallest], str)
        some = part_of(len(small), int(of_split.sum()), "box", "[is|are] under")
        text = f"{name}: {some} {SMALL:g} px at this imgsz; a larger imgsz shows more of what is in them"
        found.append(replace(example, text=text, file=None, line=None, label=None, count=len(small)))
    return found


def _filling(survey: Survey) -> list[Finding]:
    """Boxes of a whole image, in classes whose boxes mostly leave some of it."""
    truths = survey.truths
    share = _image_share(survey)
    chosen: list[int] = []
    for cls in range(len(survey.names)):
        of_class = np.flatnonzero(truths.classes == cls)
        filling = of_class[share[of_class] >= FILLED]
        if 2 * len(filling) < len(of_class):
            chosen += filling.tolist()
    return _of_truths(survey, "box-fills-image", chosen, lambda n: f"the box is {share[n]:.0%} of its image")


def _image_share(survey: Survey) -> Floats:
    """(N,) area of each truth as a share of that of its image."""
    truths = survey.truths
    areas = np.array([picture.record.width * picture.record.height for picture in survey.pictures], np.float64)
    shares: Floats = (truths.boxes[:, 2:] - truths.boxes[:, :2]).prod(1) / areas[truths.picture]
    return shares


def _odd(survey: Survey) -> list[Finding]:
    """Boxes far from the others of their class, by the logarithm of their side and of their shape."""
    truths = survey.truths
    sides = np.maximum(truths.boxes[:, 2:] - truths.boxes[:, :2], 1e-3)
    size, shape = np.sqrt(_image_share(survey)), sides[:, 0] / sides[:, 1]
    size_far, size_median = _from_median(size, truths.classes, len(survey.names))
    shape_far, shape_median = _from_median(shape, truths.classes, len(survey.names))

    def size_told(n: int) -> str:
        return f"a side of {size[n]:.2%} of its image, where {size_median[n]:.2%} is usual for the class"

    def shape_told(n: int) -> str:
        return f"{shape[n]:.2g} times as wide as high, where {shape_median[n]:.2g} is usual for the class"

    return [
        *_of_truths(survey, "box-odd-size", _falling(size_far, size_far > ODD), size_told),
        *_of_truths(survey, "box-odd-shape", _falling(shape_far, shape_far > ODD), shape_told),
    ]


def _from_median(values: Floats, classes: Ints, count: int) -> tuple[Floats, Floats]:
    """(N,) how many robust standard deviations the logarithm of each value is from the median of its class, and (N,)
    that median."""
    far, medians, logs = np.zeros_like(values), np.zeros_like(values), np.log(np.maximum(values, 1e-12))
    for cls in range(count):
        of_class = classes == cls
        if of_class.sum() >= ENOUGH:
            median = np.median(logs[of_class])
            spread = max(1.4826 * float(np.median(np.abs(logs[of_class] - median))), MIN_SPREAD)
            far[of_class], medians[of_class] = np.abs(logs[of_class] - median) / spread, np.exp(median)
    return far, medians


def _of_truths(survey: Survey, code: str, numbers: Iterable[int], told: Callable[[int], str]) -> list[Finding]:
    """A finding about each of these truths, of which `told` says what is to be told."""
    truths = survey.truths
    return [box_finding(survey, code, survey.pictures[truths.picture[n]], int(truths.row[n]), told(n)) for n in numbers]


def _falling(values: Floats, chosen: NDArray[np.bool_]) -> list[int]:
    """The chosen positions, the largest value first."""
    numbers = np.flatnonzero(chosen)
    return [int(n) for n in numbers[np.argsort(-values[numbers], kind="stable")]]
