"""Augmentation: what was drawn (`data.draw`) is applied to samples.  Pure functions: no random numbers here.

Every source image goes straight into the part of the output canvas that it fills, by a resize (where it is turned or
sheared, by an affine warp): a mosaic writes each output pixel once, instead of pasting four full images on a double
canvas and warping that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.data.draw import Colour, Drawn, Layout, Placed
from gfldet.data.sample import Boxes, Image, Sample
from gfldet.ops import letterbox
from gfldet.ops.letterbox import PAD_COLOUR

Matrix = NDArray[np.float64]

# A box that the frame cuts is no longer an object below these.  One that it does not cut stays, however small.
MIN_SIDE = 2.0  # px
MIN_VISIBLE = 0.1  # share of its area
# A box is not cut where it lies outside by less: arithmetic in float32 is off by up to 2e-4 px in a frame of 4096 px.
ROUNDING = 0.01  # px


def apply(drawn: Drawn, source: Callable[[int], Sample], frame: tuple[int, int]) -> Sample:
    """The training sample of `frame` (height, width) that was drawn; `source` gives the images by their numbers."""
    out = lay_out(drawn.layout, source, frame)
    if drawn.other is not None:
        out = mixup(out, lay_out(drawn.other, source, frame), drawn.share)
    return out if drawn.colour is None else change_colour(out, drawn.colour)


def lay_out(layout: Layout, source: Callable[[int], Sample], frame: tuple[int, int]) -> Sample:
    """One image, or four around a centre, in the frame."""
    samples = [source(placed.image) for placed in layout.images]
    if layout.centre is None:
        return single(samples[0], layout.images[0], frame)
    return mosaic(samples, layout.images, layout.centre, frame)


def letterboxed(sample: Sample, frame: tuple[int, int]) -> Sample:
    """The sample in `frame` (height, width), unchanged but for size and grey padding."""
    height, width = sample.image.shape[:2]
    box = letterbox.fit(height, width, frame)
    return Sample(
        letterbox.apply(sample.image, box), box.forward(sample.boxes), sample.classes, box.forward(sample.ignore)
    )


def single(sample: Sample, placed: Placed, frame: tuple[int, int]) -> Sample:
    """One image in the frame under an affine map: centred, then shifted."""
    linear, extent = _linear(sample.image, placed, frame)
    sides = np.array(frame[::-1])
    shift = (sides - extent) / 2 + np.array(placed.shift) * sides
    canvas = np.full((*frame, 3), PAD_COLOUR, dtype=np.uint8)
    return _join(canvas, [_warp(sample, _positioned(linear, sample.image, shift), canvas, (0, 0))])


def mosaic(
    samples: Sequence[Sample], images: Sequence[Placed], centre: tuple[float, float], frame: tuple[int, int]
) -> Sample:
    """Four images around a centre, each scaled, flipped and (where it is larger than its quarter) cropped anew.

    An image smaller than its quarter touches the centre and leaves grey outside, so that it is whole.
    """
    height, width = frame
    cx, cy = int(centre[0] * width), int(centre[1] * height)
    canvas = np.full((height, width, 3), PAD_COLOUR, dtype=np.uint8)
    parts = []
    quarters = (
        ((0, cx, 1), (0, cy, 1)),
        ((cx, width, 0), (0, cy, 1)),
        ((0, cx, 1), (cy, height, 0)),
        ((cx, width, 0), (cy, height, 0)),
    )
    for sample, placed, ((x0, x1, inner_x), (y0, y1, inner_y)) in zip(samples, images, quarters, strict=True):
        linear, extent = _linear(sample.image, placed, frame)
        slack = np.array([x1 - x0, y1 - y0]) - extent
        shift = np.where(slack < 0, np.array(placed.shift) * slack, slack * (inner_x, inner_y))
        matrix = _positioned(linear, sample.image, shift)
        parts.append(_warp(sample, matrix, canvas[y0:y1, x0:x1], (x0, y0)))
    return _join(canvas, parts)


def mixup(a: Sample, b: Sample, share: float) -> Sample:
    """Two samples of one size, blended; the truths of both stay (Zhang et al., Bag of freebies, 2019)."""
    image: Image = cv2.addWeighted(a.image, share, b.image, 1 - share, 0.0)  # type: ignore[assignment]
    return _join(image, [a, b])


def change_colour(sample: Sample, colour: Colour) -> Sample:
    """The sample with hue, saturation and value changed.

    Departure from a round trip through HSV: the three are linear maps of RGB (a rotation about the grey axis, a scaling
    away from it, a scaling from black), so one matrix does them all, in an eighth of the time and without hue's steps.
    """
    matrix = colour_matrix(colour.hue, colour.saturation, colour.value)
    image: Image = cv2.transform(sample.image, matrix)  # type: ignore[assignment]
    return Sample(image, sample.boxes, sample.classes, sample.ignore)


def colour_matrix(hue: float, saturation: float, value: float) -> Matrix:
    """The map (3, 3) of RGB that turns hue by `hue` radians and multiplies saturation and value; greys stay grey."""
    grey = np.full((3, 3), 1 / 3)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = grey + math.cos(hue) * (np.eye(3) - grey) + math.sin(hue) * across  # Rodrigues' formula about (1, 1, 1)
    return value * (grey + saturation * (np.eye(3) - grey)) @ turn


def _linear(image: Image, placed: Placed, frame: tuple[int, int]) -> tuple[Matrix, Matrix]:
    """The linear map (2, 2) of a placed image: fit to the frame, scale, rotation, shear, flips; its extent (2,), px."""
    height, width = image.shape[:2]
    scale = min(frame[0] / height, frame[1] / width) * placed.scale
    angle = math.radians(placed.degrees)
    shear_x, shear_y = (math.tan(math.radians(s)) for s in placed.shear)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, shear_x], [shear_y, 1.0]])
    linear[:, 0] *= -1 if placed.mirrored else 1
    linear[:, 1] *= -1 if placed.flipped else 1
    return linear, np.abs(linear) @ np.array([width, height], dtype=np.float64)


def _positioned(linear: Matrix, image: Image, shift: Matrix) -> Matrix:
    """The affine map (2, 3) whose image of the whole picture has its upper left corner at `shift` (x, y)."""
    height, width = image.shape[:2]
    corner = np.minimum(linear * (width, height), 0).sum(1)
    return np.concatenate((linear, (shift - corner)[:, None]), axis=1)


def _warp(sample: Sample, matrix: Matrix, view: Image, origin: tuple[int, int]) -> Sample:
    """Draw the image into `view`, a grey part of the canvas that begins at `origin` (x, y); truths follow.

    The sample returned has the view as its image.
    """
    height, width = view.shape[:2]
    if matrix[0, 1] or matrix[1, 0]:
        _warp_affine(sample.image, matrix, view)
    else:
        matrix = _resize_into(sample.image, matrix, view)
    moved_boxes, keep = _move(sample.boxes, matrix, width, height)
    moved_ignore, _ = _move(sample.ignore, matrix, width, height)
    keep_ignore = (moved_ignore[:, 2:] > moved_ignore[:, :2]).all(1)  # whatever is left of one hides unlabelled objects
    shift = np.array(origin * 2, dtype=np.float32)
    return Sample(view, moved_boxes[keep] + shift, sample.classes[keep], moved_ignore[keep_ignore] + shift)


def _warp_affine(image: Image, matrix: Matrix, view: Image) -> None:
    """The general map, which costs five times as much as a resize."""
    # Pixel centres sit at half pixels in our frame and at whole ones in opencv's: the same map, moved by half.
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2].sum(1) * 0.5 - 0.5
    grey = (PAD_COLOUR,) * 3
    size = (view.shape[1], view.shape[0])
    cv2.warpAffine(image, moved, size, dst=view, borderMode=cv2.BORDER_CONSTANT, borderValue=grey)


@dataclass(frozen=True, slots=True)
class _Span:
    """Along one axis, pixels [source, source_end) of the image go to pixels [start, end) of the view; or the other way
    round where the image is mirrored."""

    source: int
    source_end: int
    start: int
    end: int
    mirrored: bool

    def map(self) -> tuple[float, float]:
        """Scale and shift: view = scale * image + shift."""
        scale = (self.end - self.start) / (self.source_end - self.source)
        if self.mirrored:
            return -scale, self.end + scale * self.source
        return scale, self.start - scale * self.source


def _span(scale: float, shift: float, length: int, window: int) -> _Span | None:
    """The map view = scale * image + shift, rounded to whole pixels on both sides; None if nothing of it is visible."""
    begin, size = (shift, scale) if scale > 0 else (shift + scale * length, -scale)
    start, end = max(0, round(begin)), min(window, round(begin + size * length))
    if end <= start:
        return None
    # A row of which half is in the view belongs to it, so that an odd padding crops no row of a whole image.
    first = min(max(math.ceil((start - begin) / size - 0.5), 0), length - 1)
    last = min(max(math.floor((end - begin) / size + 0.5), first + 1), length)
    if scale > 0:
        return _Span(first, last, start, end, False)
    return _Span(length - last, length - first, start, end, True)


def _resize_into(image: Image, matrix: Matrix, view: Image) -> Matrix:
    """Draw an image under a map without rotation or shear: crop, resize, flip; the map as rounded to whole pixels.

    The boxes go by the map returned, so that they fit the pixels exactly.
    """
    x = _span(matrix[0, 0], matrix[0, 2], image.shape[1], view.shape[1])
    y = _span(matrix[1, 1], matrix[1, 2], image.shape[0], view.shape[0])
    if x is None or y is None:
        return matrix
    crop = image[y.source : y.source_end, x.source : x.source_end]
    drawn = cv2.resize(crop, (x.end - x.start, y.end - y.start), interpolation=cv2.INTER_LINEAR)
    if x.mirrored or y.mirrored:
        drawn = cv2.flip(drawn, -1 if x.mirrored and y.mirrored else int(x.mirrored))
    view[y.start : y.end, x.start : x.end] = drawn
    (scale_x, shift_x), (scale_y, shift_y) = x.map(), y.map()
    return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])


def _move(boxes: Boxes, matrix: Matrix, width: int, height: int) -> tuple[Boxes, NDArray[np.bool_]]:
    """Boxes (M, 4) under an affine map, hulled and clipped to the window, and which (M,) remain objects there."""
    if not len(boxes):
        return boxes, np.zeros(0, dtype=bool)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = centre @ matrix[:, :2].T + matrix[:, 2]
    half = half @ np.abs(matrix[:, :2]).T  # exact without rotation, else the hull of the turned corners
    hull = np.concatenate((centre - half, centre + half), axis=1)
    clipped = np.clip(hull, 0, (width, height) * 2)
    size = clipped[:, 2:] - clipped[:, :2]
    whole = (np.abs(hull - clipped) < ROUNDING).all(1)
    enough = (size.prod(1) >= MIN_VISIBLE * 4 * half.prod(1)) & (size >= MIN_SIDE).all(1)
    return clipped.astype(np.float32), whole | enough


def _join(image: Image, parts: Sequence[Sample]) -> Sample:
    """One sample on `image` with the truths of all parts."""
    return Sample(
        image,
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.ignore for part in parts]),
    )
