"""Pictures of findings for a page: a part of an image with its boxes, as SVG that holds a JPEG."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.data.checked import open_image
from gfldet.data.records import Finding, Record
from gfldet.errors import DataError
from gfldet.health.survey import Survey
from gfldet.ops.letterbox import resize

SIDE = 360  # px; the longer side of a picture on the page
QUALITY = 78  # of its JPEG
AROUND = 5.0  # so many times its longer side is the part of the image that shows a box
LEAST = 48.0  # px of the image that are shown at least
MAX_BOXES = 200  # of the image's other boxes

Part = tuple[float, float, float, float]  # x1, y1, x2, y2 px of the image


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a survey's images."""

    survey: Survey

    def of(self, finding: Finding) -> str:
        """The image of a finding around its box, or the two of a pair; empty if there is none to show."""
        if finding.image is None:
            return ""
        shown = [self._one(finding.image, finding)]
        if finding.other is not None:
            shown.append(self._one(finding.other, None))
        return f'<div class="pictures">{"".join(shown)}</div>' if all(shown) else ""

    def _one(self, path: Path, finding: Finding | None) -> str:
        record = self._records.get(path)
        if record is None:
            return ""
        try:
            image = open_image(record.path, bits=record.bits)
        except DataError:  # it is gone by now
            return ""
        box = finding.box if finding else None
        part = part_around(box, record.width, record.height)
        return _svg(record, box, part, _jpeg(image, part))

    @cached_property
    def _records(self) -> dict[Path, Record]:
        return {picture.record.path: picture.record for picture in self.survey.pictures}


def part_around(box: Part | None, width: int, height: int) -> Part:
    """The part of an image, whole px, that shows a box with what is around it, also where it lies outside; the whole
    image without a box."""
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    x1, y1, x2, y2 = box
    half = max(AROUND * max(x2 - x1, y2 - y1), LEAST) / 2
    middle_x, middle_y = min(max((x1 + x2) / 2, 0), width), min(max((y1 + y2) / 2, 0), height)
    return (
        float(np.floor(max(middle_x - half, 0))),
        float(np.floor(max(middle_y - half, 0))),
        float(np.ceil(min(middle_x + half, width))),
        float(np.ceil(min(middle_y + half, height))),
    )


def _jpeg(image: NDArray[np.uint8], part: Part) -> str:
    """The part of an image (H, W, 3) RGB as base64 of a JPEG of SIDE px at most."""
    x1, y1, x2, y2 = (int(value) for value in part)
    cut = np.ascontiguousarray(image[y1:y2, x1:x2])
    scale = min(SIDE / max(cut.shape[:2]), 1.0)
    small = resize(cut, max(round(scale * cut.shape[0]), 1), max(round(scale * cut.shape[1]), 1))
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(data.tobytes()).decode("ascii")


def _svg(record: Record, box: Part | None, part: Part, jpeg: str) -> str:
    x1, y1, x2, y2 = part
    width, height = x2 - x1, y2 - y1
    others = [_rect((b[0], b[1], b[2], b[3]), part) for b in record.boxes[:MAX_BOXES].tolist() if _meets(b, part)]
    it = _rect(box, part, ' class="it"') if box is not None else ""
    name = escape(record.file_name)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{name}"><title>{name}</title>'
        f'<image href="data:image/jpeg;base64,{jpeg}" width="{width:g}" height="{height:g}" '
        f'preserveAspectRatio="none"/>{"".join(others)}{it}</svg>'
    )


def _meets(box: list[float], part: Part) -> bool:
    return box[0] < part[2] and box[1] < part[3] and box[2] > part[0] and box[3] > part[1]


def _rect(box: Part, part: Part, more: str = "") -> str:
    x, y, w, h = box[0] - part[0], box[1] - part[1], box[2] - box[0], box[3] - box[1]
    return f'<rect{more} x="{x:.2f}" y="{y:.2f}" width="{max(w, 0):.2f}" height="{max(h, 0):.2f}"/>'
