"""Images in memory, at the size at which they are used."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gfldet.data.records import Record
from gfldet.data.sample import Sample
from gfldet.ops import letterbox
from gfldet.ops.tiles import Window

_Key = tuple[str, "int | str", Window | None]


class ImageStore:
    """Images at the size of training or validation: kept in RAM up to `budget` bytes, the others read at each `get`.

    An image is resized once to fit into `size` (height, width); a smaller image keeps its size, and with None all do.
    `keep` may be called from any thread.
    """

    def __init__(self, size: tuple[int, int] | None, budget: int, read: Callable[[Record], NDArray[np.uint8]]) -> None:
        self._size = size
        self.left = budget
        self._read = read
        self._kept: dict[_Key, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()
        self.complete = True

    def keep(self, record: Record, image: NDArray[np.uint8]) -> None:
        """Keeps a decoded image in RAM if it still fits; one of the same record that was kept before is replaced.

        Of an image that is a part of a larger one, a copy is kept, so that the larger one is not held.
        """
        image = self._fitted(image if record.window is None else image.copy())
        with self._lock:
            if _key(record) in self._kept:
                self.left += self._kept.pop(_key(record)).nbytes
            if image.nbytes <= self.left:
                self._kept[_key(record)] = np.ascontiguousarray(image)
                self.left -= image.nbytes
            else:
                self.complete = False

    def get(self, record: Record) -> NDArray[np.uint8]:
        """The image (H, W, 3) uint8 RGB of a record, fitted to the store's size.  Do not write to it."""
        kept = self._kept.get(_key(record))
        return kept if kept is not None else self._fitted(self._read(record))

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if self._size is None:
            return image
        box = letterbox.fit(height, width, self._size)
        if box.resized_height >= height:
            return image
        return letterbox.resize(image, box.resized_height, box.resized_width)

    def sample(self, record: Record) -> Sample:
        """A record's image with its truths scaled to it."""
        image = self.get(record)
        scale = np.array([image.shape[1] / record.width, image.shape[0] / record.height] * 2, dtype=np.float32)
        return Sample(image, record.boxes * scale, record.classes, record.ignore * scale)


def _key(record: Record) -> _Key:
    return str(record.path), record.image_id, record.window
