"""Training images as tiles: each tile of a large image is a training image of its own.

A tile shows parts of objects.  A truth of which enough is visible is a truth of the tile, cut at its borders; what is
visible of another is a region to ignore, so that it is taught neither as an object nor as background.  Prediction drops
what it finds there, as a neighbouring tile sees more of it (see `ops.tiles`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gfldet.data.findings import SMALL
from gfldet.data.records import Record, Records, Split
from gfldet.ops.tiles import Tiles, Window

VISIBLE = 0.5  # share of its area from which a truth is taught: below, its visible part has an IoU under .5 with it


@dataclass(frozen=True, slots=True)
class Cut:
    """How training images become tiles; `frame` is the (height, width) in px that images are brought to."""

    tiles: Tiles
    frame: tuple[int, int]

    def split(self, split: Split) -> Split:
        """The split with the pieces of each image as images of their own."""
        return replace(split, records=Records.of(one for record in split.records for one in self.pieces(record)))

    def pieces(self, record: Record) -> list[Record]:
        """The record of each of its windows."""
        if not self.tiles.cut(record.height, record.width):
            return [record]
        windows = self.windows(record.height, record.width)
        return [_whole(record, self.frame) if window is None else _piece(record, window) for window in windows]

    def windows(self, height: int, width: int) -> list[Window | None]:
        """An image that no tile holds as its tiles, row by row, and as a whole (None) too if the tiles say so; else
        itself."""
        if not self.tiles.cut(height, width):
            return [None]
        return [*self.tiles.grid(height, width).windows, *([None] if self.tiles.whole else [])]


def _piece(record: Record, window: Window) -> Record:
    """The tile of a record that a window of its picture shows; boxes in px of the tile."""
    boxes, share = _within(record.boxes, window)
    ignore, visible = _within(record.ignore, window)
    taught, seen = share >= VISIBLE, visible > 0
    return _with_truths(
        replace(
            record,
            file_name=f"{record.file_name} at {window.left},{window.top}",
            width=window.width,
            height=window.height,
            window=window,
            ignore=ignore[seen],
            ignore_classes=None if record.ignore_classes is None else record.ignore_classes[seen],
        ),
        boxes,
        record.classes,
        taught,
        (share > 0) & ~taught,
    )


def _whole(record: Record, frame: tuple[int, int]) -> Record:
    """The whole image, in which truths that are too small in the frame are ignored: they are left to the tiles."""
    scale = min(frame[0] / record.height, frame[1] / record.width)
    taught = scale * (record.boxes[:, 2:] - record.boxes[:, :2]).max(1, initial=0) >= SMALL
    return _with_truths(record, record.boxes, record.classes, taught, ~taught)


def _with_truths(
    record: Record,
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    taught: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
) -> Record:
    """The record with the `taught` of these boxes as its truths, and the `ignored` ones as regions beside its own."""
    own = record.ignore_classes
    return replace(
        record,
        boxes=boxes[taught],
        classes=classes[taught],
        ignore=np.concatenate([record.ignore, boxes[ignored]]),
        ignore_classes=None if own is None else np.concatenate([own, classes[ignored]]),
    )


def _within(boxes: NDArray[np.float32], window: Window) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (M, 4) as a window shows them, in its px, and which share (M,) of the area of each is visible."""
    corner = np.array([window.left, window.top] * 2, np.float32)
    inside = np.clip(boxes - corner, 0, np.array([window.width, window.height] * 2, np.float32)).astype(np.float32)
    area, visible = ((one[:, 2:] - one[:, :2]).prod(1) for one in (boxes, inside))
    return inside, visible / np.maximum(area, 1e-9)
