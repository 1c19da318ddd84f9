"""Parts of images with boxes on them, as SVG that holds a JPEG, for pages."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.ops.letterbox import resize
from gfldet.report.document import safe

SIDE = 360  # px; the longer side of a picture on a page
QUALITY = 78  # of its JPEG
AROUND = 5.0  # so many times its longer side is the part of the image that shows a box
LEAST = 48.0  # px of the image that are shown at least

Part = tuple[float, float, float, float]  # x1, y1, x2, y2 px of the image


def part_around(box: Part | None, width: int, height: int, around: float = AROUND) -> Part:
    """The part of an image, whole px, that shows a box with what is around it, also where it lies outside: a square, so
    far as the image has room for it.  The whole image without a box."""
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    x1, y1, x2, y2 = box
    side = max(around * max(x2 - x1, y2 - y1), LEAST)
    left, right = _span((x1 + x2) / 2, side, width)
    top, bottom = _span((y1 + y2) / 2, side, height)
    return left, top, right, bottom


def _span(middle: float, side: float, size: int) -> tuple[float, float]:
    """From where to where a side of this length lies in an image of this size, as near to `middle` as there is room."""
    low = float(np.floor(min(max(middle - side / 2, 0), max(size - side, 0))))
    return low, float(min(np.ceil(low + side), size))


def cutout(image: NDArray[np.uint8], part: Part, name: str, boxes: str) -> str:
    """The part of an image (H, W, 3) RGB as SVG, with a JPEG of SIDE px at most; `boxes` are those of `rect`."""
    width, height = part[2] - part[0], part[3] - part[1]
    name = safe(name)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{name}"><title>{name}</title>'
        f'<image href="data:image/jpeg;base64,{_jpeg(image, part)}" width="{width:g}" height="{height:g}" '
        f'preserveAspectRatio="none"/>{boxes}</svg>'
    )


def _jpeg(image: NDArray[np.uint8], part: Part) -> str:
    x1, y1, x2, y2 = (int(value) for value in part)
    cut = np.ascontiguousarray(image[y1:y2, x1:x2])
    scale = min(SIDE / max(cut.shape[:2]), 1.0)
    small = resize(cut, max(round(scale * cut.shape[0]), 1), max(round(scale * cut.shape[1]), 1))
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(data.tobytes()).decode("ascii")


def meets(box: Part, part: Part) -> bool:
    """Whether some of the box lies in the part."""
    return box[0] < part[2] and box[1] < part[3] and box[2] > part[0] and box[3] > part[1]


def rect(box: Part, part: Part, kind: str = "") -> str:
    """A box of the image on its part; `kind` is its class in the style."""
    x, y, w, h = box[0] - part[0], box[1] - part[1], box[2] - box[0], box[3] - box[1]
    of_kind = f' class="{kind}"' if kind else ""
    return f'<rect{of_kind} x="{x:.2f}" y="{y:.2f}" width="{max(w, 0):.2f}" height="{max(h, 0):.2f}"/>'
