"""`LabelFiles`: pictures with their boxes, in one or several formats, written as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from gfldet.errors import shown
from gfldet.labels.coco import Coco
from gfldet.labels.cvat import Cvat
from gfldet.labels.labelstudio import LabelStudio
from gfldet.labels.picture import Format, Picture, Target, is_plain_name
from gfldet.labels.voc import Voc
from gfldet.labels.yolo import Yolo
from gfldet.writing import output_errors

FORMATS: dict[str, type[Format]] = {"labelstudio": LabelStudio, "cvat": Cvat, "coco": Coco, "voc": Voc, "yolo": Yolo}
"""The words of `save_format`, each the name of the folder that its format is written into."""


class LabelFiles:
    """Writes each format into a folder of its own below `folder`.

    Files that hold many pictures get their names in `close`; if an error comes first there are none of them.  Nothing
    is kept in memory of a picture but its name.  `tell` gets a sentence about the pictures that were left out.
    """

    def __init__(
        self,
        folder: Path,
        formats: Sequence[str],
        names: Sequence[str],
        ids: Sequence[int],
        model: str,
        image_url: str,
        tell: Callable[[str], object],
    ) -> None:
        """Raises OutputError if a file cannot be written; so do `add` and `close`."""
        self.folder = folder
        self._tell = tell
        self._by_stem = [word for word in dict.fromkeys(formats) if FORMATS[word].by_stem]
        self._seen: set[str] = set()
        self._stems: set[str] = set()
        self._odd: list[str] = []  # names that not all formats can hold
        self._alike: list[str] = []  # names that are those of other pictures but for the suffix
        self._open = ExitStack()
        self._writers: list[Format] = []
        target = Target(folder, tuple(names), tuple(ids), model, image_url, self._open)
        with self._or_nothing():
            for word in dict.fromkeys(formats):
                self._writers.append(FORMATS[word](replace(target, folder=folder / word)))

    def add(self, picture: Picture) -> None:
        """Write one picture, unless it came before."""
        if picture.file_name in self._seen:
            return
        self._seen.add(picture.file_name)
        if not is_plain_name(picture.file_name):
            self._odd.append(picture.file_name)
            return
        alike = picture.stem in self._stems
        self._stems.add(picture.stem)
        if alike and self._by_stem:
            self._alike.append(picture.file_name)
        with self._or_nothing():
            for writer in self._writers:
                if not (alike and writer.by_stem):
                    writer.add(picture)

    def close(self) -> None:
        """Finish the files, and tell of the pictures that were left out."""
        writers, self._writers = self._writers, []
        with self._or_nothing(), self._open:
            for writer in writers:
                writer.end()
        if self._odd:
            self._tell(_left_out(self._odd, "labels", "their names hold letters that label files cannot hold"))
        if self._alike:
            words = " and ".join(self._by_stem)
            told = "others have the same names but for the suffix, and so the same label files"
            self._tell(_left_out(self._alike, words, told))
        self._odd, self._alike = [], []

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """What fails leaves no file half written, and an OSError becomes an OutputError."""
        try:
            with output_errors(self.folder):
                yield
        except BaseException:
            self._writers = []
            with self._open:
                raise


def _left_out(names: Sequence[str], where: str, reason: str) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{shown(names[0])}{more}: left out of {where}; {reason}. Rename them"
