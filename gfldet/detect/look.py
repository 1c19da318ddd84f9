"""How a detector looks at images: whole in their frames, or at large ones tile by tile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gfldet.detect.detector import Detector, Selection
from gfldet.ops import letterbox
from gfldet.ops.detections import Detections
from gfldet.ops.letterbox import Letterbox
from gfldet.ops.tiles import MARGIN, Tiles, Window, in_picture

STEPS = ("preprocess", "inference", "postprocess")


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A detector with the rule that selects its detections, and the time that its steps have taken so far.

    Images are fitted to `size` (height, width); with `rect` they are padded only to multiples of `detector.multiple`.
    `classes` (numbers) keeps only these classes.
    """

    detector: Detector
    size: tuple[int, int]
    selection: Selection
    classes: tuple[int, ...] | None = None
    rect: bool = True
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))

    def at(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """What is in images (H, W, 3) uint8 RGB of one size, which are one batch; boxes in their px."""
        return self._at(images, self._framed(*images[0].shape[:2]))

    def at_tiles(self, image: NDArray[np.uint8], tiles: Tiles, batch: int) -> Detections:
        """What is in an image that `tiles` cut, found in its tiles, `batch` at a time, and in the whole if they say so.

        At any moment the image, one batch and the detections are in memory.
        """
        grid = tiles.grid(*image.shape[:2])
        windows, box = grid.windows, self._framed(grid.height, grid.width)
        found: list[Detections] = []
        for start in range(0, len(windows), batch):
            some = windows[start : start + batch]
            seen = self._at([window.of(image) for window in some], box)
            found += [_moved(one, window) for one, window in zip(seen, some, strict=True)]
        whole = self.at([image])[0] if tiles.whole else None
        began = time.perf_counter()
        selection, margin = self.selection, MARGIN / min(box.scale_x, box.scale_y)
        joined = in_picture(found, grid, whole, most=selection.max_det, agnostic=selection.agnostic, margin=margin)
        self.seconds["postprocess"] += time.perf_counter() - began
        return joined

    def milliseconds(self, images: int) -> dict[str, float]:
        """The time of each step for one of so many images."""
        return {step: 1000 * seconds / images for step, seconds in self.seconds.items()}

    def _framed(self, height: int, width: int) -> Letterbox:
        """How images of this size lie in their frames."""
        rect = self.rect and self.detector.frame is None
        frame = letterbox.rectangle(height, width, self.size, self.detector.multiple) if rect else self.size
        return letterbox.fit(height, width, frame)

    def _at(self, images: Sequence[NDArray[np.uint8]], box: Letterbox) -> list[Detections]:
        started = time.perf_counter()
        frames = np.stack([letterbox.apply(image, box, self.detector.pad_colour) for image in images])
        prepared = time.perf_counter()
        outputs = self.detector.infer(frames)
        inferred = time.perf_counter()
        found = self.detector.select(outputs, self.selection, self.classes)
        done = time.perf_counter()
        for step, took in zip(STEPS, (prepared - started, inferred - prepared, done - inferred), strict=True):
            self.seconds[step] += took
        return [one.in_image(box) for one in found]


def _moved(found: Detections, window: Window) -> Detections:
    """The detections of a tile in px of its picture."""
    return replace(found, boxes=found.boxes + np.array([window.left, window.top] * 2, np.float32))
