"""What is noticed about the data of a split, as values: a run prints them, a page or another program lists them.

What makes data unusable is an error instead (`gfldet.errors.DataError`); a finding lets the work go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfldet.data.records import Finding, Records, Split
from gfldet.data.shared import shared_images
from gfldet.errors import part_of

NAMED = 20  # names that a text lists before it counts the others
SMALL = 4.0  # px of the training size: half of the finest stride


@dataclass(frozen=True, slots=True)
class BoxCounts:
    """Boxes of a split as its files give them, before any is clipped or dropped.

    tiny     boxes less than 1 px wide and high;  outside  boxes with less than half of their area in their image
    regions  boxes that are regions to ignore
    """

    boxes: int = 0
    tiny: int = 0
    outside: int = 0
    regions: int = 0

    def __add__(self, other: BoxCounts) -> BoxCounts:
        return BoxCounts(
            self.boxes + other.boxes,
            self.tiny + other.tiny,
            self.outside + other.outside,
            self.regions + other.regions,
        )


def findings_of_boxes(split: str, counts: BoxCounts) -> list[Finding]:
    """What hints at boxes that are not what was meant, where it holds for more than half of a split's boxes."""
    shares = (
        "boxes-tiny", counts.tiny,
        "[is|are] less than 1 px wide and high; if the file gives shares of the image (0 to 1), multiply them by its "
        "width and height: boxes of COCO and VOC are in pixels",
    )  # fmt: skip
    outside = (
        "boxes-outside", counts.outside,
        "[lies|lie] outside of [its|their] image, or mostly so; check that they belong to these images, in their size",
    )  # fmt: skip
    crowd = (
        "boxes-crowd", counts.regions,
        "[is|are] marked as a crowd (iscrowd): regions to ignore, not truths; if they are objects, set iscrowd to 0",
    )  # fmt: skip
    return [
        Finding(code, "error", f"{split}: {part_of(count, counts.boxes, 'box', text)}", count=count, split=split)
        for code, count, text in (shares, outside, crowd)
        if 2 * count > counts.boxes
    ]


def findings_of_training(train: Split, val: Split | None, frame: tuple[int, int]) -> list[Finding]:
    """What a training run should know of its truths before it begins: `frame` is its (height, width) in px."""
    found = _without_boxes(train)
    if not found:
        found = [*_classes_without_boxes(train), *_small_boxes(train, frame)]
    if val is not None:
        if not len(val.records.boxes):
            text = "val: no boxes, so there is no AP to go by; the weights of the last epoch count as the best"
            found.append(Finding("val-without-boxes", "warning", text, count=len(val.records), split="val"))
        found += _shared(train, val)
    return found


@dataclass(frozen=True, slots=True)
class Reach:
    """The longest side of a box, px of the training size, that the bins of a model can express.

    From the point nearest to a truth's centre, half a stride away at worst, the farther side has to be in reach.

    bins     a side of a box reaches so many strides
    coarsest stride of the model, px
    reg_max  the setting that `bins` comes from
    """

    bins: float
    coarsest: int
    reg_max: int

    @property
    def px(self) -> float:
        return (2 * self.bins - 1) * self.coarsest


def findings_of_reach(train: Split, frame: tuple[int, int], reach: Reach) -> list[Finding]:
    """Boxes that are larger than the bins can express: they come out too small, whatever the training."""
    sides = longer_sides(train.records, train.records.scales(frame))
    total, beyond, largest = len(sides), int((sides > reach.px).sum()), float(sides.max(initial=0))
    if not beyond:
        return []
    bins = int(np.ceil((largest / reach.coarsest + 1) / 2)) + 1
    text = (
        f"{part_of(beyond, total, 'box', f'({beyond / total:.1%}) [is|are] larger')} than the {reach.px:.0f} px that "
        f"reg_max={reach.reg_max} can express at this imgsz; set reg_max={bins} (or 1, for sides without bins), or a "
        "smaller imgsz"
    )
    return [Finding("boxes-beyond-reach", "warning", text, count=beyond, split="train")]


def longer_sides(records: Records, scales: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N,) longer sides of the boxes of images, each scaled by its own of `scales` (B,)."""
    sides: NDArray[np.float32] = (records.boxes[:, 2:] - records.boxes[:, :2]).max(1, initial=0)
    return scales.astype(np.float32)[records.images] * sides


def _without_boxes(train: Split) -> list[Finding]:
    if len(train.records.boxes):
        return []
    text = (
        "train: none of the images has a box, so training teaches that there is nothing to find; "
        "check the label files (some programs write empty ones for polygons and masks: export boxes)"
    )
    return [Finding("train-without-boxes", "error", text, count=len(train.records), split="train")]


def _classes_without_boxes(train: Split) -> list[Finding]:
    counts = np.bincount(train.records.classes, minlength=len(train.names)).tolist()
    without = [name for name, count in zip(train.names, counts, strict=True) if not count]
    if not without:
        return []
    some = part_of(len(without), len(train.names), "class", "[has|have] no box, so [it|they] cannot be learned")
    text = f"train: {some}: {named(without)}"
    return [Finding("class-without-boxes", "warning", text, count=len(without), split="train")]


def _small_boxes(train: Split, frame: tuple[int, int]) -> list[Finding]:
    records = train.records
    sides = longer_sides(records, np.minimum(records.scales(frame), 1.0))
    small, total = int((sides < SMALL).sum()), len(sides)
    if 2 * small <= total or any(finding.code == "boxes-tiny" for finding in train.findings):
        return []
    text = (
        f"train: {part_of(small, total, 'box', '[is|are] smaller')} than {SMALL:g} px at this imgsz; set a larger "
        "imgsz, or train on tiles of the images, as with tile=640"
    )
    return [Finding("boxes-small-at-imgsz", "warning", text, count=small, split="train")]


def _shared(train: Split, val: Split) -> list[Finding]:
    shared = shared_images(train.records, val.records)
    if not shared:
        return []
    too = part_of(len(shared), len(val.records), "image", "[is a training image|are training images] too")
    text = (
        f"val: {too} (the same file, or the same bytes), so AP tells what the model remembers and not what it has "
        "learned; use other images for val"
    )
    names = "" if len(shared) == len(val.records) else f": {named(record.file_name for record in shared)}"
    return [Finding("shared-images", "warning", text + names, count=len(shared), split="val")]


def named(names: Iterable[str]) -> str:
    """The first names of a list, and how many more there are."""
    listed = list(names)
    more = f", and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
