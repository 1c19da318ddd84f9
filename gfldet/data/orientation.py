"""EXIF orientation: 1 to 8, of which 1 is upright; pixels turned to the upright picture and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 if the tag is missing or out of range, or if the EXIF block is broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a picture with a broken EXIF block is still usable; viewers ignore such a block too
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """From the stored pixels to the upright picture."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def turn_back(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The inverse of `turn`: 6 and 8 undo each other, every other turn undoes itself."""
    return turn(image, {6: 8, 8: 6}.get(orientation, orientation))
