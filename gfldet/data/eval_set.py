"""The letterboxed batches of a validation; numpy only, no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split
from gfldet.ops import letterbox
from gfldet.ops.letterbox import PAD_COLOUR, Letterbox

EvalKey = tuple[tuple[int, int], tuple[int, ...]]  # the frame and the image numbers of a batch


@dataclass(frozen=True, slots=True, eq=False)
class EvalBatch:
    """A batch to predict on: images (B, H, W, 3) uint8, their records, and how each image lies in the frame."""

    images: NDArray[np.uint8]
    records: tuple[Record, ...]
    boxes: tuple[Letterbox, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EvalSet:
    """Validation images, letterboxed without augmentation.

    With `rect`, every image has the smallest frame that holds it (the sides are multiples of `stride`), and images
    with the same frame share a batch, so that little time goes into padding.  Without `rect`, every frame is `size`
    (height, width).  `pad_colour` is the grey value of the padding.
    """

    split: Split
    store: ImageStore
    size: tuple[int, int]
    batch: int
    stride: int
    rect: bool = True
    pad_colour: int = PAD_COLOUR

    def keys(self) -> list[EvalKey]:
        """(frame, image numbers) of each batch."""
        groups: dict[tuple[int, int], list[int]] = {}
        for number, record in enumerate(self.split.records):
            frame = letterbox.rectangle(record.height, record.width, self.size, self.stride) if self.rect else self.size
            groups.setdefault(frame, []).append(number)
        return [
            (frame, tuple(numbers[start : start + self.batch]))
            for frame, numbers in groups.items()
            for start in range(0, len(numbers), self.batch)
        ]

    def load(self, key: EvalKey) -> EvalBatch:
        frame, numbers = key
        records = tuple(self.split.records[number] for number in numbers)
        boxes = tuple(letterbox.fit(record.height, record.width, frame) for record in records)
        images = [letterbox.apply(self.store.get(r), b, self.pad_colour) for r, b in zip(records, boxes, strict=True)]
        return EvalBatch(np.stack(images), records, boxes)
