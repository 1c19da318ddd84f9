"""Pictures in memory, arrays and PIL images, as RGB, some rows at a time: it takes the memory of both, and of none in
between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gfldet.data.depth import Depth, wide_converter
from gfldet.data.samples import float_scale, to_uint8
from gfldet.data.to_rgb import STRIP, Unusable, first_line, over_white, pillow_to_rgb
from gfldet.errors import DataError


def to_rgb_uint8(
    image: NDArray[Any] | Image.Image, what: str = "image", depth: Depth | None = None
) -> NDArray[np.uint8]:
    """An array or PIL image in memory as (H, W, 3) uint8 RGB, contiguous.

    Arrays follow OpenCV: (H, W), (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4), of uint8, uint16 (by `depth`), bool, or
    floats from 0 to 1 or from 0 to 255 (see `samples`).
    PIL images follow the rules of `images`, EXIF orientation included.
    Raises DataError, naming `what`, for any other shape or type.
    """
    depth = depth or Depth()
    if isinstance(image, Image.Image):
        try:
            return pillow_to_rgb(image, depth)
        except Unusable as error:
            raise DataError(f"{what}: {error}") from None
        except OSError as error:  # PIL opened the file lazily, and the file is damaged
            raise DataError(f"{what}: cannot be decoded ({first_line(error)})") from error
    check_array(image, what)
    convert = _samples_converter(image, what, depth)
    rgb = np.empty((*image.shape[:2], 3), np.uint8)
    rows = max(1, STRIP // image.shape[1])
    for top in range(0, len(image), rows):
        rgb[top : top + rows] = _from_opencv(convert(image[top : top + rows]))
    return rgb


def _samples_converter(image: NDArray[Any], what: str, depth: Depth) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """What makes uint8 samples of some rows of an array, by the type and the range of all."""
    if image.dtype == np.bool_:
        return lambda rows: rows.astype(np.uint8) * 255
    if image.dtype == np.uint16:
        return wide_converter(image, depth)
    if np.issubdtype(image.dtype, np.floating):
        scale = float_scale(image, what)
        return lambda rows: to_uint8(rows, scale)
    return lambda rows: rows


def _from_opencv(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, W), (h, W, 1), BGR or BGRA as RGB, or as grey (h, W, 1)."""
    rows = rows if rows.ndim == 3 else rows[..., None]
    if rows.shape[2] == 4:
        return over_white(Image.fromarray(np.ascontiguousarray(rows[..., [2, 1, 0, 3]]), "RGBA"))
    if rows.shape[2] == 1:
        return rows
    return np.asarray(
        cv2.cvtColor(np.ascontiguousarray(rows), cv2.COLOR_BGR2RGB), np.uint8
    )  # numpy takes 20 times as long


def check_array(image: NDArray[Any], what: str) -> None:
    """Raises DataError, naming `what`, unless `to_rgb_uint8` accepts the array."""
    shape = getattr(image, "shape", None)
    if not isinstance(image, np.ndarray):
        raise DataError(f"{what}: expected a numpy array or a PIL image, got {type(image).__name__}")
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        first = image.ndim == 3 and image.shape[0] in (1, 3, 4)
        raise DataError(
            f"{what}: expected an array of shape (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, got {shape}; "
            + ("its channels come first: give x.transpose(1, 2, 0)" if first else "give several images as a list")
        )
    if np.issubdtype(image.dtype, np.floating):
        float_scale(image, what)
    elif image.dtype not in (np.uint8, np.uint16, np.bool_):
        raise DataError(f"{what}: expected samples of uint8, uint16, bool or float, got {image.dtype}; convert them")
