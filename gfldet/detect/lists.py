"""What is written of all predictions of a run, in their order: predictions.json, and labels for other programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gfldet.detect.predict import Prediction, image_ids
from gfldet.files import exists
from gfldet.metrics.table import DetectionTable, coco_results, joined, table_of
from gfldet.ops.detections import Detections
from gfldet.store import runs
from gfldet.writing import write_whole

if TYPE_CHECKING:
    from gfldet.labels.picture import Picture
    from gfldet.labels.writer import LabelFiles


@dataclass(frozen=True, slots=True, eq=False)
class Noted:
    """What is left of a prediction without its pixels, light enough to go to another process.

    entry          position of the frame's file in the source; all frames of a video have one
    name, file_name, path, on_disk  those of the frame
    height, width  of its picture, px
    detections     in px of its picture
    line           what tells people of it, where it goes to another process
    """

    entry: int
    name: str
    file_name: str
    path: str
    on_disk: bool
    height: int
    width: int
    detections: Detections
    line: str = ""


def noted(prediction: Prediction, line: str = "") -> Noted:
    """A prediction without its pixels."""
    frame, results = prediction.frame, prediction.results
    height, width = results.orig_shape
    return Noted(
        frame.entry,
        frame.name,
        frame.file_name,
        frame.path,
        frame.on_disk,
        height,
        width,
        prediction.detections,
        line,
    )


class Lists:
    """Writes into `folder`: predictions.json if `coco`, with the `category_ids` of the user's files, and what `labels`
    makes there."""

    def __init__(
        self,
        folder: Path,
        coco: bool,
        category_ids: tuple[int, ...],
        labels: Callable[[Path], LabelFiles] | None = None,
    ) -> None:
        self.folder, self._coco, self._category_ids = folder, coco, category_ids
        self._labels = labels(folder) if labels else None
        self._images: list[tuple[str, str]] = []  # name and file name of each
        self._tables: list[DetectionTable] = []

    def add(self, one: Noted, save: Callable[[Path], object] | None = None) -> None:
        """Take up the next prediction; `save` writes its picture to a path, which labels need if it is no file yet.

        OutputError if something cannot be written.
        """
        if self._labels:
            self._labels.add(_labelled(one, save))
        if self._coco:
            self._tables.append(table_of(len(self._images), one.detections))
            self._images.append((one.name, one.file_name))

    def close(self) -> None:
        """Finish the labels, and write predictions.json."""
        if self._labels:
            self._labels.close()
        if self._coco:
            ids = image_ids([name for name, _ in self._images])
            images = [(image_id, file_name) for image_id, (_, file_name) in zip(ids, self._images, strict=True)]
            rows = coco_results(joined(self._tables), images, self._category_ids)
            runs.write_rows(self.folder / "predictions.json", rows)


def _labelled(one: Noted, save: Callable[[Path], object] | None) -> Picture:
    """A prediction as labels, rounded as predictions.json has it."""
    from gfldet.labels.picture import Picture

    found = table_of(0, one.detections)
    return Picture(
        one.file_name if one.on_disk else f"{one.name}.jpg",
        Path(one.path) if one.on_disk else None,
        one.width,
        one.height,
        found.boxes,
        found.classes,
        found.scores,
        partial(_link, one.path) if save is None or one.on_disk else save,
    )


def _link(file: str, path: Path) -> None:
    """A picture of the user's at `path`: another name of its file, or a copy where the file system has none.

    Not a symbolic link: readers of data sets refuse what leads out of their folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.path.realpath(file)
    if os.path.lexists(path):
        if exists(path) and os.path.samefile(file, path):
            return
        path.unlink()
    try:
        os.link(file, path)
    except (OSError, NotImplementedError):
        with open(file, "rb") as source:
            write_whole(path, partial(shutil.copyfileobj, source), lasting=False)
