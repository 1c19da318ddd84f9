"""Saves predictions to disk: pictures or videos, label files, and their lists (see `lists`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gfldet.data.sources import Frame
from gfldet.detect.lists import Lists, noted
from gfldet.detect.predict import Prediction
from gfldet.errors import OutputError
from gfldet.machine.memory import disk_is_full
from gfldet.viz.pictures import save_bgr

if TYPE_CHECKING:
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
    _lists: Lists | None = None  # since it was made
    _video: cv2.VideoWriter | None = None
    _video_path: Path | None = None
    _video_frames: int = 0

    def add(self, prediction: Prediction) -> None:
        """Write one prediction; OutputError if that fails."""
        frame, results = prediction.frame, prediction.results
        if self._lists is None:
            self.folder = self.claim()
            self._lists = Lists(self.folder, self.coco, self.category_ids, self.labels)
        results.save_dir = str(self.folder)
        if self.pictures and frame.index is None:
            results.save(self.folder / f"{frame.name}.jpg", line_width=self.line_width)
        elif self.pictures:
            self._add_to_video(frame, results.plot(line_width=self.line_width))
        if self.txt:
            results.save_txt(self.folder / "labels" / f"{frame.name}.txt", self.scores_in_txt)
        self._lists.add(noted(prediction), partial(save_bgr, image=results.orig_img))

    def close(self) -> None:
        """Finish the video and the lists, if there were predictions."""
        try:
            self._finish_video()
        finally:
            if self._lists is not None:
                self._lists.close()

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
