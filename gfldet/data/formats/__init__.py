"""Label formats, a module each: files on disk -> an `Index` of images, each with a way to read its labels.

A format knows its files and nothing else.  Decoding the images, clipping boxes to them and putting all problems
into one message is the work of `gfldet.data.split`, the same for every format.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What was repaired; the split counts these over all images and names the places.
POLYGON = "polygon row(s) were read as the bounding boxes of their polygons"
CLIPPED = "box(es) reached out of the image and were clipped"
EMPTY = "box(es) without any area inside the image were dropped"
REPEATED = "row(s) that repeat a row of the same file were dropped"
TWICE = "box(es) repeat another box of the same class in the same image; kept as they are"
TURNED = "box(es) had their corners the wrong way round and were turned"
NO_LABELS = "image(s) have no label file and count as background"


@dataclass(slots=True)
class Labels:
    """The labels of one image as its file gives them; the image itself is not known yet.

    boxes     M rows xyxy, in pixels, or as shares of width and height if `normalised`
    classes   M positions in the names;  crowd  M flags: a region to ignore;  places  M "file:line" for messages
    declared  (width, height) that the file claims for the image, if it does
    problems  what cannot be read, one message each, with file and line
    notes     what was repaired: (one of the sentences above, place)
    """

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    normalised: bool = False
    declared: tuple[int, int] | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, box: tuple[float, float, float, float], cls: int, place: str, crowd: bool = False) -> None:
        """Appends one box."""
        self.boxes.append(box)
        self.classes.append(cls)
        self.crowd.append(crowd)
        self.places.append(place)


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a split and how to read its labels; `labels` may be called from any thread."""

    path: Path
    file_name: str
    image_id: int | str
    labels: Callable[[], Labels]


@dataclass(slots=True)
class Index:
    """All images of a split in a stable order, and what is wrong or worth telling before any image is opened."""

    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def nearest(word: str, known: Sequence[str]) -> str:
    """' Did you mean ...?' with the nearest right spelling, or nothing."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), list(folded), n=1)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def counted(count_of: str, places: Sequence[str], limit: int = 20) -> str:
    """'3 box(es) were dropped: a.txt:1, b.txt:2, c.txt:9', with at most `limit` places named."""
    more = f", and {len(places) - limit} more" if len(places) > limit else ""
    return f"{len(places)} {count_of}: {', '.join(places[:limit])}{more}"


def relative(path: Path, folder: Path) -> str:
    """`path` seen from `folder` with forward slashes; unchanged where it lies elsewhere."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def repeats(paths: Sequence[Path]) -> list[str]:
    """The warning about images listed more than once, if there are any."""
    seen: set[Path] = set()
    again = [str(path) for path in paths if path in seen or seen.add(path)]  # type: ignore[func-returns-value]
    return [counted("image(s) are listed more than once and count each time", again)] if again else []
