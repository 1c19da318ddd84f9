"""What `predict` and `val` ask of a model, whoever computes it: uint8 images in, boxes in their pixels out.

A `Detector` is torch's (`detect.torch_detector`) or that of an exported file (`detect.exported`).  The loops over
frames and over splits know this interface alone, and so run without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gfldet.ops.detections import Detections


@dataclass(frozen=True, slots=True)
class Selection:
    """Which candidates become detections.

    A candidate needs a score above `conf`.  Of two of one class that overlap by more than `iou`, the one with the
    higher score stays (with `iou` 1 both do).  The best `max_det` are kept.  `agnostic` lets boxes of different classes
    suppress each other.  The detections of an end-to-end head are selected by their score alone.
    """

    conf: float = 0.001
    iou: float = 0.7
    max_det: int = 300
    agnostic: bool = False


class Detector(Protocol):
    """A model ready to find: `infer` computes, `select` takes the detections out of its outputs.

    names     class number -> name
    multiple  what the sides of a frame have to be multiples of
    end2end   whether its detections want no NMS
    frame     the one frame (height, width) that it takes; None takes any
    device    where it computes: cpu, cuda, ...
    """

    @property
    def names(self) -> dict[int, str]: ...
    @property
    def multiple(self) -> int: ...
    @property
    def end2end(self) -> bool: ...
    @property
    def frame(self) -> tuple[int, int] | None: ...
    @property
    def device(self) -> str: ...

    def infer(self, images: NDArray[np.uint8]) -> Any:
        """Frames (B, H, W, 3) uint8 RGB -> the model's outputs, for `select`."""

    def select(self, outputs: Any, selection: Selection, classes: tuple[int, ...] | None = None) -> list[Detections]:
        """The detections of each frame; `classes` keeps those classes alone."""
