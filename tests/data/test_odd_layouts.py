"""Layouts that differ a little from the usual ones: what is read of them, or what the refusal says to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.errors import DataError

Folder = Any  # that of conftest
ELSEWHERE = "1 path does not exist as written and was found elsewhere"


def yolo_yaml(content: str, *more: tuple[str, str]) -> Callable[[Folder], None]:
    """A usual YOLO set with this data YAML, and more text files."""

    def write(f: Folder) -> None:
        for split in ("train", "val"):
            f.yolo(f"images/{split}", f"labels/{split}", "a", "b")
        for name, text in (("data.yaml", content), *more):
            f.text(name, text)

    return write


def jsons(yaml: str, *files: tuple[str, list[str], Any]) -> Callable[[Folder], None]:
    """Four images in images/ and COCO JSONs of some of them."""

    def write(f: Folder) -> None:
        f.images(*(f"images/{name}.jpg" for name in "abcd"))
        for name, file_names, categories in files:
            f.coco(name, file_names, categories)
        f.text("data.yaml", yaml)

    return write


def text_ids(f: Folder) -> None:
    f.images("a.jpg", "b.jpg")
    boxes = [("1", "1", 1), (2, 1.0, 2)]
    rows = [{"id": k, "image_id": i, "category_id": c, "bbox": [8, 8, 16, 16]} for i, c, k in boxes]
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": "2", "file_name": "b.jpg"}]
    content = {"images": images, "annotations": rows, "categories": [{"id": "1", "name": "cell"}]}
    f.text("t.json", json.dumps(content))
    f.text("data.yaml", "train: t.json\nval: t.json\n")


def voc_lists(line: str) -> Callable[[Folder], None]:
    def write(f: Folder) -> None:
        f.voc("images", "annotations", "a", "b")
        f.text("train.txt", "".join(f"{line.format(stem)}\n" for stem in "ab"))
        f.text("data.yaml", "train: train.txt\nval: train.txt\nnames: [cell]\n")

    return write


def read(
    write: Callable[[Folder], None],
    data: str,
    images: tuple[int, int],
    names: tuple[str, ...] = ("cell",),
    told: str = "",
) -> tuple[Any, ...]:
    """A row of the table: the layout, what is given as data=, images of train and val, names, and what is told."""
    return write, data, images, names, told


SPLITS = "train: images/train\nval: images/val\n"
CELL, BOTH = ((1, "cell"),), ((1, "cell"), (2, "dust"))
PARENT = ((0, "cells"), (1, "cell", "cells"), (2, "dust", "cells"))
OTHERS = {
    "ids of names as text": read(
        yolo_yaml(f"{SPLITS}names: {{'0': cell, '1': dust}}"), "data.yaml", (2, 2), ("cell", "dust")
    ),
    "a list of ids and names": read(
        yolo_yaml(f"{SPLITS}names: [0: cell, 1: dust]"), "data.yaml", (2, 2), ("cell", "dust")
    ),
    "a file of names": read(yolo_yaml(f"{SPLITS}names: data/obj.names", ("obj.names", "cell\n")), "data.yaml", (2, 2)),
    "names in classes.txt": read(
        yolo_yaml(SPLITS, ("classes.txt", "cell\n")), "data.yaml", (2, 2), told="names: [cell], from"
    ),
    "names in notes.json": read(
        yolo_yaml(SPLITS, ("notes.json", '{"categories": [{"id": 0, "name": "cell"}]}')), "data.yaml", (2, 2)
    ),
    "keys of others": read(
        yolo_yaml(f"{SPLITS}valid: images/val\nnames: [cell]\ndate: 2024\nstride: 32\nlicense: x\nChannels: 3\n"),
        "data.yaml",
        (2, 2),
        told="date, stride, license, Channels: no key of gfldet's, without effect",
    ),
    "another word for val": read(
        yolo_yaml("train: images/train\nval: images/valid\nnames: [cell]"),
        "data.yaml",
        (2, 2),
        told="'images/valid' as 'images/val'",
    ),
    "a root of another machine": read(
        yolo_yaml(f"path: C:\\Users\\me\\set\n{SPLITS}names: [cell]"),
        "data.yaml",
        (2, 2),
        told="the folder of the YAML",
    ),
    "a folder of images": read(yolo_yaml("", ("classes.txt", "cell")), "images", (2, 2)),
    "a list of images": read(
        yolo_yaml("", ("train.txt", "images/train/a.jpg\nimages/val/b.jpg"), ("classes.txt", "cell")),
        "train.txt",
        (1, 1),
    ),
    "val has fewer categories": read(
        jsons("train: t.json\nval: v.json\nimages: images", ("t.json", ["a.jpg"], BOTH), ("v.json", ["b.jpg"], CELL)),
        "data.yaml",
        (1, 1),
        ("cell", "dust"),
    ),
    "names leave out the parent": read(
        jsons("train: t.json\nval: t.json\nnames: [dust, cell]\nimages: images", ("t.json", ["a.jpg"], PARENT)),
        "data.yaml",
        (1, 1),
        ("dust", "cell"),
        "no classes, since the data YAML does not name them: cells",
    ),
    "names begin with the folder of the images": read(
        jsons("train: t.json\nval: t.json\nimages: images", ("t.json", ["images/a.jpg"], CELL)),
        "data.yaml",
        (1, 1),
        told=f"{ELSEWHERE}, 'images/images/a.jpg' as 'images/a.jpg'",
    ),
    "ids as text": read(text_ids, "data.yaml", (2, 2)),
    "VOC ids without JPEGImages": read(voc_lists("{}"), "data.yaml", (2, 2)),
    "VOC lists of images": read(voc_lists("./images/{}.jpg"), "data.yaml", (2, 2)),
}


@pytest.mark.parametrize("layout", OTHERS)
def test_a_layout_that_differs_a_little(layout: str, folder: Folder) -> None:
    write, data, images, names, told = OTHERS[layout]
    write(folder)
    spec = load_spec(folder.root / data, val_share=0.2)
    train, val = (load_split(spec, name) for name in ("train", "val"))
    assert (spec.names, (len(train.records), len(val.records))) == (names, images)
    assert {len(record.boxes) for split in (train, val) for record in split.records} == {1}
    assert told in "\n".join([*spec.notices, *train.warnings, *val.warnings])


# ---------------------------------------------------------------- what is refused, and what the message says


def mixed_folders(f: Folder) -> None:
    for split in ("train", "val"):
        f.yolo(f"images/{split}", f"labels/{split}", "a")
    f.images("other/x.jpg")


def labelme(f: Folder) -> None:
    f.images("a.jpg")
    f.text("a.json", '{"version": "5", "shapes": [{"label": "cell"}], "imagePath": "a.jpg"}')


def table_of_boxes(f: Folder) -> None:
    f.images("images/a.jpg")
    f.text("labels.csv", "filename,xmin,ymin,xmax,ymax,class\n")


def unnamed(f: Folder) -> None:
    f.yolo("images", "labels", "a", "b")


def two_candidates(f: Folder) -> None:
    f.yolo("one", "one", "a")
    f.yolo("two", "two", "a")
    f.text("t.txt", "data/a.jpg\n")
    f.text("data.yaml", "train: t.txt\nval: t.txt\nnames: [cell]\n")


NO_BLANK = "a blank is missing after the colon: write '0: cat', not '0:cat'"
REFUSED: dict[str, tuple[Callable[[Folder], None], str, tuple[str, ...]]] = {
    "names from 1": (yolo_yaml(f"{SPLITS}names: {{1: a, 2: b}}"), "data.yaml", ("missing 0", "add '0: background'")),
    "names without a blank": (yolo_yaml(f"{SPLITS}names:\n  0:a\n  1:b\n"), "data.yaml", (NO_BLANK,)),
    "one name without a blank": (yolo_yaml(f"{SPLITS}names:\n  0: a\n  1:b\n"), "data.yaml", (NO_BLANK, "'1:b'")),
    "a split without a blank": (yolo_yaml("train:images/train\nnames: [a]"), "data.yaml", (NO_BLANK, "images/train")),
    "names before ids": (yolo_yaml(f"{SPLITS}names: {{a: 0}}"), "data.yaml", ("write the id before the name",)),
    "names in one line": (yolo_yaml(f"{SPLITS}names: a, b"), "data.yaml", ("write names: [a, b]",)),
    "a slip in a key": (yolo_yaml(f"{SPLITS}name: [a]"), "data.yaml", ("name: unknown key", "Did you mean 'names'?")),
    "another word for a key": (yolo_yaml(f"{SPLITS}classes: [a]"), "data.yaml", ("Did you mean 'names'?",)),
    "val twice": (yolo_yaml(f"{SPLITS}valid: v\nnames: [a]"), "data.yaml", ("valid: means the same as val",)),
    "no names": (yolo_yaml(SPLITS), "data.yaml", ("names: missing", "names: [cat, dog]")),
    "a folder without names": (
        unnamed,
        "",
        ("holds no file with the names", "data.yaml, such as\ntrain: images\nnames: ["),
    ),
    "two files of names": (
        yolo_yaml(SPLITS, ("classes.txt", "a"), ("obj.names", "b")),
        "data.yaml",
        ("hold different names", "names: ['b']"),
    ),
    "a folder of two sorts": (
        mixed_folders,
        "",
        ("not every folder with images", "Write ", "val: images/val\nnames: ["),
    ),
    "JSONs of unknown splits": (
        lambda f: jsons("", ("one.json", ["a.jpg"], CELL), ("two.json", ["b.jpg"], CELL))(f),
        "",
        ("which COCO JSON belongs",),
    ),
    "an empty folder": (lambda f: f.root.mkdir(), "", ("holds neither a data YAML nor images",)),
    "another JSON": (lambda f: f.text("x.json", "{}"), "x.json", ("is not a COCO file",)),
    "labelme": (labelme, "", ("labels of labelme are not read; convert them, with labelme2yolo",)),
    "a table": (table_of_boxes, "", ("labels.csv: labels in a table are not read; convert them",)),
    "an archive": (lambda f: f.text("a.zip", "PK"), "a.zip", ("is an archive; unpack it",)),
    "the XML of one image": (lambda f: f.text("a.xml", "<annotation/>"), "a.xml", ("give the folder of the images",)),
    "an image": (lambda f: f.images("a.jpg"), "a.jpg", ("is an image; give the folder",)),
    "two candidates": (two_candidates, "data.yaml", ("none of its images is there", "one/a.jpg and ", "two/a.jpg")),
    "no image is there": (
        jsons("train: t.json\nval: t.json", ("t.json", ["q/x.jpg", "q/y.jpg"], CELL)),
        "data.yaml",
        ("none of its images is there", "images: images/train"),
    ),
    "other names for ids": (
        jsons(
            "train: t.json\nval: v.json", ("t.json", ["a.jpg"], BOTH), ("v.json", ["b.jpg"], ((1, "dust"), (2, "cell")))
        ),
        "data.yaml",
        ("v.json: its categories are not those", "id 1: 'dust' here, 'cell' expected"),
    ),
    "names leave out boxes": (
        jsons("train: t.json\nval: t.json\nnames: [dust]", ("t.json", ["a.jpg"], BOTH)),
        "data.yaml",
        ("names do not match the categories",),
    ),
    "a word in place of a class": (
        yolo_yaml(f"{SPLITS}names: [cell]", ("labels/train/a.txt", "cell .5 .5 .1 .1")),
        "data.yaml",
        ("'cell' has the id 0.",),
    ),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_what_cannot_be_read_says_what_to_do(layout: str, folder: Folder) -> None:
    write, data, told = REFUSED[layout]
    write(folder)
    with pytest.raises(DataError) as caught:
        load_split(load_spec(folder.root / data, val_share=0.2), "train")
    for part in told:
        assert part in str(caught.value)


def test_the_root_of_the_file_system_is_no_data_set() -> None:
    with pytest.raises(DataError, match="/: is the root of the file system; name the folder of the data"):
        load_spec("/")


def test_of_several_yamls_the_usual_one_is_taken(folder: Folder) -> None:
    yolo_yaml(f"{SPLITS}names: [a]", ("my.yaml", f"{SPLITS}names: [b]"), ("model.yaml", "backbone: []"))(folder)
    assert load_spec(folder.root).names == ("a",)
    (folder.root / "data.yaml").rename(folder.root / "other.yaml")
    with pytest.raises(DataError, match=r"holds several data YAMLs; give one of them: .*my.yaml, .*other.yaml"):
        load_spec(folder.root)
