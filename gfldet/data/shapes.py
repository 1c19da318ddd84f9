"""The built-in data sets: overlapping shapes on textured backgrounds.  Code draws them; no file is read or written.

`shapes` is for a first try.  The others are hard for detectors: `shapes-small` has objects of 4 to 16 px,
`shapes-dense` has 300 objects per image, objects of `shapes-thin` are ten times as long as wide, and objects of
`shapes-huge` are as large as the image.

An image depends only on (variant, split, number): its own random generator gives first the layout, then the pixels.
The labels need only the layout.  Boxes are amodal: a box is tight around the whole outline of a shape, even where
another shape covers it, and is cut at the image's border.  One shape's box covers at most `Variant.hidden` of another
shape's box.  Colours, fills and angles say nothing about the class.  Lines and blurred spots between the shapes are
not truths.

Images have virtual paths such as `shapes:/val/000012.png`; `read` draws them.  To add a set, add an entry to
`VARIANTS`.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.data.formats import Index, Item, Labels
from gfldet.data.located import Located
from gfldet.errors import DataError


@dataclass(frozen=True)
class Variant:
    """What a set looks like; lengths in px."""

    names: tuple[str, ...] = ("circle", "square", "triangle", "star")
    seed: int = 0
    size: int = 320  # height and width of an image
    images: tuple[tuple[str, int], ...] = (("train", 160), ("val", 40))
    objects: tuple[int, int] = (2, 7)  # smallest and largest number of objects in an image
    radius: tuple[float, float] = (22.0, 76.0)  # of the circle around a shape; log-uniform
    turn: float = math.radians(25)  # largest rotation in both directions
    hidden: float = 0.4  # largest share of a shape's box that another box may cover
    inside: float = 0.4  # smallest distance of a centre from the border, as a share of the radius
    aspect: float = 1.0  # every shape is stretched to this length over width, along x or along y


VARIANTS = {
    "shapes": Variant(),
    "shapes-small": Variant(seed=1, objects=(8, 24), radius=(2.4, 7.5), hidden=0.1, inside=1.0),
    "shapes-dense": Variant(
        seed=2, images=(("train", 80), ("val", 20)), objects=(300, 300), radius=(4.0, 9.0), hidden=0.5, inside=0.8
    ),
    "shapes-thin": Variant(seed=3, radius=(10.0, 30.0), turn=math.radians(1), hidden=0.3, inside=1.0, aspect=10.0),
    "shapes-huge": Variant(seed=4, objects=(1, 1), radius=(200.0, 230.0), turn=math.radians(10), inside=0.69),
}


@dataclass(frozen=True)
class Figure:
    """One shape: its class, and its outline as (P, 2) float32 points in px."""

    cls: int
    outline: NDArray[np.float32]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Tight xyxy around the whole outline, px, not cut at the border."""
        x1, y1 = self.outline.min(axis=0).tolist()
        x2, y2 = self.outline.max(axis=0).tolist()
        return x1, y1, x2, y2


def index(name: str, split: str) -> Index:
    """The images of a split of a built-in set, with their labels."""
    count = dict(VARIANTS[name].images)[split]
    items = []
    for number in range(count):
        path = Path(f"{name}:") / split / f"{number:06d}.png"
        items.append(Item(path, path.name, number, partial(_labels, path)))
    return Index(items)


def is_virtual(path: str | Path) -> bool:
    """Whether a path belongs to a built-in set rather than to the disk."""
    first = Path(path).parts[:1]
    return bool(first) and first[0].endswith(":") and first[0][:-1] in VARIANTS


def size(path: str | Path) -> tuple[int, int]:
    """(width, height) in px of the image of a virtual path, which need not exist."""
    side = VARIANTS[Path(path).parts[0].removesuffix(":")].size
    return side, side


def read(path: str | Path) -> NDArray[np.uint8]:
    """Draws the image of a virtual path: (H, W, 3) uint8 RGB.  The same path always gives the same pixels."""
    variant, rng = _open(path)
    figures = layout(variant, rng)
    return draw(variant, figures, rng)


