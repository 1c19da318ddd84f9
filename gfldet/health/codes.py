"""The kinds of finding of a check: how grave each is, its title, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from gfldet.data.records import Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """What all findings of a code have in common; `title` counts them: "20 rows that ...", `advice` is a sentence."""

    severity: Severity
    title: str
    advice: str = ""


KINDS: dict[str, Kind] = {
    # What training refuses.
    "unreadable-split": Kind("error", "splits that cannot be read"),
    "no-train-split": Kind("error", "data without a train split"),
    "no-val-split": Kind("error", "data without a val split"),
    "unreadable-entry": Kind("error", "entries of lists or JSONs that lead to no image"),
    "unreadable-image": Kind("error", "images that cannot be read", "Replace or remove them."),
    "unreadable-labels": Kind("error", "label rows that cannot be read", "Correct or remove them."),
    "unclear-rows": Kind("error", "rows that may be keypoints or polygons"),
    # Truths that are hardly what was meant.
    "train-without-boxes": Kind("error", "training splits without any box"),
    "boxes-tiny": Kind("error", "splits whose boxes are nearly all less than 1 px"),
    "boxes-outside": Kind("error", "splits whose boxes mostly lie outside of their images"),
    "boxes-crowd": Kind("error", "splits whose boxes are mostly regions to ignore"),
    # How rows and files were repaired.
    "no-label-file": Kind("warning", "images without a label file", "An empty file tells that one is background."),
    "labels-without-image": Kind("warning", "label files without an image"),
    "listed-again": Kind("warning", "images listed more than once"),
    "damaged-image": Kind("warning", "images that are damaged"),
    "polygons": Kind("warning", "polygons read as boxes"),
    "clipped-boxes": Kind("warning", "boxes that reach out of their image"),
    "boxes-without-area": Kind("warning", "boxes without area, dropped"),
    "repeated-rows": Kind("warning", "label rows that repeat another, dropped"),
    "repeated-boxes": Kind("warning", "boxes that repeat another of their class"),
    "swapped-sides": Kind("warning", "boxes with sides in the wrong order"),
    "other-size": Kind("warning", "images of another size than their labels say"),
    "turned-size": Kind("warning", "images turned against their labels"),
    "files": Kind("warning", "notes on files"),
    # Boxes.
    "box-outside": Kind("warning", "boxes that lie mostly outside of their image"),
    "box-tiny": Kind("warning", "boxes with a side of less than 2 px", "A slip of the hand makes such boxes."),
    "box-nearly-repeated": Kind("warning", "boxes nearly the same as another of their class", "Keep one of the two."),
    "box-of-two-classes": Kind("warning", "objects with boxes of two classes", "Keep the right one."),
    "box-beyond-reach": Kind("warning", "boxes larger than the bins can express at this imgsz"),
    "boxes-small-at-imgsz": Kind("warning", "splits whose boxes are mostly under 4 px at this imgsz"),
    "boxes-under-8px": Kind("notice", "splits with boxes under 8 px at this imgsz"),
    "box-odd-size": Kind("notice", "boxes of an odd size for their class"),
    "box-odd-shape": Kind("notice", "boxes of an odd shape for their class"),
    "box-fills-image": Kind("notice", "boxes that fill their image, unlike others of their class"),
    # Classes.
    "class-names-alike": Kind("warning", "classes whose names differ in case, blanks or hyphens alone"),
    "class-without-boxes": Kind("warning", "classes without a box in train"),
    "class-rare": Kind("notice", "classes with few boxes in train"),
    "class-dominant": Kind("notice", "classes that have nearly all boxes of train"),
    "val-without-boxes": Kind("warning", "validation splits without any box"),
    # Pictures.
    "image-in-two-splits": Kind("warning", "images that another split has too", "Keep each in one split."),
    "image-nearly-in-two-splits": Kind(
        "warning", "images nearly the same as one of another split", "Frames of one video belong in one split."
    ),
    "image-repeated": Kind("warning", "images that their split has more than once"),
    "image-nearly-repeated": Kind("notice", "images nearly the same as another of their split"),
    "image-blank": Kind(
        "warning", "images of one colour", "A camera that failed, or a frame from before a video begins."
    ),
    # How files are read.
    "samples-above-range": Kind("warning", "16-bit images with samples above the range"),
    "samples-scaled": Kind("notice", "16-bit images of fewer bits"),
    "how-read": Kind("notice", "notes on how the data are read"),
}


def kind_of(code: str, severity: Severity) -> Kind:
    """The kind of a code; of one that is not listed the code itself is the title."""
    return KINDS.get(code) or Kind(severity, code.replace("-", " "))
