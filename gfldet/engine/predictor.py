"""Prediction: frames of any source -> `Results` in original pixels, and what of them is written to disk."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gfldet.data.sources import Frame
from gfldet.engine import runs
from gfldet.engine.detector import NMS, Detector, Found
from gfldet.engine.validator import coco_results
from gfldet.errors import DataError, OutputError
from gfldet.ops import letterbox
from gfldet.ops.letterbox import Letterbox
from gfldet.results import Results

VIDEO_FPS = 30.0  # of the video written, where the source does not tell its own


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One frame and what was found in it: `Results` for the user; `found` lies in the letterbox `box`."""

    frame: Frame
    results: Results
    found: Found
    box: Letterbox
    category_ids: tuple[int, ...]

    @property
    def coco(self) -> list[dict[str, Any]]:
        """The same as COCO results, for predictions.json."""
        name = self.frame.name
        number = int(name) if name.isdecimal() else name
        return coco_results(self.found, self.box, number, self.frame.file_name, self.category_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """A detector, and how its detections are chosen.

    `size` (height, width) is what frames are fitted to; with `rect` a frame is padded to multiples of
    `detector.multiple` only.  `classes` (numbers) keeps those classes alone.
    """

    detector: Detector
    size: tuple[int, int]
    nms: NMS
    category_ids: tuple[int, ...]
    classes: tuple[int, ...] | None = None
    rect: bool = True

    def __call__(self, frames: Iterable[Frame], batch: int) -> Iterator[Prediction]:
        """Predictions in the order of the frames; up to `batch` neighbours of one size go through together.

        A DataError of the frames comes out after the predictions of those before it.
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
        """Frames of one image size, in one batch."""
        started = time.perf_counter()
        height, width = frames[0].image.shape[:2]
        rect = self.rect and self.detector.frame is None
        shape = letterbox.rectangle(height, width, self.size, self.detector.multiple) if rect else self.size
        box = letterbox.fit(height, width, shape)
        images = np.stack([letterbox.apply(f.image, box) for f in frames])
        prepared = time.perf_counter()
        outputs = self.detector.infer(images)
        inferred = time.perf_counter()
        found = self.detector.choose(outputs, self.nms, self.classes)
        done = time.perf_counter()
        steps = {"preprocess": prepared - started, "inference": inferred - prepared, "postprocess": done - inferred}
        speed = {step: 1000 * seconds / len(frames) for step, seconds in steps.items()}
        for frame, one in zip(frames, found, strict=True):
            yield self._prediction(frame, box, one, speed)

    def _prediction(self, frame: Frame, box: Letterbox, found: Found, speed: dict[str, float]) -> Prediction:
        rows = np.column_stack((box.inverse(found.boxes), found.scores, found.classes))
        bgr = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), np.uint8)
        results = Results(bgr, frame.path, self.detector.names, rows, speed)
        return Prediction(frame, results, found, box, self.category_ids)


@dataclass(slots=True, eq=False)
class Saver:
    """Writes predictions into a run folder as they come: pictures or videos, label files, and predictions.json.

    The folder is made for the first of them, so that a source that cannot be read leaves none.  `vid_stride` is the
    share of a video's frames that come, which its copy is slowed down by.
    """

    folder: Path
    pictures: bool
    txt: bool
    scores_in_txt: bool
    coco: bool
    line_width: int | None = None
    vid_stride: int = 1
    _results: list[dict[str, Any]] | None = None
    _video: cv2.VideoWriter | None = None
    _video_path: Path | None = None

    def add(self, prediction: Prediction) -> None:
        """Write one prediction; OutputError where that fails."""
        frame, results = prediction.frame, prediction.results
        if self._results is None:
            runs.make(self.folder)
            self._results = []
        if self.pictures and frame.index is None:
            results.save(self.folder / f"{frame.name}.jpg", self.line_width)
        elif self.pictures:
            self._add_to_video(frame, results.plot(self.line_width))
        if self.txt:
            results.save_txt(self.folder / "labels" / f"{frame.name}.txt", self.scores_in_txt)
        if self.coco:
            self._results += prediction.coco

    def close(self) -> None:
        """Finish the video and write predictions.json, if anything came."""
        if self._video is not None:
            self._video.release()
            self._video = None
        if self.coco and self._results is not None:
            runs.write_json(self.folder / "predictions.json", self._results)

    def _add_to_video(self, frame: Frame, picture: np.ndarray) -> None:
        """One frame of the video that has the name of its source."""
        path = self.folder / f"{frame.name.rpartition('_')[0]}.mp4"
        if path != self._video_path:
            if self._video is not None:
                self._video.release()
            height, width = picture.shape[:2]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            fps = (frame.fps or VIDEO_FPS) / self.vid_stride
            self._video = cv2.VideoWriter(str(path), code, fps, (width, height))
            self._video_path = path
            if not self._video.isOpened():
                raise OutputError(f"{path}: the video cannot be written; choose another project=, or save=false")
        assert self._video is not None
        self._video.write(picture)
