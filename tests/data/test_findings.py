"""What a run is told of its truths before it begins: each oddity once, as a value with a code; good data give none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from gfldet.data.findings import BoxCounts, findings_of_boxes, findings_of_training
from gfldet.data.records import Record, Split
from gfldet.data.shared import shared_images
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split

NAMES = ("cat", "dog", "bird")


def record(path: str | Path, *boxes: tuple[float, ...], cls: int = 0, width: int = 100, height: int = 80) -> Record:
    truths = np.array(boxes, np.float32).reshape(-1, 4)
    nothing = np.zeros((0, 4), np.float32)
    return Record(Path(path), 0, Path(path).name, width, height, truths, np.full(len(truths), cls), nothing)


def split(name: str, *records: Record) -> Split:
    return Split(name, records, NAMES, (0, 1, 2))


BIG = (10, 10, 50, 50)
ALL = [record(f"{cls}.jpg", BIG, cls=cls) for cls in range(3)]


def codes(*records: Record, val: Split | None = None) -> list[str]:
    return [finding.code for finding in findings_of_training(split("train", *records), val, (64, 64))]


def test_good_data_give_no_findings() -> None:
    assert codes(*ALL, record("empty.jpg"), val=split("val", record("v.jpg", BIG))) == []
    assert findings_of_boxes("train", BoxCounts(10, 5, 5, 5)) == []
    assert findings_of_boxes("train", BoxCounts()) == []


def test_training_without_a_box() -> None:
    (found,) = findings_of_training(split("train", record("a.jpg"), record("b.jpg")), None, (64, 64))
    assert (found.code, found.severity, found.count) == ("train-without-boxes", "error", 2)
    assert found.text.startswith("train: none of the images has a box")


def test_classes_without_a_training_box() -> None:
    (found,) = findings_of_training(split("train", *ALL[1:2]), None, (64, 64))
    assert (found.code, found.count) == ("class-without-boxes", 2)
    assert found.text == "train: 2 of 3 classes have no box, so they cannot be learned: cat, bird"


def test_boxes_that_are_small_at_the_training_size() -> None:
    large = record("l.jpg", (0, 0, 50, 50), (10, 10, 70, 20), (30, 30, 80, 32), width=1000, height=1000)
    assert codes(*ALL, large) == []  # 3.2, 3.84 and 3.2 px at 64: three of six boxes
    assert codes(*ALL[:2], record("3.jpg", (0, 0, 3, 2), cls=2), large) == ["boxes-small-at-imgsz"]
    assert codes(*(record(f"{c}.jpg", (0, 0, 4, 1), cls=c, width=50, height=50) for c in range(3))) == []


def test_val_without_a_box() -> None:
    assert codes(*ALL, val=split("val", record("v.jpg"))) == ["val-without-boxes"]


@pytest.mark.parametrize(
    ("counts", "code", "told"),
    [
        (BoxCounts(12, tiny=12), "boxes-tiny", "val: all 12 boxes are less than 1 px wide and high"),
        (BoxCounts(12, outside=7), "boxes-outside", "val: 7 of 12 boxes lie outside of their image"),
        (BoxCounts(12, regions=12), "boxes-crowd", "val: all 12 boxes are marked as a crowd (iscrowd)"),
    ],
)
def test_most_boxes_are_not_what_was_meant(counts: BoxCounts, code: str, told: str) -> None:
    (found,) = findings_of_boxes("val", counts)
    assert (found.code, found.severity) == (code, "error")
    assert found.text.startswith(told)


def test_boxes_are_counted_as_the_files_give_them(image, text) -> None:
    """Shares where px belong, and boxes of a larger image: dropped and clipped boxes count too."""
    image("images/a.png", 40, 20)
    rows = ("0.2 0.3 0.4 0.3", "0.5 0.5 0.005 0.005", "100 100 20 20", "30 10 40 40", "1 1 10 10")
    things = "".join(
        f"<object><name>cat</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{float(x) + float(w)}</xmax>"
        f"<ymax>{float(y) + float(h)}</ymax></bndbox></object>"
        for x, y, w, h in map(str.split, rows)
    )
    text("images/a.xml", f"<annotation>{things}</annotation>")
    spec = load_spec(text("d.yaml", "train: images\nnames: [cat]"))
    assert not {"boxes-tiny", "boxes-outside"} & {finding.code for finding in load_split(spec, "train").findings}
    text("images/a.xml", "<annotation>" + "</object>".join(things.split("</object>")[:3]) + "</object></annotation>")
    found = [finding.code for finding in load_split(spec, "train").findings]
    assert "boxes-tiny" in found
    assert "boxes-outside" not in found
    text("images/a.xml", "<annotation>" + "</object>".join(things.split("</object>")[2:]) + "</annotation>")
    found = [finding.code for finding in load_split(spec, "train").findings]
    assert "boxes-outside" in found


def test_the_same_file_by_another_path_and_the_same_bytes(image, tmp_path: Path) -> None:
    first = image("train/a.png", 40, 20)
    copy, changed = tmp_path / "val/copy.png", tmp_path / "val/changed.png"
    copy.parent.mkdir()
    shutil.copy(first, copy)
    data = bytearray(first.read_bytes())
    data[60] ^= 1  # the same length and the same end
    changed.write_bytes(b"x" * 5000 + data)
    padded = tmp_path / "train/padded.png"
    padded.write_bytes(b"y" * 5000 + data)
    linked = tmp_path / "val/linked.png"
    os.symlink(first, linked)
    dotted = tmp_path / "val/../train/a.png"
    gone = tmp_path / "gone.png"
    train = [record(first), record(padded), record("shapes://train/1")]
    val = [record(path) for path in (copy, changed, linked, dotted, gone, "shapes://train/1")]
    assert [one.path for one in shared_images(train, val)] == [copy, linked, dotted]


def test_shared_images_are_told(image) -> None:
    one, other = record(image("a.png", 100, 80), BIG, cls=0), record(image("b.png", 100, 81), BIG, cls=1)
    third = record(image("c.png", 100, 82), BIG, cls=2)
    (whole,) = findings_of_training(split("train", one, other, third), split("val", one, other), (64, 64))
    assert (whole.code, whole.count) == ("shared-images", 2)
    assert whole.text.startswith("val: all 2 images are training images too")
    (part,) = findings_of_training(split("train", one, other, third), split("val", one, *ALL), (64, 64))
    assert "val: 1 of 4 images is a training image too" in part.text
    assert part.text.endswith(": a.png")


def test_findings_are_values() -> None:
    (found,) = findings_of_boxes("train", BoxCounts(3, tiny=3))
    assert found == findings_of_boxes("train", BoxCounts(3, tiny=3))[0]
    assert {found: 1}
