"""What `predict` and `val` ask of a model, whoever computes it: uint8 images in, boxes in their pixels out.

A `Detector` is torch's (`detect.torch_detector`) or that of an exported file (`detect.exported`).  The loops over
frames and over splits know this interface alone, and so run without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What was found in one frame, best score first: boxes (D, 4) float32 xyxy in px of the frame, scores (D,) float32,
    classes (D,) int64."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Selection:
    """How detections are chosen: those of a score above `conf`, of any two of a class that overlap by more than `iou`
    the better, the best `max_det`.  Those of an end-to-end head are chosen by score alone."""

    conf: float = 0.001
    iou: float = 0.7
    max_det: int = 300
    agnostic: bool = False


class Detector(Protocol):
    """A model ready to find: `infer` computes, `select` picks detections out of what it gave.

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
