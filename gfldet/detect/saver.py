"""Saves predictions to disk: pictures or videos, label files, predictions.json, and labels for other programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gfldet.data.sources import Frame
from gfldet.detect.predict import Prediction, image_ids
from gfldet.errors import OutputError
from gfldet.files import exists
from gfldet.machine.memory import disk_is_full
from gfldet.metrics.table import DetectionTable, coco_results, joined, table_of
from gfldet.store import runs
from gfldet.viz.pictures import save_bgr
from gfldet.writing import write_whole

if TYPE_CHECKING:
    from gfldet.labels.picture import Picture
    from gfldet.labels.writer import LabelFiles


@dataclass(slots=True, eq=False)
class Saver:
    """Writes predictions into a run folder as they come; see the top of this file.

    `claim` makes the folder, at the first prediction, so a source that cannot be read leaves no folder.  If only every
    `vid_stride`-th frame of a video comes, the frame rate of its copy is divided by `vid_stride`.  `category_ids` are
    the class ids in the user's files.  `labels` makes the writer of labels for other programs in the folder.
    """

    claim: Callable[[], Path]
    pictures: bool
    txt: bool
    scores_in_txt: bool
    coco: bool
    category_ids: tuple[int, ...]
    line_width: int | None = None
    vid_stride: int = 1
    labels: Callable[[Path], LabelFiles] | None = None
    folder: Path = Path()  # once it is made
    _images: list[tuple[str, str]] | None = None  # name and file name of each
    _labels: LabelFiles | None = None
    _tables: list[DetectionTable] = field(default_factory=list)
    _video: cv2.VideoWriter | None = None
    _video_path: Path | None = None
    _video_frames: int = 0

    def add(self, prediction: Prediction) -> None:
        """Write one prediction; OutputError if that fails."""
        frame, results = prediction.frame, prediction.results
        if self._images is None:
            self.folder = self.claim()
            self._images = []
            self._labels = self.labels(self.folder) if self.labels else None
        results.save_dir = str(self.folder)
        if self.pictures and frame.index is None:
            results.save(self.folder / f"{frame.name}.jpg", line_width=self.line_width)
        elif self.pictures:
            self._add_to_video(frame, results.plot(line_width=self.line_width))
        if self.txt:
            results.save_txt(self.folder / "labels" / f"{frame.name}.txt", self.scores_in_txt)
        if self._labels:
            self._labels.add(_labelled(prediction))
        if self.coco:
            self._tables.append(table_of(len(self._images), prediction.detections))
            self._images.append((frame.name, frame.file_name))

    def close(self) -> None:
        """Finish the video and the labels, and write predictions.json, if there were predictions."""
        try:
            self._finish_video()
        finally:
            if self._labels:
                self._labels.close()
        if self.coco and self._images is not None:
            ids = image_ids([name for name, _ in self._images])
            images = [(image_id, file_name) for image_id, (_, file_name) in zip(ids, self._images, strict=True)]
            rows = coco_results(joined(self._tables), images, self.category_ids)
            runs.write_rows(self.folder / "predictions.json", rows)

    def _add_to_video(self, frame: Frame, picture: np.ndarray) -> None:
        """Write a frame to the video that is named after its source."""
        path = self.folder / f"{frame.name.rpartition('_')[0]}.mp4"
        if path != self._video_path:
            self._finish_video()
            height, width = picture.shape[:2]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(str(path), code, frame.rate(self.vid_stride), (width, height))
            self._video_path = path
            if not self._video.isOpened():
                raise OutputError(f"{path}: the video cannot be written; choose another project=, or save=false")
        assert self._video is not None
        if disk_is_full(path.parent):  # OpenCV goes on without a frame
            self._video.release()
            self._video = None
            raise OutputError(f"{path}: no space left on the disk; free space, or choose another project=")
        self._video.write(picture)
        self._video_frames += 1

    def _finish_video(self) -> None:
        """Close the video; OutputError where it is not whole, which OpenCV does not tell."""
        if self._video is None or self._video_path is None:
            return
        self._video.release()
        self._video, wanted, self._video_frames = None, self._video_frames, 0
        written = cv2.VideoCapture(str(self._video_path))
        there = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if there < wanted:
            reason = "no space left on the disk" if disk_is_full(self._video_path.parent) else "its end is missing"
            raise OutputError(f"{self._video_path}: {reason}; free space, or choose another project=")


def _labelled(prediction: Prediction) -> Picture:
    """A prediction as labels, rounded as predictions.json has it."""
    from gfldet.labels.picture import Picture

    frame, found = prediction.frame, table_of(0, prediction.detections)
    height, width = frame.image.shape[:2]
    return Picture(
        frame.file_name if frame.on_disk else f"{frame.name}.jpg",
        Path(frame.path) if frame.on_disk else None,
        width,
        height,
        found.boxes,
        found.classes,
        found.scores,
        partial(_put, prediction),
    )


def _put(prediction: Prediction, path: Path) -> None:
    """The picture of a prediction at `path`: another name of its file, or a copy where the file system has none.

    Not a symbolic link: readers of data sets refuse what leads out of their folder.
    """
    frame = prediction.frame
    if not frame.on_disk:
        save_bgr(path, prediction.results.orig_img)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.path.realpath(frame.path)
    if os.path.lexists(path):
        if exists(path) and os.path.samefile(file, path):
            return
        path.unlink()
    try:
        os.link(file, path)
    except (OSError, NotImplementedError):
        with open(file, "rb") as source:
            write_whole(path, partial(shutil.copyfileobj, source), lasting=False)
