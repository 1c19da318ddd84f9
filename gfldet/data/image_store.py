"""Images in memory, at the size at which they are used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from gfldet.data.images import ImageError
from gfldet.data.records import Record
from gfldet.data.sample import Sample
from gfldet.machine.shared import Pool
from gfldet.messages import warn
from gfldet.ops import letterbox
from gfldet.ops.letterbox import PAD_COLOUR
from gfldet.ops.tiles import Window

_Key = tuple[str, "Window | None"]  # path, and the part of its picture


class ImageStore:
    """Images at the size of training or validation, kept in memory as far as the pool's budget goes.

    An image is the picture of a file, or the part of it that a window shows (a tile).  It is resized once to fit into
    `size` (height, width); a smaller image keeps its size, and with None all do.  `place` tells the images and their
    sizes; the first of them that fit have their places in the pool, where all processes that share it find them.  An
    image is kept when it is first read, by whoever reads it; the others are read at each `get`.  With `skip_bad` one
    that cannot be read is no part of what is learnt (see `sample`).  All methods but `place` may be called from any
    thread.
    """

    def __init__(
        self,
        size: tuple[int, int] | None,
        pool: Pool,
        read: Callable[[Record], NDArray[np.uint8]],
        skip_bad: bool = False,
    ) -> None:
        self._size = size
        self._pool = pool
        self._read = read
        self._skip_bad = skip_bad
        self._numbers: dict[_Key, int] = {}  # number of the image, for those that have a place
        self._shapes = np.zeros((0, 2), np.int64)
        self._starts = np.zeros(0, np.int64)
        self._pixels = self._there = np.zeros(0, np.uint8)
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self.complete = False

    @property
    def left(self) -> int:
        """Bytes that are left of the pool's budget."""
        return self._pool.left

    def place(
        self, paths: Sequence[str], sizes: NDArray[np.integer], windows: Sequence[Window | None] | None = None
    ) -> None:
        """Gives images their places: they are the pictures of these paths, or with `windows` those parts of them.

        `sizes` are their (B, 2) width and height, 0 if unknown.
        """
        shapes = _fitted_shapes(sizes[:, ::-1], self._size)
        ends = np.cumsum(3 * shapes.prod(1))
        count = int(np.searchsorted(ends, self.left, side="right"))
        self.complete = count == len(paths)
        keys = zip(paths[:count], windows or repeat(None), strict=False)
        self._numbers = {key: number for number, key in enumerate(keys) if shapes[number, 0]}
        self._shapes, self._starts = shapes[:count], np.concatenate([[0], ends[:count]])
        self._pixels = self._pool.take(int(self._starts[-1]))
        self._there = self._pool.take(count)
        self._pool.left -= int(self._starts[-1])

    def keep(self, path: str, image: NDArray[np.uint8], window: Window | None = None) -> None:
        """Keeps a decoded image if it has a place; one that was kept before is replaced."""
        if (path, window) in self._numbers:
            self._keep((path, window), self._fitted(image))

    def _keep(self, key: _Key, fitted: NDArray[np.uint8]) -> None:
        number = self._numbers.get(key)
        if number is None or fitted.shape[:2] != tuple(self._shapes[number]):  # another image than it was
            return
        place = self._place(number)
        with self._lock:
            place[:] = fitted
        # Released and taken anew, so that no processor shows to others that it is there before they see the pixels.
        with self._lock:
            self._there[number] = 1

    def _place(self, number: int) -> NDArray[np.uint8]:
        height, width = self._shapes[number]
        return self._pixels[self._starts[number] : self._starts[number + 1]].reshape(height, width, 3)

    def get(self, record: Record) -> NDArray[np.uint8]:
        """The image (H, W, 3) uint8 RGB of a record, fitted to the store's size.  Do not write to it.

        Raises ImageError for one that cannot be read, although the check at the start let it pass.
        """
        try:
            return self._image(record)
        except ImageError as error:
            raise _with_advice(record, error) from error

    def _image(self, record: Record) -> NDArray[np.uint8]:
        """`get`; the error tells what is wrong, and no more."""
        key = str(record.path), record.window
        number = self._numbers.get(key)
        if number is not None and self._there[number]:
            return self._place(number)
        image = self._fitted(self._read(record))
        self._keep(key, image)
        return image

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = _fitted_shapes(np.array([image.shape[:2]]), self._size)[0].tolist()
        return letterbox.resize(image, height, width)

    def sample(self, record: Record) -> Sample:
        """A record's image with its truths scaled to it.

        With `skip_bad`, one that cannot be read is grey, without truths and ignored everywhere: nothing is learnt from
        it, and the other images of a mosaic are what they are without it.  It is told once.
        """
        try:
            image = self._image(record)
        except ImageError as error:
            if not self._skip_bad:
                raise _with_advice(record, error) from error
            return self._left_out(record, error)
        scale = np.array([image.shape[1] / record.width, image.shape[0] / record.height] * 2, dtype=np.float32)
        return Sample(image, record.boxes * scale, record.classes, record.ignore * scale)

    def _left_out(self, record: Record, error: ImageError) -> Sample:
        path = str(record.path)
        if path not in self._told:
            self._told.add(path)
            warn(f"left out (on_bad=skip): {path}: {error.reason}")
        height, width = _fitted_shapes(np.array([[record.height, record.width]]), self._size)[0].tolist()
        grey = np.full((height, width, 3), PAD_COLOUR, np.uint8)
        everywhere = np.array([[0, 0, width, height]], np.float32)
        return Sample(grey, everywhere[:0], np.zeros(0, np.int64), everywhere)


def _with_advice(record: Record, error: ImageError) -> ImageError:
    """The error of an image that the check at the start let pass."""
    return ImageError(
        str(record.path),
        f"{error.reason}. The check at the start did not find this: check_images=full decodes every image there. "
        "A training run goes on with resume=, and with on_bad=skip without such images",
    )


def _fitted_shapes(shapes: NDArray[np.integer], size: tuple[int, int] | None) -> NDArray[np.int64]:
    """(B, 2) height and width of images -> those at which they are kept in a store of `size`; 0 stays 0."""
    if size is None:
        return shapes.astype(np.int64)
    known = np.maximum(shapes, 1)
    scale = np.minimum(size[0] / known[:, 0], size[1] / known[:, 1])
    resized = np.clip(np.rint(known * scale[:, None]).astype(np.int64), 1, size)  # as `letterbox.fit` has it
    return np.where((resized[:, :1] < known[:, :1]) & (shapes > 0), resized, shapes).astype(np.int64)
