"""The interface of a model for `predict` and `val`: uint8 images in, boxes in the pixels of these images out.

`detect.torch_detector` implements it with torch, `detect.exported` with an exported file.  The loops over frames and
splits use only this interface, so they run without torch.
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

    A candidate needs a score above `conf`.  If two candidates of one class overlap by more than `iou`, only the one
    with the higher score is kept (with `iou` 1, both).  The best `max_det` are kept.  With `agnostic`, boxes of
    different classes suppress each other too.  For an end-to-end head only the score decides.
    """

    conf: float = 0.001
    iou: float = 0.7
    max_det: int = 300
    agnostic: bool = False


class Detector(Protocol):
    """A model ready for inference: `infer` computes its outputs, `select` takes the detections from them.

    names     class number -> name
    multiple  the sides of a frame must be multiples of this
    end2end   whether its detections need no NMS
    frame     the only frame (height, width) that it takes; None: it takes any
    device    where it computes: cpu, cuda, ...
    pad_colour  the grey, 0 to 255, around an image in its frame
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
    @property
    def pad_colour(self) -> int: ...

    def infer(self, images: NDArray[np.uint8]) -> Any:
        """Frames (B, H, W, 3) uint8 RGB -> the model's outputs, for `select`."""

    def select(self, outputs: Any, selection: Selection, classes: tuple[int, ...] | None = None) -> list[Detections]:
        """The detections of each frame; `classes` keeps only these classes."""
