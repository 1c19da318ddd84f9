"""The letterboxed batches of a validation; numpy only, no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfldet.data.image_store import ImageStore
from gfldet.data.records import Record, Split
from gfldet.ops import letterbox
from gfldet.ops.letterbox import PAD_COLOUR, Letterbox
from gfldet.ops.tiles import Tiles

EvalKey = tuple["tuple[int, int] | None", tuple[int, ...]]  # frame and image numbers of a batch; None: to be cut


@dataclass(frozen=True, slots=True, eq=False)
class EvalBatch:
    """A batch to predict on: images (B, H, W, 3) uint8, their records, and how each image lies in the frame.

    An image that is to be cut into tiles is alone in its batch, at its own size.
    """

    images: NDArray[np.uint8]
    records: tuple[Record, ...]
    boxes: tuple[Letterbox, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EvalSet:
    """Validation images, letterboxed without augmentation.

    With `rect`, every image has the smallest frame that holds it (the sides are multiples of `stride`), and images
    with the same frame share a batch, so that little time goes into padding.  Without `rect`, every frame is `size`
    (height, width).  `pad_colour` is the grey value of the padding.  With `tiles`, each image that these cut is a batch
    of its own.
    """

    split: Split
    store: ImageStore
    size: tuple[int, int]
    batch: int
    stride: int
    rect: bool = True
    pad_colour: int = PAD_COLOUR
    tiles: Tiles | None = None

    def keys(self) -> list[EvalKey]:
        """(frame, image numbers) of each batch; those that are to be cut come last."""
        groups: dict[tuple[int, int], list[int]] = {}
        alone: list[EvalKey] = []
        for number, (width, height) in enumerate(self.split.records.sizes.tolist()):
            if self.tiles is not None and self.tiles.cut(height, width):
                alone.append((None, (number,)))
                continue
            frame = letterbox.rectangle(height, width, self.size, self.stride) if self.rect else self.size
            groups.setdefault(frame, []).append(number)
        batches: list[EvalKey] = [
            (frame, tuple(numbers[start : start + self.batch]))
            for frame, numbers in groups.items()
            for start in range(0, len(numbers), self.batch)
        ]
        return batches + alone

    def load(self, key: EvalKey) -> EvalBatch:
        frame, numbers = key
        records = tuple(self.split.records[number] for number in numbers)
        if frame is None:
            (record,) = records
            own = record.height, record.width
            return EvalBatch(self.store.get(record)[None], records, (letterbox.fit(*own, own),))
        boxes = tuple(letterbox.fit(record.height, record.width, frame) for record in records)
        images = [letterbox.apply(self.store.get(r), b, self.pad_colour) for r, b in zip(records, boxes, strict=True)]
        return EvalBatch(np.stack(images), records, boxes)
