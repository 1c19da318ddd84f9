"""Letterbox: resize an image into a frame without changing its aspect ratio, and undo it exactly.

numpy and opencv only, so that a runner without torch can use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.errors import ConfigError

PAD_COLOUR = 114  # the grey that detectors of this family pad with


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image of `height` x `width` pixels lies in a frame: out = in * (scale_x, scale_y) + (left, top).

    `scale_x` and `scale_y` are the scales after the resized size is rounded to whole pixels.  They differ by less than
    a pixel over the frame; using both makes `inverse` exact.
    """

    height: int
    width: int
    frame_height: int
    frame_width: int
    resized_height: int
    resized_width: int
    left: int
    top: int

    @property
    def scale_x(self) -> float:
        return self.resized_width / self.width

    @property
    def scale_y(self) -> float:
        return self.resized_height / self.height

    def forward(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (M, 4) xyxy of the image -> of the frame."""
        scale = np.array([self.scale_x, self.scale_y] * 2, dtype=np.float32)
        shift = np.array([self.left, self.top] * 2, dtype=np.float32)
        return boxes * scale + shift

    def inverse(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (D, 4) xyxy of the frame -> of the image, clipped to it."""
        scale = np.array([self.scale_x, self.scale_y] * 2, dtype=np.float32)
        shift = np.array([self.left, self.top] * 2, dtype=np.float32)
        limit = np.array([self.width, self.height] * 2, dtype=np.float32)
        return np.clip((boxes - shift) / scale, 0, limit).astype(np.float32, copy=False)


def fit(height: int, width: int, frame: tuple[int, int], centre: bool = True) -> Letterbox:
    """Where an image of `height` x `width` goes in `frame` (height, width): as large as fits, centred or top left."""
    scale = min(frame[0] / height, frame[1] / width)
    resized_height = min(frame[0], max(1, round(height * scale)))
    resized_width = min(frame[1], max(1, round(width * scale)))
    top = (frame[0] - resized_height) // 2 if centre else 0
    left = (frame[1] - resized_width) // 2 if centre else 0
    return Letterbox(height, width, frame[0], frame[1], resized_height, resized_width, left, top)


def rectangle(height: int, width: int, size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The smallest frame (height, width), both multiples of `stride`, that holds the image scaled to fit `size`."""
    scale = min(size[0] / height, size[1] / width)
    rows, columns = (max(1, math.ceil(round(side * scale) / stride)) * stride for side in (height, width))
    return rows, columns


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) at another size: area averaging when it shrinks (no aliasing), bilinear when it grows."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    out: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return out


def framed(image: NDArray[np.uint8], frame: tuple[int, int], pad_colour: int = PAD_COLOUR) -> NDArray[np.uint8]:
    """The image (H, W, 3) in a frame (height, width): `fit` and `apply` in one."""
    return apply(image, fit(image.shape[0], image.shape[1], frame), pad_colour)


def apply(image: NDArray[np.uint8], box: Letterbox, pad_colour: int = PAD_COLOUR) -> NDArray[np.uint8]:
    """The image (H, W, 3) in its frame (frame_height, frame_width, 3), padded with a grey of 0 to 255."""
    resized = resize(image, box.resized_height, box.resized_width)
    if resized.shape[:2] == (box.frame_height, box.frame_width):
        return resized
    canvas = np.full((box.frame_height, box.frame_width, image.shape[2]), pad_colour, dtype=np.uint8)
    canvas[box.top : box.top + box.resized_height, box.left : box.left + box.resized_width] = resized
    return canvas


def check_frame(frame: tuple[int, int], multiple: int, training: bool = False) -> None:
    """Raise ConfigError if the frame (height, width) is not a multiple of `multiple`, or is too small to train on."""
    if any(side % multiple for side in frame):
        raise ConfigError(
            f"imgsz: {frame[0]} x {frame[1]} px; the sides must be multiples of {multiple} for this model"
        )
    if training and max(frame) == multiple:
        # With a batch of one image, batch norm would see a single value on the coarsest level.
        raise ConfigError(f"imgsz: {frame[0]} x {frame[1]} px is too small to train on; give at least {2 * multiple}")
