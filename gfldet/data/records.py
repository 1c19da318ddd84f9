"""What the data room gives to the other rooms: a `Record` is one image, a `Split` is a list of images, a `Finding` is
what is noticed about them.

Letters: M truths of an image, K ignore regions of an image, C classes.  All boxes are xyxy in pixels of the
upright image (after EXIF rotation), clipped to it.  Nothing here holds pixels, and nothing is cached on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Severity = Literal["error", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "notice")


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
    box: tuple[float, float, float, float] | None = None
    count: int = 1
    split: str = ""
    image: Path | None = None
    other: Path | None = None
    label: str | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """The images of "train", "val" or "test", in a stable order.

    names         class names, C of them
    category_ids  class position -> id in the user's file (COCO ids survive; 0..C-1 for YOLO and VOC)
    bits          of its 16-bit files, one number for all of them; None if it has no such file
    findings      one for each kind of repair, for each image left out, and for what is odd about the boxes
    """

    name: str
    records: tuple[Record, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    findings: tuple[Finding, ...] = ()
    bits: int | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of the findings."""
        return tuple(finding.text for finding in self.findings)
