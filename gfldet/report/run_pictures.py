"""The gallery of a validation: each error with its picture, the truth and the detection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split
from gfldet.errors import DataError
from gfldet.metrics.matching import pairwise_iou
from gfldet.metrics.table import Floats
from gfldet.report.cutouts import Part, cutout, meets, part_around, rect
from gfldet.report.document import safe
from gfldet.report.examples import Example, Mistakes
from gfldet.report.run_tables import name_of

AROUND = 2.5  # so many times the longer side of the boxes is the part of the image that is shown
MAX_BOXES = 60  # of the image's other truths and detections each


@dataclass(frozen=True, eq=False)
class Gallery:
    """The errors that can be shown as HTML, and the names of the images that cannot be read any more."""

    cards: dict[Example, str]
    unreadable: tuple[str, ...]


def make_gallery(mistakes: Mistakes, split: Split, store: ImageStore) -> Gallery:
    """Every example as HTML.  Each image is taken from the store once, and none is kept."""
    of_image: dict[int, list[Example]] = defaultdict(list)
    for examples in mistakes.examples.values():
        for example in examples:
            of_image[example.image].append(example)
    cards, unreadable = {}, []
    for number, of_one in sorted(of_image.items()):
        record = split.records[number]
        try:
            image = store.get(record)
        except DataError:  # it is gone by now, or another file
            unreadable.append(record.file_name)
            continue
        boxes = _Boxes.of(mistakes, record, number, image.shape[:2])
        for example in of_one:
            part, drawn = boxes.drawn(example)
            cards[example] = _card(mistakes, example, cutout(image, part, record.file_name, drawn), split.names, record)
    return Gallery(cards, tuple(unreadable))


@dataclass(frozen=True, eq=False)
class _Boxes:
    """The truths and the sure detections of an image as it is in the store: rows in the tables, and xyxy px."""

    mistakes: Mistakes
    scale: Floats
    size: tuple[int, ...]
    truths: range
    found: list[int]

    @classmethod
    def of(cls, mistakes: Mistakes, record: Record, number: int, size: tuple[int, ...]) -> _Boxes:
        scale = np.array([size[1] / record.width, size[0] / record.height] * 2)
        first, last = mistakes.truths.start[number : number + 2].tolist()
        found = mistakes.sure[mistakes.detections.image[mistakes.sure] == number]
        return cls(mistakes, scale, size, range(first, last), found.tolist())

    def drawn(self, example: Example) -> tuple[Part, str]:
        """The part of the image that shows an example, and its boxes as SVG, those that it is about on top."""
        about = [self._truth(example.truth)] if example.truth >= 0 else []
        about += [self._found(example.found)] if example.found >= 0 else []
        corners = np.array(about)
        (x1, y1), (x2, y2) = corners[:, :2].min(axis=0).tolist(), corners[:, 2:].max(axis=0).tolist()
        part = part_around((x1, y1, x2, y2), self.size[1], self.size[0], AROUND)
        other_truths = [row for row in self.truths if row != example.truth][:MAX_BOXES]
        other_found = [row for row in self.found if row != example.found][:MAX_BOXES]
        boxes = [rect(box, part, "truth other") for box in map(self._truth, other_truths) if meets(box, part)]
        boxes += [rect(box, part, "found other") for box in map(self._found, other_found) if meets(box, part)]
        for kind, row, box_of in (("truth", example.truth, self._truth), ("found", example.found, self._found)):
            if row >= 0:
                boxes += [rect(box_of(row), part, "halo"), rect(box_of(row), part, kind)]
        return part, "".join(boxes)

    def _truth(self, row: int) -> Part:
        return self._scaled(self.mistakes.truths.boxes[row])

    def _found(self, row: int) -> Part:
        x, y, w, h = self.mistakes.detections.boxes[row]
        return self._scaled(np.array([x, y, x + w, y + h]))

    def _scaled(self, box: Floats) -> Part:
        x1, y1, x2, y2 = (box * self.scale).tolist()
        return x1, y1, x2, y2


def _card(mistakes: Mistakes, example: Example, picture: str, names: Sequence[str], record: Record) -> str:
    detections = mistakes.detections
    score = float(detections.scores[example.found]) if example.found >= 0 else 0.0
    classes = " ".join(map(str, mistakes.classes(example)))
    return (
        f'<figure data-kind="{example.kind}" data-classes="{classes}" data-score="{score:.6f}">'
        f'<div class="pictures">{picture}</div><figcaption>{_told(mistakes, example, names, score)}'
        f"<small>{safe(record.file_name, 80)}</small></figcaption></figure>"
    )


def _told(mistakes: Mistakes, example: Example, names: Sequence[str], score: float) -> str:
    """What happened, in a line."""
    truth = f"<b>{name_of(names[mistakes.truths.classes[example.truth]])}</b>" if example.truth >= 0 else ""
    if example.found < 0:
        return f"{truth}, no detection"
    if example.kind == "Miss":
        return f"{truth} found at <b>{score:.2f}</b> only"
    found = f"<b>{name_of(names[mistakes.detections.classes[example.found]])} {score:.2f}</b>"
    if example.kind == "Bkg":
        return f"{found} on background"
    corners = mistakes.detections.take(np.array([example.found])).corners()
    iou = pairwise_iou(corners, mistakes.truths.boxes[[example.truth]])[0, 0]
    about = f" on {truth}" if example.kind in ("Cls", "Both") else ""
    return f"{found}{about}, IoU {iou:.2f}"
