"""What a format writes: a picture with its boxes, the classes, and where; and the file that it writes row by row."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from gfldet.files import as_yaml
from gfldet.writing import whole

_NOT_IN_XML = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # slow to compile, and hardly ever needed


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture with its D boxes, all in px of the upright picture, as programs show it.

    file_name  relative, with forward slashes; no other picture has it
    path       where the picture lies; None if it is no file yet, as a frame of a video
    width, height  of the upright picture, px
    boxes      (D, 4) float64 xywh (left, top, width, height), px
    classes    (D,) int64
    scores     (D,) float64
    put        makes the picture a file at a path, whose folder it makes too
    """

    file_name: str
    path: Path | None
    width: int
    height: int
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    put: Callable[[Path], object]

    @property
    def stem(self) -> str:
        """The file name without its suffix."""
        return str(PurePosixPath(self.file_name).with_suffix(""))

    def rows(self) -> Iterator[tuple[int, float, list[float]]]:
        """(class, score, [left, top, width, height]) of each box."""
        return zip(self.classes.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where a format is written, and what all its pictures share.

    folder      the format's own
    names, ids  of the classes, by number; the ids are those of the user's files
    model       the name of the model
    image_url   what stands before the file names in addresses; empty: the pictures are local files
    open_files  closes what is being written
    """

    folder: Path
    names: tuple[str, ...]
    ids: tuple[int, ...]
    model: str
    image_url: str
    open_files: ExitStack


class Format(Protocol):
    """Writes pictures in one format as they come.  Raises OSError."""

    by_stem: bool  # whether the labels of a picture are found by its file name without suffix

    def __init__(self, target: Target) -> None: ...

    def add(self, picture: Picture) -> None:
        """Write a picture and its boxes."""

    def end(self) -> None:
        """Write what follows the last picture."""


class RowFile:
    """A UTF-8 file written row by row.  It has its name once `Target.open_files` is closed without an error."""

    def __init__(self, target: Target, inner: str, head: str = "", between: str = "") -> None:
        path = target.folder / inner
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = target.open_files.enter_context(whole(path))
        self._file.write(head.encode())
        self._before, self._between = "", between

    def add(self, row: str) -> None:
        self._file.write(f"{self._before}{row}".encode())
        self._before = self._between

    def end(self, tail: str) -> None:
        self._file.write(tail.encode())

    def end_with(self, rows: BinaryIO, tail: str) -> None:
        """What another file holds, and the tail."""
        rows.seek(0)
        shutil.copyfileobj(rows, self._file)
        self.end(tail)


def data_yaml(**values: Any) -> str:
    """The text of a data YAML of gfldet."""
    return "# Written by gfldet predict.\n" + as_yaml(values)


def xml_text(text: str) -> str:
    """Text for an element of XML; letters that XML cannot hold become U+FFFD."""
    return re.sub(_NOT_IN_XML, "\ufffd", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def xml_value(text: str) -> str:
    """Text for an attribute of XML, with its quotes."""
    kept = xml_text(text).replace('"', "&quot;")
    return '"' + re.sub(r"[\t\n\r]", lambda found: f"&#{ord(found[0])};", kept) + '"'


def is_plain_name(text: str) -> bool:
    """Whether all formats can hold a file name: no line breaks or other control characters, nothing but UTF-8."""
    return not re.search("[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff\ufffe\uffff]", text)
