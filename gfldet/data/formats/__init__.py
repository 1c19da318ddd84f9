"""Label formats, one module per format: files on disk -> an `Index` of images, each with a function for its labels.

A format only knows its files.  `gfldet.data.split` does the work that is the same for every format: it decodes the
images, clips the boxes to them and puts all problems into one message.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from gfldet.data.formats.keypoints import LongRows
from gfldet.data.located import Located
from gfldet.data.records import Finding
from gfldet.errors import nearest as similar
from gfldet.errors import shown, worded

NAMED = 20  # places that are named of a repair; the others are only counted
MAX_WORD, MAX_KNOWN = 100, 2000  # letters and words for which a similar word is looked for: it takes their product

# Kinds of repair, as `errors.worded` takes them.  `gfldet.data.split` counts them over all images and names the places.
POLYGON = "polygon row(s) [was|were] read as the bounding box(es) of [its|their] polygon(s)"
CLIPPED = "box(es) reached out of the image and [was|were] clipped"
EMPTY = "box(es) without any area inside the image [was|were] dropped"
REPEATED_ROW = "row(s) that [repeats|repeat] a row of the same file [was|were] dropped"
REPEATED_BOX = "box(es) [repeats|repeat] another box of the same class in the same image; kept as [it is|they are]"
SWAPPED = "box(es) had opposite sides in the wrong order; the sides were swapped"
NO_LABELS = "image(s) [has|have] no label file and [counts|count] as background"
OTHER_SIZE = "image(s) [has|have] another size than [its|their] label file says; check that the boxes fit"
TURNED_SIZE = (
    "image(s) [has|have] the width and height of [its|their] label file swapped, as an EXIF orientation does; "
    "the boxes are read as boxes of the upright image, check that they fit"
)
WITHOUT_IMAGE = "label file(s) [has|have] no image and [was|were] skipped"
XML_WITHOUT_IMAGE = "XML file(s) [has|have] no image and [was|were] skipped"
LISTED_AGAIN = "image(s) [is|are] listed more than once and [counts|count] each time"
CODES = {  # kind of repair -> code of its finding
    NO_LABELS: "no-label-file",
    WITHOUT_IMAGE: "labels-without-image",
    XML_WITHOUT_IMAGE: "labels-without-image",
    LISTED_AGAIN: "listed-again",
    POLYGON: "polygons",
    CLIPPED: "clipped-boxes",
    EMPTY: "boxes-without-area",
    REPEATED_ROW: "repeated-rows",
    REPEATED_BOX: "repeated-boxes",
    SWAPPED: "swapped-sides",
    OTHER_SIZE: "other-size",
    TURNED_SIZE: "turned-size",
}
ONE = {  # kind of repair -> the same of one place
    NO_LABELS: "has no label file and counts as background",
    WITHOUT_IMAGE: "a label file without an image; skipped",
    XML_WITHOUT_IMAGE: "an XML file without an image; skipped",
    LISTED_AGAIN: "listed more than once; it counts each time",
    POLYGON: "a polygon, read as its bounding box",
    CLIPPED: "the box reaches out of the image; clipped",
    EMPTY: "the box has no area inside the image; dropped",
    REPEATED_ROW: "the row repeats a row of the same file; dropped",
    REPEATED_BOX: "the box repeats another box of the same class in the same image; kept as it is",
    SWAPPED: "the box has opposite sides in the wrong order; the sides were swapped",
    OTHER_SIZE: "the image has another size than its label file says; check that the boxes fit",
    TURNED_SIZE: "width and height of the image are swapped in its label file; check that the boxes fit",
}


Note = tuple[str, Located]  # a kind of repair, and its place


@dataclass(slots=True)
class Labels:
    """The labels of one image as its file gives them, before the image is decoded.

    boxes     M rows xyxy, in pixels, or as shares of width and height if `normalised`
    classes   M positions in the names;  crowd  M flags: a region to ignore
    places    M "file:line" for messages
    declared  the (width, height) of the image that the file gives; None if it gives none
    problems  one message, with file and line, for each thing that cannot be read
    notes     one (kind of repair, place) for each repair
    long_rows the YOLO rows that are polygons or keypoints
    """

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    places: Sequence[Located] = field(default_factory=list)
    normalised: bool = False
    declared: tuple[int, int] | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    long_rows: LongRows = field(default_factory=LongRows)

    def add(self, box: tuple[float, float, float, float], cls: int, place: Located, crowd: bool = False) -> None:
        """Appends one box."""
        self.boxes.append(box)
        self.classes.append(cls)
        self.crowd.append(crowd)
        self.places.append(place)  # type: ignore[attr-defined]


@dataclass(slots=True)
class Places:
    """Where something was repaired: how often, and the first NAMED places."""

    count: int = 0
    first: list[Located] = field(default_factory=list)

    def add(self, place: Located) -> None:
        """One more place."""
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(place)

    def update(self, other: Places) -> None:
        """Those of images further on."""
        self.count += other.count
        self.first += other.first[: NAMED - len(self.first)]


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a split and how to read its labels; `labels` may be called from any thread."""

    path: Path
    file_name: str
    image_id: int | str
    labels: Callable[[], Labels]


@dataclass(slots=True)
class Index:
    """All images of a split in a stable order, with what is found before any image is opened.

    problems  what cannot be used;  warnings  what is told as it stands;  notes  one (kind, place) for each file
    """

    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def nearest(word: object, known: Sequence[str]) -> str:
    """' Did you mean ...?' with the most similar known word; '' if none is similar, and for what is no word."""
    if not isinstance(word, str) or len(word) > MAX_WORD or len(known) > MAX_KNOWN:
        return ""
    return _nearest(word, tuple(known))


@lru_cache(1000)  # a class that is written wrong is so in every row
def _nearest(word: str, known: tuple[str, ...]) -> str:
    close = similar(word, known)
    return f" Did you mean {shown(close)}?" if close else ""


def with_places(kind: str, places: Places) -> str:
    """'3 boxes were dropped: a.txt:1, b.txt:2, c.txt:9', with the first places."""
    more = f", and {places.count - NAMED} more" if places.count > NAMED else ""
    return f"{worded(places.count, kind)}: {', '.join(places.first)}{more}"


def repeats(paths: Sequence[Path]) -> list[Note]:
    """A note for each time that an image is listed again."""
    seen: set[str] = set()
    again = []
    for path in paths:
        text = os.path.normcase(path)
        if text in seen:
            again.append(path)
        seen.add(text)
    return [(LISTED_AGAIN, Located(str(path), path)) for path in again]


def by_kind(notes: Iterable[Note]) -> dict[str, Places]:
    """The places of each kind of repair, the kinds in the order in which they were met."""
    places: dict[str, Places] = {}
    for kind, place in notes:
        places.setdefault(kind, Places()).add(place)
    return places


def merged(split: str, places: Mapping[str, Places]) -> list[Finding]:
    """One finding for each kind of repair, with its count and its first places."""
    return [
        Finding(CODES[kind], "warning", f"{split}: {with_places(kind, found)}", count=found.count, split=split)
        for kind, found in places.items()
    ]
