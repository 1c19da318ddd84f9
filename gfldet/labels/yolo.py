"""YOLO: a text file for each picture, in the folders `images` and `labels`, with data.yaml and classes.txt.

The label files have no scores, since readers of labels refuse a sixth value.
"""

from __future__ import annotations

from collections.abc import Sequence

from gfldet.labels.picture import Picture, RowFile, Target, data_yaml
from gfldet.writing import write_text


class Yolo:
    """See `picture.Format`."""

    by_stem = True

    def __init__(self, target: Target) -> None:
        self._target = target
        RowFile(target, "data.yaml", data_yaml(train="images", names=dict(enumerate(target.names))))
        RowFile(target, "classes.txt", "".join(f"{' '.join(name.split())}\n" for name in target.names))

    def add(self, picture: Picture) -> None:
        picture.put(self._target.folder / "images" / picture.file_name)
        sides = (picture.width, picture.height)
        rows = [
            (number, ((left + w / 2) / sides[0], (top + h / 2) / sides[1], w / sides[0], h / sides[1]))
            for number, _, (left, top, w, h) in picture.rows()
        ]
        path = self._target.folder / "labels" / f"{picture.stem}.txt"
        write_text(path, "".join(f"{label_row(*row)}\n" for row in rows))

    def end(self) -> None:
        pass


def label_row(number: int, values: Sequence[float]) -> str:
    """A row of a label file: the class and the values, shares of the image's sides."""
    return " ".join([str(number), *(f"{value:.6f}" for value in values)])
