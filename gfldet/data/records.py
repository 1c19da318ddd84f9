"""What the data room gives to the other rooms: a `Record` is one image, a `Split` is a list of images, a `Finding` is
what is noticed about them.

Letters: B images of a split, M truths of an image, K ignore regions of an image, N and R those of the split, C classes.
All boxes are xyxy in pixels of the upright image (after EXIF rotation), clipped to it.  Nothing here holds pixels, and
nothing is cached on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from gfldet.ops.tiles import Window

Severity = Literal["error", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "notice")
Box = tuple[float, float, float, float]  # xyxy px
ANY_CLASS = -1  # the class of an ignore region for all classes

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One image and its truths.

    path       where the image is read from (the built-in shapes use a virtual path, see `shapes.py`)
    image_id   COCO: the id in the user's file; otherwise the running number in the split, from 0
    file_name  the image's path relative to the split's image folder, with forward slashes
    width, height  of the upright image, px
    boxes      (M, 4) float32 xyxy px, clipped to the image
    classes    (M,) int64, positions in `Split.names`, 0..C-1
    ignore     (K, 4) float32 xyxy px: regions in which neither a hit nor a miss counts (COCO iscrowd)
    ignore_classes  (K,) int64: a region ignores the detections of this class; None: every region ignores all classes
    bits       by which the samples of a 16-bit file are scaled to 8 bits (see `depth.py`); None for other files
    window     the part of the file's picture that the image is (a tile); None: all of it
    """

    path: Path
    image_id: int | str
    file_name: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    ignore: NDArray[np.float32]
    ignore_classes: NDArray[np.int64] | None = None
    bits: int | None = None
    window: Window | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Records(Sequence[Record]):
    """The images of a split, in a stable order, as columns: a set of 118,000 images has 860,000 boxes, and each as an
    object would take ten times the memory.  `records[i]` is image i, with views of the columns.

    paths, image_ids, file_names   of B images, as in `Record`
    sizes          (B, 2) int32 width, height
    boxes, classes (N, 4) float32, (N,) int64: those of image i are the rows starts[i] to starts[i + 1]
    ignore, ignore_classes  (R, 4) float32, (R,) int64, ANY_CLASS for all: rows ignore_starts[i] to ignore_starts[i + 1]
    starts, ignore_starts   (B + 1,) int64
    bits           (B,) uint8, 0 for files that are not of 16 bits
    windows        of B images, as in `Record`; empty: none has one
    """

    paths: Sequence[str]
    image_ids: Sequence[int | str]
    file_names: Sequence[str]
    sizes: NDArray[np.int32]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    starts: NDArray[np.int64]
    ignore: NDArray[np.float32]
    ignore_classes: NDArray[np.int64]
    ignore_starts: NDArray[np.int64]
    bits: NDArray[np.uint8]
    windows: Sequence[Window | None] = ()

    @classmethod
    def of(cls, records: Iterable[Record]) -> Records:
        """Single records as columns; columns as they are."""
        if isinstance(records, Records):
            return records
        some = list(records)
        no_class = np.zeros(0, np.int64)
        return cls(
            [str(one.path) for one in some],
            [one.image_id for one in some],
            [one.file_name for one in some],
            np.array([(one.width, one.height) for one in some], np.int32).reshape(-1, 2),
            np.concatenate([np.zeros((0, 4)), *(one.boxes for one in some)], dtype=np.float32),
            np.concatenate([no_class, *(one.classes for one in some)], dtype=np.int64),
            starts_of([len(one.boxes) for one in some]),
            np.concatenate([np.zeros((0, 4)), *(one.ignore for one in some)], dtype=np.float32),
            np.concatenate([no_class, *(_ignore_classes(one) for one in some)], dtype=np.int64),
            starts_of([len(one.ignore) for one in some]),
            np.array([one.bits or 0 for one in some], np.uint8),
            [one.window for one in some] if any(one.window for one in some) else (),
        )

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        i = range(len(self))[index]
        truths = slice(self.starts[i], self.starts[i + 1])
        regions = slice(self.ignore_starts[i], self.ignore_starts[i + 1])
        ignore_classes = self.ignore_classes[regions]
        width, height = self.sizes[i].tolist()
        return Record(
            Path(self.paths[i]),
            self.image_ids[i],
            self.file_names[i],
            width,
            height,
            self.boxes[truths],
            self.classes[truths],
            self.ignore[regions],
            None if (ignore_classes == ANY_CLASS).any() else ignore_classes,
            int(self.bits[i]) or None,
            self.windows[i] if self.windows else None,
        )

    @property
    def images(self) -> NDArray[np.int64]:
        """(N,) the image that each truth is in."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def scales(self, frame: tuple[int, int]) -> NDArray[np.float64]:
        """(B,) by which each image is scaled to fit into `frame` (height, width); above 1 for a smaller image."""
        return np.minimum(frame[0] / self.sizes[:, 1], frame[1] / self.sizes[:, 0])


def starts_of(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """(B,) rows of each image -> (B + 1,) where they start, and the end."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Up to `most` of the items, at equal steps from the first one on; fewer where there are fewer."""
    return items[:: max(1, len(items) // most)][:most]


def _ignore_classes(record: Record) -> NDArray[np.int64]:
    return np.full(len(record.ignore), ANY_CLASS) if record.ignore_classes is None else record.ignore_classes


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is noticed: of one place, or of many, with their count.

    code      the kind in a few fixed words, for programs
    severity  "error": training refuses it, or the truths are hardly what was meant; "warning": the result may surprise;
              "notice": worth a look, or how it was read
    text      for people: begins with the split, tells what was found and what to do
    file      where it is to be mended: a label file, an image; None: the split as a whole, or several files
    line      in the file, from 1
    box       (x1, y1, x2, y2) px of the upright image, as the label file gives it
    count     how many boxes, images or classes
    split     "train", "val" or "test"; empty: the data set
    image     the image that it is about
    other     the other image, of a pair
    label     the name of the class that it is about
    """

    code: str
    severity: Severity
    text: str
    file: Path | None = None
    line: int | None = None
    box: Box | None = None
    count: int = 1
    split: str = ""
    image: Path | None = None
    other: Path | None = None
    label: str | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """The images of "train", "val" or "test", in a stable order.

    records       given as a list of `Record`, they become columns
    names         class names, C of them
    category_ids  class position -> id in the user's file (COCO ids survive; 0..C-1 for YOLO and VOC)
    bits          of its 16-bit files, one number for all of them; None if it has no such file
    findings      one for each kind of repair, for each image left out, and for what is odd about the boxes
    """

    name: str
    records: Records
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    findings: tuple[Finding, ...] = ()
    bits: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", Records.of(self.records))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of the findings."""
        return tuple(finding.text for finding in self.findings)
