"""From 16-bit samples to 8 bits: by the bits that the samples use, which are often fewer than the file could hold.

Cameras of 10, 12 and 14 bits, thermal ones and X-ray write their samples into 16-bit files as they are.  Their high
byte alone would be a nearly black picture.  So the depth of a file is the smallest of DEPTHS that holds its largest
sample, and the upper 8 bits of that depth are kept.  A depth of 16, as of every picture that uses the whole range,
keeps the high byte.

One dark frame of a 12-bit camera may look like one of 10 bits.  A data set therefore has one depth for all its files,
that of the largest sample in its training images.  A model keeps it, as the setting `sample_bits`, for validation,
prediction and export.  A file goes by its own samples only where nobody knows better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEPTHS = (8, 10, 12, 14, 16)  # of the sensors that there are


def depth_of(samples: NDArray[Any]) -> int:
    """The smallest of DEPTHS that holds the largest of some samples of 0 to 65535."""
    largest = int(samples.max(initial=0))
    return next(bits for bits in DEPTHS if largest < 1 << bits)


@dataclass(slots=True)
class Depth:
    """How the 16-bit samples of one image become 8 bits, and, once it was read, what was found.

    wanted  the bits to keep the upper 8 of; None: those that the samples use
    found   the bits that the samples use; None while no 16-bit samples were met
    """

    wanted: int | None = None
    found: int | None = None

    @property
    def used(self) -> int | None:
        """The bits by which the samples were scaled; None if there were no 16-bit samples."""
        return None if self.found is None else self.wanted or self.found

    def look(self, samples: NDArray[Any]) -> int:
        """The bits to scale samples by; remembers what was found in them."""
        self.found = depth_of(samples)
        return self.wanted or self.found


def scaled(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The upper 8 of `bits` bits, 8 to 16; larger samples become 255."""
    return np.minimum(samples >> (bits - 8), 255).astype(np.uint8)


def wide_converter(image: NDArray[np.uint16], depth: Depth) -> Callable[[NDArray[np.uint16]], NDArray[np.uint8]]:
    """What makes 8 bits of some rows of an array of 16-bit samples (H, W) or (H, W, 1, 3 or 4); opacity has a depth of
    its own."""
    if image.ndim < 3 or image.shape[2] < 4:
        bits = depth.look(image)
        return lambda rows: scaled(rows, bits)
    bits, of_opacity = depth.look(image[..., :3]), depth_of(image[..., 3])
    return lambda rows: np.dstack([scaled(rows[..., :3], bits), scaled(rows[..., 3], of_opacity)])
