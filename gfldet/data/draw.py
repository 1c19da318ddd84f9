"""What is drawn by lot for a training sample, before anything is done to a pixel: a record to print, keep and replay.

`draw` takes a fixed number of uniform numbers whatever the strengths are, each with a place of its own.  So a strength
that is changed or switched off changes nothing else: with another `hsv_h` the same images stand in the same mosaic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strong each change is; 0 switches it off.  Names and units are those of the settings."""

    mosaic: float = 1.0
    mixup: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5

    def without_mosaic(self) -> Augmentation:
        """The same without mosaic and mixup: for the last part of a run, so that it ends on images as they are."""
        return replace(self, mosaic=0.0, mixup=0.0)


NO_AUGMENTATION = Augmentation(**dict.fromkeys(Augmentation.__slots__, 0.0))


@dataclass(frozen=True, slots=True)
class Placed:
    """One source image in the frame.

    image     its number, for whoever has the images
    scale     factor on the size at which it fits the frame
    degrees   rotation;  shear  (x, y), degrees;  mirrored, flipped  left to right, upside down
    shift     (x, y): of a single image shares of the frame's sides by which it is moved off the centre; in a mosaic the
              share, 0 to 1, of what does not fit its quarter that lies before the quarter's left and upper edge
    """

    image: int
    scale: float = 1.0
    degrees: float = 0.0
    shear: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False
    flipped: bool = False
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Layout:
    """A frame of one image, or of four around `centre` (shares of the frame's width and height): upper left, upper
    right, lower left, lower right."""

    images: tuple[Placed, ...]
    centre: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Colour:
    """Hue turned by `hue` radians, saturation and value multiplied."""

    hue: float = 0.0
    saturation: float = 1.0
    value: float = 1.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """All that is drawn for one sample.  With mixup, `layout` makes up `share` of the picture and `other` the rest."""

    layout: Layout
    other: Layout | None = None
    share: float = 1.0
    colour: Colour | None = None


# How many uniform numbers each part takes.
_IMAGE, _COLOUR = 9, 3
_LAYOUT = 3 + 4 * _IMAGE
_ALL = 1 + 2 * (1 + _LAYOUT) + _COLOUR


def draw(
    first: int,
    images: int,
    strengths: Augmentation,
    rng: np.random.Generator,
    ends: NDArray[np.float64] | None = None,
) -> Drawn:
    """What happens to image number `first` of `images`, and which others join it in a mosaic or by mixup.

    `ends` (images,) are the running sums of what each image weighs in the choice of the others (its repeat factor);
    None: all weigh the same.
    """

    def pick(lot: float) -> int:
        """The number of an image, for a uniform number from 0 to 1."""
        if ends is None:
            return int(lot * images)
        return min(int(np.searchsorted(ends, lot * ends[-1], side="right")), images - 1)

    lots = rng.random(_ALL).tolist()
    share = float(rng.beta(8.0, 8.0))  # last: it takes a varying number of random bits
    mixes, second, *rest = lots
    one, two, colour = rest[:_LAYOUT], rest[1 + _LAYOUT : 1 + 2 * _LAYOUT], rest[-_COLOUR:]
    mixed = mixes < strengths.mixup
    return Drawn(
        _layout(first, pick, strengths, one),
        _layout(pick(second), pick, strengths, two) if mixed else None,
        share if mixed else 1.0,
        _colour(strengths, colour),
    )


def _layout(first: int, pick: Callable[[float], int], strengths: Augmentation, lots: list[float]) -> Layout:
    """One frame; the first image stands alone, or upper left in a mosaic."""
    chance, x, y = lots[:3]
    own = [lots[3 + i * _IMAGE : 3 + (i + 1) * _IMAGE] for i in range(4)]
    if chance < strengths.mosaic:
        numbers = [first, *(pick(lot[0]) for lot in own[1:])]
        placed = tuple(_placed(n, strengths, lot, in_mosaic=True) for n, lot in zip(numbers, own, strict=True))
        return Layout(placed, (0.2 + 0.6 * x, 0.2 + 0.6 * y))
    return Layout((_placed(first, strengths, own[0], in_mosaic=False),))


def _placed(image: int, strengths: Augmentation, lots: list[float], in_mosaic: bool) -> Placed:
    _, scale, degrees, shear_x, shear_y, mirrored, flipped, x, y = lots
    reach = strengths.translate
    return Placed(
        image,
        scale=1 + strengths.scale * (2 * scale - 1),
        degrees=strengths.degrees * (2 * degrees - 1),
        shear=(strengths.shear * (2 * shear_x - 1), strengths.shear * (2 * shear_y - 1)),
        mirrored=mirrored < strengths.fliplr,
        flipped=flipped < strengths.flipud,
        shift=(x, y) if in_mosaic else (reach * (2 * x - 1), reach * (2 * y - 1)),
    )


def _colour(strengths: Augmentation, lots: list[float]) -> Colour | None:
    """The change of colours; None where all of it is off."""
    if not (strengths.hsv_h or strengths.hsv_s or strengths.hsv_v):
        return None
    hue, saturation, value = (2 * lot - 1 for lot in lots)
    return Colour(2 * math.pi * strengths.hsv_h * hue, 1 + strengths.hsv_s * saturation, 1 + strengths.hsv_v * value)
