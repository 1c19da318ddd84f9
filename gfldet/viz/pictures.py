"""Pictures of several images (a training batch, truths beside detections), and `save_picture` for a file.

Images are (H, W, 3) uint8 RGB of any size, boxes (D, 4) xyxy in pixels of their image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.errors import OutputError
from gfldet.viz.draw import Image, draw_boxes, draw_caption
from gfldet.writing import write_whole

_GAP = 6  # px of white between the tiles
_CAPTION = 22  # px of height for the line above a tile
_MAX_LABELS = 60  # in one tile


@dataclass(frozen=True, eq=False)
class Tile:
    """An image to show with boxes on it.

    boxes, classes  (D, 4) xyxy px of this image, (D,) positions in the class names
    scores          (D,), written beside the class names; None for truths
    caption         a line above the image, shortened if it is too long
    """

    image: Image
    boxes: NDArray[np.floating]
    classes: NDArray[np.integer]
    scores: NDArray[np.floating] | None = None
    caption: str = ""


def batch_picture(tiles: Sequence[Tile], names: Sequence[str], tile_size: int = 320, limit: int = 16) -> Image:
    """The first `limit` tiles in a nearly square grid; each image is scaled to fit a square of `tile_size` px."""
    shown = [_render(tile, names, tile_size) for tile in tiles[:limit]]
    return _grid(shown, max(1, math.ceil(math.sqrt(len(shown)))))


def truth_and_detections(
    truths: Sequence[Tile], detections: Sequence[Tile], names: Sequence[str], tile_size: int = 400, limit: int = 8
) -> Image:
    """Two images per row; each image appears twice: with its truths on the left, with its detections on the right.

    `truths` and `detections` hold the same images in the same order; at most `limit` images are shown.
    """
    pairs = list(zip(truths, detections, strict=True))[:limit]
    shown = [_beside(_render(truth, names, tile_size), _render(found, names, tile_size)) for truth, found in pairs]
    return _grid(shown, min(2, max(1, len(shown))), gap=4 * _GAP)


def save_picture(path: str | Path, image: Image) -> Path:
    """Writes an RGB image in the format of the path's suffix; creates missing folders.

    Raises OutputError if the suffix is not a picture format or if the file cannot be written.
    """
    return save_bgr(path, np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8))


def save_bgr(path: str | Path, image: Image) -> Path:
    """`save_picture` for an image in BGR, as OpenCV encodes it, without a copy."""
    path = Path(path)
    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise OutputError(f"{path}: no picture format has the suffix {path.suffix!r}; use .jpg or .png.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not by cv2.imwrite: it gives no error, and fails for some letters in paths.
        write_whole(path, lambda file: file.write(data.data), lasting=False)
    except OSError as error:
        raise OutputError(f"{path}: the picture cannot be written: {error.strerror or error}.") from error
    return path


def _render(tile: Tile, names: Sequence[str], size: int) -> Image:
    """The tile scaled to fit `size`, with its caption above.  Boxes are drawn after scaling, so lines stay sharp."""
    height, width = tile.image.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(np.ascontiguousarray(tile.image), shape, interpolation=method), np.uint8)
    boxes = np.asarray(tile.boxes, np.float64).reshape(-1, 4) * scale
    line_width = 2 if len(boxes) <= 15 else 1
    draw_boxes(small, boxes, tile.classes, _labels(tile, names), line_width, letters=0.42)
    canvas = np.full((_CAPTION + small.shape[0], size, 3), 255, np.uint8)
    left = (size - small.shape[1]) // 2
    canvas[_CAPTION:, left : left + small.shape[1]] = small
    draw_caption(canvas[:_CAPTION], tile.caption)
    return canvas


def _labels(tile: Tile, names: Sequence[str]) -> list[str] | None:
    """A text for each box; None if there are too many to see the image: then only the colour shows the class."""
    if len(tile.classes) > _MAX_LABELS:
        return None
    labels = [names[int(c)] for c in tile.classes]
    if tile.scores is None:
        return labels
    return [f"{label} {score:.2f}" for label, score in zip(labels, tile.scores, strict=True)]


def _beside(left: Image, right: Image) -> Image:
    """Two pictures of the same height, side by side with a gap."""
    return np.concatenate([left, np.full((len(left), _GAP, 3), 255, np.uint8), right], axis=1)


def _grid(tiles: Sequence[Image], columns: int, gap: int = _GAP) -> Image:
    """Tiles of the same width in rows on white; the highest tile sets the height of its row.

    Without tiles the result is a small white picture.
    """
    if not tiles:
        return np.full((_CAPTION, _CAPTION, 3), 255, np.uint8)
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(len(tile) for tile in row) for row in rows]
    width = tiles[0].shape[1]
    canvas = np.full(
        (sum(heights) + _GAP * (len(rows) + 1), columns * (width + gap) + 2 * _GAP - gap, 3), 255, np.uint8
    )
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for i, tile in enumerate(row):
            left = _GAP + i * (width + gap)
            canvas[top : top + len(tile), left : left + width] = tile
        top += height + _GAP
    return canvas
