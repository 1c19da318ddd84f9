"""Prediction: frames of any source -> `Results` in original pixels."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gfldet.data.sources import Frame
from gfldet.detect.detector import Detector, Selection
from gfldet.errors import DataError
from gfldet.ops import letterbox
from gfldet.ops.detections import Detections
from gfldet.results import Results


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One frame and what was found in it: `detections` in px of the frame's image, `results` for the user."""

    frame: Frame
    results: Results
    detections: Detections

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
    `classes` (numbers) keeps only these classes.
    """

    detector: Detector
    size: tuple[int, int]
    selection: Selection
    classes: tuple[int, ...] | None = None
    rect: bool = True

    def __call__(self, frames: Iterable[Frame], batch: int) -> Iterator[Prediction]:
        """Predictions in the order of the frames; up to `batch` successive frames of one size form a batch.

        If `frames` raises a DataError, the predictions of the frames before it come first, then the error.
        """
        waiting: list[Frame] = []
        failure: DataError | None = None
        try:
            for frame in frames:
                if waiting and waiting[0].image.shape != frame.image.shape:
                    yield from self._predict(waiting)
                    waiting = []
                waiting.append(frame)
                if len(waiting) == batch:
                    yield from self._predict(waiting)
                    waiting = []
        except DataError as error:
            failure = error
        if waiting:
            yield from self._predict(waiting)
        if failure is not None:
            raise failure

    def _predict(self, frames: Sequence[Frame]) -> Iterator[Prediction]:
        """Predict frames of one image size in one batch."""
        started = time.perf_counter()
        height, width = frames[0].image.shape[:2]
        rect = self.rect and self.detector.frame is None
        shape = letterbox.rectangle(height, width, self.size, self.detector.multiple) if rect else self.size
        box = letterbox.fit(height, width, shape)
        images = np.stack([letterbox.apply(f.image, box, self.detector.pad_colour) for f in frames])
        prepared = time.perf_counter()
        outputs = self.detector.infer(images)
        inferred = time.perf_counter()
        found = self.detector.select(outputs, self.selection, self.classes)
        done = time.perf_counter()
        steps = {"preprocess": prepared - started, "inference": inferred - prepared, "postprocess": done - inferred}
        speed = {step: 1000 * seconds / len(frames) for step, seconds in steps.items()}
        for frame, one in zip(frames, found, strict=True):
            yield self._prediction(frame, one.in_image(box), speed)

    def _prediction(self, frame: Frame, found: Detections, speed: dict[str, float]) -> Prediction:
        rows = np.column_stack((found.boxes, found.scores, found.classes))
        bgr = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), np.uint8)
        return Prediction(frame, Results(bgr, frame.path, self.detector.names, rows, speed, frame.name), found)