def _open(path: str | Path) -> tuple[Variant, np.random.Generator]:
    parts = Path(path).parts
    try:
        variant = VARIANTS[parts[0].removesuffix(":")]
        splits = [split for split, _ in variant.images]
        seed = [variant.seed, splits.index(parts[1]), int(Path(parts[2]).stem)]
        return variant, np.random.default_rng(seed)
    except (KeyError, ValueError, IndexError):
        raise DataError(f"{path}: is not an image of a built-in set; expected e.g. shapes:/val/000012.png") from None


def _labels(path: Path) -> Labels:
    variant, rng = _open(path)
    labels = Labels()
    for position, figure in enumerate(layout(variant, rng)):
        x1, y1, x2, y2 = figure.box
        size = float(variant.size)
        cut = (max(x1, 0.0), max(y1, 0.0), min(x2, size), min(y2, size))  # on purpose, so it needs no warning
        labels.add(cut, figure.cls, Located(f"{path.as_posix()}:{position}"))
    return labels


# ---------------------------------------------------------------- layout


def layout(variant: Variant, rng: np.random.Generator) -> list[Figure]:
    """The shapes of one image in the order of drawing."""
    wanted = int(rng.integers(variant.objects[0], variant.objects[1] + 1))
    figures: list[Figure] = []
    boxes = np.zeros((wanted, 4))
    for _ in range(20 * wanted):  # try again where a shape would cover too much of another
        if len(figures) == wanted:
            break
        cls = int(rng.integers(len(variant.names)))
        low, high = np.log(variant.radius)
        radius = math.exp(rng.uniform(low, high))
        centre = rng.uniform(variant.inside * radius, variant.size - variant.inside * radius, 2)
        figure = Figure(cls, _outline(variant, cls, radius, centre, rng))
        if (_covered(np.array(figure.box), boxes[: len(figures)]) <= variant.hidden).all():
            boxes[len(figures)] = figure.box
            figures.append(figure)
    return figures


def _outline(
    variant: Variant, cls: int, radius: float, centre: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    name = variant.names[cls]
    corners = {"circle": 64, "square": 4, "triangle": 3, "star": 10}[name]
    start = 0.5 if name == "square" else 0.0  # a square stands on a side
    angles = (np.arange(corners) + start) * (2 * math.pi / corners)
    reach = np.where(np.arange(corners) % 2 == 1, 0.45, 1.0) if name == "star" else np.ones(corners)
    points = np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
    if name != "circle":  # a stretched circle is not a circle
        points *= rng.uniform(0.85, 1.15, 2)
    if variant.aspect != 1:
        longer = math.sqrt(variant.aspect)
        points *= (longer, 1 / longer) if rng.random() < 0.5 else (1 / longer, longer)
    turn = rng.uniform(-variant.turn, variant.turn) - math.pi / 2  # without a turn, one corner points up
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return (radius * points @ rotation.T + centre).astype(np.float32)


def _covered(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection (M,) of a box (4,) with others (M, 4), all xyxy, as a share of the smaller of the two."""
    size = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    mine, theirs = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(1)
    share: NDArray[np.float64] = size.clip(min=0).prod(1) / np.minimum(mine, theirs)
    return share


# ---------------------------------------------------------------- pixels


def draw(variant: Variant, figures: list[Figure], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture of a layout: background, clutter, shapes, sensor noise."""
    image = _background(variant.size, rng)
    _clutter(image, rng)
    for figure in figures:
        _paint(image, figure, rng)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 1.2))).astype(np.float32)
    noise = rng.standard_normal(image.shape[:2], np.float32) * np.float32(rng.uniform(2, 9))
    image += cv2.merge([noise] * 3)  # adding three equal planes is several times faster than broadcasting
    return cv2.convertScaleAbs(np.maximum(image, 0, out=image)).astype(np.uint8, copy=False)


def _colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> NDArray[np.float32]:
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, np.float32) * 255


