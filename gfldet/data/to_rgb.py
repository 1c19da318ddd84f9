"""A picture of Pillow's as RGB, some rows at a time: it takes the memory of both, and of none in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from gfldet.data.depth import Depth, scaled
from gfldet.data.kinds import declares_depth
from gfldet.data.orientation import orientation, turn_back
from gfldet.errors import shown

STRIP = 1 << 20  # pixels that are converted at a time
_MODES_16BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class Unusable(Exception):
    """The reason, without the path, why bytes are not a usable image."""


def first_line(error: Exception) -> str:
    """What a decoder says, in one line that fits a message."""
    return shown(f"{type(error).__name__}: {error}".splitlines()[0], 200, quoted=False)


def pillow_to_rgb(image: Image.Image, depth: Depth | None = None) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8 RGB, upright; `depth` tells how to take 16-bit samples.  Raises Unusable."""
    depth = Depth(16) if depth is None or declares_depth(image) else depth
    image.load()
    # When Pillow loads a TIFF, it applies the orientation (some versions keep the tag).  It does so only for TIFFs.
    turned = 1 if isinstance(image, TiffImagePlugin.TiffImageFile) else orientation(image)
    width, height = image.size
    upright = np.empty((width, height, 3) if turned >= 5 else (height, width, 3), np.uint8)
    stored, convert = turn_back(upright, turned), _converter(image, depth)
    for top, rows in _strips(image):
        stored[top : top + rows.size[1]] = convert(rows)
    return upright


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(number of its first row, some rows of an image), from top to bottom; a small image is one strip."""
    width, height = image.size
    rows = max(1, STRIP // width)
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _converter(image: Image.Image, depth: Depth) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """What makes (h, W, 3) RGB of some rows of an image, by its colour mode."""
    mode = image.mode
    if mode in _MODES_16BIT or mode == "I":  # older versions of Pillow open 16-bit grey PNGs in the second
        ranges = [(int(samples.min()), int(samples.max())) for samples in (np.asarray(s) for _, s in _strips(image))]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        if low < 0 or high > 65535:
            raise Unusable(f"holds 32-bit samples from {low} to {high}; save it with 8 or 16 bits")
        bits = depth.look(np.array([high]))
        return lambda rows: _grey_to_rgb(scaled(np.asarray(rows).astype(np.uint16), bits))
    if mode == "F":
        raise Unusable("holds floating-point samples, and their range is unknown; save it with 8 or 16 bits")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        return over_white
    try:
        image.crop((0, 0, 1, 1)).convert("RGB")
    except ValueError:
        raise Unusable(f"has the colour mode {mode}, which cannot be turned into RGB; save it as RGB") from None
    return np.asarray if mode == "RGB" else lambda rows: np.asarray(rows.convert("RGB"))


def over_white(image: Image.Image) -> NDArray[np.uint8]:
    """A picture (H, W) with transparency as (H, W, 3) RGB, laid over white."""
    over = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGBA", over.size, (255, 255, 255, 255))
    return np.array(Image.alpha_composite(white, over).convert("RGB"))


def _grey_to_rgb(grey: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
