"""Boxes and their labels on an image, readable at any size and by colour-blind people.

Images are (H, W, 3) uint8 RGB, as everywhere in gfldet; boxes (D, 4) xyxy in pixels of that image.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

# The eight colours of Okabe and Ito ("Color Universal Design", 2008), without black, which is hard to see on photos.
# People with any common kind of colour blindness can distinguish them.  `class_colour` adds darker and lighter ones.
_BASE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CROWDED = 40  # with more boxes than this in an image, lines and letters are thinner


def class_colour(index: int) -> Colour:
    """RGB of a class: 7 hues, then the same hues darker, then lighter; colours repeat after 21 classes."""
    red, green, blue = _BASE[index % len(_BASE)]
    shade = (index // len(_BASE)) % 3
    if shade == 1:
        return red * 6 // 10, green * 6 // 10, blue * 6 // 10
    if shade == 2:
        return 127 + red // 2, 127 + green // 2, 127 + blue // 2
    return red, green, blue


def text_colour(background: Colour) -> Colour:
    """Black or white: the one with more contrast to the background (WCAG relative luminance)."""
    linear = [(v / 255) ** 2.2 for v in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.18 else (255, 255, 255)


def default_line_width(height: int, width: int, boxes: int) -> int:
    """About 1 / 300 of the image's size in px, half of that if there are many boxes; at least 1."""
    line = (height + width) / 600
    return max(1, round(line / 2 if boxes > _CROWDED else line))


def draw_boxes(
    image: Image,
    boxes: ArrayLike,
    classes: ArrayLike,
    labels: Sequence[str] | None = None,
    line_width: int | None = None,
    letters: float | None = None,
) -> None:
    """Draws boxes into the image, in place; the first box lies on top (detections are sorted by falling score).

    labels      a text for each box; None: no labels
    line_width  px; None: depends on the image's size and the number of boxes
    letters     OpenCV font scale (1 is about 22 px high); None: depends on the line width
    """
    height, width = image.shape[:2]
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    colours = [class_colour(int(c)) for c in np.asarray(classes).reshape(-1)]
    line = line_width if line_width else default_line_width(height, width, len(corners))
    limit = np.array([width, height, width, height]) - 1
    rounded: list[list[int]] = np.rint(np.clip(corners, 0, limit)).astype(int).tolist()
    for (x1, y1, x2, y2), colour in reversed(list(zip(rounded, colours, strict=True))):
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, line)  # not antialiased: crisp on pixels
    if labels is None:
        return
    scale = letters if letters else letter_scale(line)
    sizes = [_strip_size(label, scale) for label in labels]
    places = _place_labels(rounded, sizes, (width, height), line)
    for place, size, label, colour in reversed(list(zip(places, sizes, labels, colours, strict=True))):
        _draw_strip(image, place, size, label, colour, scale)


def draw_caption(strip: Image, text: str) -> None:
    """Draws a line of black text into a blank strip (H, W, 3), in place; ".." replaces the middle of a long text."""
    scale, weight, text = 0.45, 1, drawable(text)
    shown, half = text, len(text) // 2
    while half > 0 and cv2.getTextSize(shown, _FONT, scale, weight)[0][0] > strip.shape[1] - 4:
        shown, half = f"{text[:half]}..{text[-half:]}", half - 1
    cv2.putText(strip, shown, (2, strip.shape[0] - 7), _FONT, scale, (0, 0, 0), weight, cv2.LINE_AA)


def letter_scale(line_width: int) -> float:
    """OpenCV font scale for a line width; .4 is the smallest readable scale."""
    return max(0.4, 0.15 + line_width * 0.2)


def drawable(text: str) -> str:
    """The text as OpenCV can draw it: version 5 draws Unicode; before it, accents are dropped, the rest becomes "?"."""
    if text.isascii() or int(cv2.__version__.split(".")[0]) >= 5:
        return text
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def _weight(scale: float) -> int:
    return max(1, round(scale * 1.4))


def _strip_size(label: str, scale: float) -> tuple[int, int, int]:
    """Width and height of the filled strip behind a label, and the margin inside it, px."""
    (width, height), below = cv2.getTextSize(drawable(label), _FONT, scale, _weight(scale))
    margin = max(2, round(scale * 4))
    return width + 2 * margin, height + below // 2 + 2 * margin, margin


def _place_labels(
    boxes: list[list[int]], sizes: list[tuple[int, int, int]], image_size: tuple[int, int], line: int
) -> list[tuple[int, int]]:
    """Upper left corner of each label's strip; the whole strip lies inside the image.

    The order of the candidates: above the box, inside its top, below it; each first flush left, then flush right.
    The first candidate that covers no earlier label is used, else the one that covers the fewest pixels of them.
    """
    taken = np.zeros((len(boxes), 4), np.int64)
    for i, ((x1, y1, x2, y2), (width, height, _)) in enumerate(zip(boxes, sizes, strict=True)):
        half = line // 2
        lefts = x1 - half, x2 + half + 1 - width
        tops = y1 - half - height, y1 - half, y2 + half + 1
        candidates = np.array([(left, top) for top in tops for left in lefts])
        candidates = np.clip(candidates, 0, np.maximum(np.array(image_size) - (width, height), 0))
        strips = np.concatenate([candidates, candidates + np.array([width, height])], axis=1)
        taken[i] = strips[_covered(strips, taken[:i]).argmin()]  # the first of equal ones
    return [(left, top) for left, top, _, _ in taken.tolist()]


def _covered(strips: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """(S,) number of pixels of each strip (S, 4) that the earlier strips `taken` (P, 4) cover."""
    low = np.maximum(strips[:, None, :2], taken[None, :, :2])
    high = np.minimum(strips[:, None, 2:], taken[None, :, 2:])
    covered: NDArray[np.int64] = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
    return covered


def _draw_strip(
    image: Image, place: tuple[int, int], size: tuple[int, int, int], label: str, colour: Colour, scale: float
) -> None:
    left, top = place
    width, height, margin = size
    text, weight = drawable(label), _weight(scale)
    cv2.rectangle(image, place, (left + width - 1, top + height - 1), colour, cv2.FILLED)
    (_, letters), _ = cv2.getTextSize(text, _FONT, scale, weight)
    origin = (left + margin, top + margin + letters)
    cv2.putText(image, text, origin, _FONT, scale, text_colour(colour), weight, cv2.LINE_AA)
