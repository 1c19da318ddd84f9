"""Prediction: frames of any source -> `Results` in original pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from gfldet.data.sources import Frame
from gfldet.detect.detector import Detector, Selection
from gfldet.detect.look import Look
from gfldet.errors import DataError
from gfldet.ops.detections import Detections
from gfldet.ops.tiles import Tiles
from gfldet.results import Results


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One frame and what was found in it: `detections` in px of the frame's image, `results` for the user."""

    frame: Frame
    results: Results
    detections: Detections

    @property
    def line(self) -> str:
        """What tells people what was found."""
        return f"{self.results.path}: {self.results.verbose()}"

    @property
    def image_id(self) -> int | str:
        """The id in predictions.json, where no other frame has the same number (see `image_ids`)."""
        return image_ids([self.frame.name])[0]


def image_ids(names: Sequence[str]) -> list[int | str]:
    """The ids in predictions.json of frames with these (different) names.

    A name that is a number, such as COCO's 000000000139, gives this number.  Where several names give one number, as 1
    and 01, each keeps its name as the id, so that no two frames share one.
    """
    numbers = [int(name) if name.isdecimal() else None for name in names]
    count = Counter(numbers)
    return [
        name if number is None or count[number] > 1 else number for name, number in zip(names, numbers, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """A detector with the rule that selects its detections.

    Frames are fitted to `size` (height, width); with `rect` a frame is padded only to multiples of `detector.multiple`.
    `classes` (numbers) keeps only these classes.  With `tiles`, larger frames are cut into these.
    """

    detector: Detector
    size: tuple[int, int]
    selection: Selection
    classes: tuple[int, ...] | None = None
    rect: bool = True
    tiles: Tiles | None = None

    def __call__(self, frames: Iterable[Frame], batch: int) -> Iterator[Prediction]:
        """Predictions in the order of the frames; up to `batch` successive frames of one size form a batch, and so do
        up to `batch` tiles of a frame.

        If `frames` raises a DataError, the predictions of the frames before it come first, then the error.  A frame is
        let go of before the next one is asked for: two large pictures would take twice the memory.
        """
        waiting: list[Frame] = []
        failure: DataError | None = None
        try:
            for frame in frames:
                shape = frame.image.shape
                cut = self.tiles is not None and self.tiles.cut(*shape[:2])
                if waiting and (cut or waiting[0].image.shape != shape):
                    yield from self._predict(waiting)
                    waiting = []
                waiting.append(frame)
                del frame
                if cut:
                    yield self._in_tiles(waiting.pop(), batch)
                elif len(waiting) == batch:
                    yield from self._predict(waiting)
                    waiting = []
        except DataError as error:
            failure = error
        if waiting:
            yield from self._predict(waiting)
        if failure is not None:
            raise failure

    def _look(self) -> Look:
        return Look(self.detector, self.size, self.selection, self.classes, self.rect)

    def _predict(self, frames: Sequence[Frame]) -> Iterator[Prediction]:
        """Predict frames of one image size in one batch."""
        look = self._look()
        found = look.at([frame.image for frame in frames])
        for frame, one in zip(frames, found, strict=True):
            yield self._prediction(frame, one, look.milliseconds(len(frames)))

    def _in_tiles(self, frame: Frame, batch: int) -> Prediction:
        """Predict a frame that is cut into tiles."""
        assert self.tiles is not None
        look = self._look()
        found = look.at_tiles(frame.image, self.tiles, batch)
        return self._prediction(frame, found, look.milliseconds(1))

    def _prediction(self, frame: Frame, found: Detections, speed: dict[str, float]) -> Prediction:
        rows = np.column_stack((found.boxes, found.scores, found.classes))
        bgr = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), np.uint8)
        results = Results(bgr, frame.path, self.detector.names, rows, speed, frame.name)
        return Prediction(replace(frame, image=bgr[..., ::-1]), results, found)  # one picture in memory, not two