def _background(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The background: two colours mixed by smooth noise, with a fine weave and grain over it."""
    first, second = _colour(rng, (0.05, 0.5), (0.25, 0.95)), _colour(rng, (0.05, 0.5), (0.25, 0.95))
    coarse = rng.random((int(rng.integers(3, 9)),) * 2, np.float32)
    mix = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    pitch, angle = rng.uniform(4, 14), rng.uniform(0, math.pi)
    weave = np.sin(_along(size, size, angle) * np.float32(2 * math.pi / pitch))
    grain = cv2.resize(rng.standard_normal((size // 2, size // 2), np.float32), (size, size))
    texture = np.float32(rng.uniform(0, 9)) * weave + np.float32(rng.uniform(0, 9)) * grain
    return cv2.merge([b + (a - b) * mix + texture for a, b in zip(first, second, strict=True)])


def _along(height: int, width: int, angle: float) -> NDArray[np.float32]:
    """(height, width) positions of the pixels along a direction, px."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return x * np.float32(math.cos(angle)) + (y * np.float32(math.sin(angle)))[:, None]


def _clutter(image: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Draws lines and blurred spots; a detector must not find them."""
    size = len(image)
    for _ in range(int(rng.integers(0, 7))):
        a, b = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(image, a, b, _colour(rng, (0, 0.9), (0.1, 1)).tolist(), int(rng.integers(1, 4)), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 5))):
        axes = rng.integers(6, 40, 2).tolist()
        x, y = rng.integers(0, size, 2).tolist()
        spot = np.zeros((110, 110), np.float32)
        cv2.ellipse(spot, (55, 55), axes, float(rng.uniform(0, 180)), 0, 360, 0.7, -1)
        spot = np.asarray(cv2.blur(spot, (31, 31)), np.float32)
        part = image[max(y - 55, 0) : y + 55, max(x - 55, 0) : x + 55]
        top, left = max(55 - y, 0), max(55 - x, 0)
        cover = spot[top : top + part.shape[0], left : left + part.shape[1]]
        _blend(part, cover, _colour(rng, (0.1, 0.9), (0.1, 1)))


def _blend(part: NDArray[np.float32], cover: NDArray[np.float32], colour: NDArray[np.float32]) -> None:
    """Blends a colour, (3,) or (H, W, 3), into part of an image with the weights `cover` (H, W), 0 to 1."""
    part += cv2.merge([cover] * 3) * (colour - part)


def _paint(image: NDArray[np.float32], figure: Figure, rng: np.random.Generator) -> None:
    """Paints a soft shadow, then the shape with its own fill, on the part of the image that the shape touches."""
    size = len(image)
    x1, y1, x2, y2 = figure.box
    left, top = max(int(x1) - 12, 0), max(int(y1) - 12, 0)
    part = image[top : min(int(y2) + 14, size), left : min(int(x2) + 14, size)]
    mask = np.zeros(part.shape[:2], np.uint8)
    corners = np.round((figure.outline - (left, top) - 0.5) * 16).astype(np.int32)  # edges -> pixel centres, 1/16 px
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, shift=4)
    cover = mask.astype(np.float32) * np.float32(1 / 255)
    shift = np.array([[1, 0, 3], [0, 1, 3]], np.float32)
    shadow = cv2.blur(cv2.warpAffine(mask, shift, mask.shape[::-1]), (9, 9)) * np.float32(0.35 / 255)
    _blend(part, shadow, np.zeros(3, np.float32))
    _blend(part, cover, _fill(part, cover, rng))


def _fill(part: NDArray[np.float32], cover: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A colour that differs clearly from the pixels below, shaded from one side; sometimes with stripes."""
    below = np.array(cv2.mean(part, (cover > 0.5).astype(np.uint8))[:3], np.float32)
    colour = _colour(rng, (0.2, 1), (0.2, 1))
    for _ in range(20):
        if np.linalg.norm(colour - below) >= 70:
            break
        colour = _colour(rng, (0.2, 1), (0.2, 1))
    along = _along(cover.shape[0], cover.shape[1], rng.uniform(0, 2 * math.pi))
    shade = 1 + rng.uniform(0, 0.35) * ((along - along.mean()) / (np.ptp(along) / 2))
    if rng.random() < 0.3:
        shade = shade + rng.uniform(0.08, 0.25) * np.sign(np.sin(along * (2 * math.pi / rng.uniform(6, 18))))
    return cv2.merge([shade.astype(np.float32) * channel for channel in colour])
