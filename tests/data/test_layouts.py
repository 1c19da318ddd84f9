"""What common tools export loads as it is: a table of layouts, each written by a function as its tool writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from gfldet.data.spec import load_spec
from gfldet.data.split import load_split

Folder = Any  # that of conftest

# ---------------------------------------------------------------- one function a tool


def roboflow_yolov8(f: Folder) -> None:
    for split in ("train", "valid", "test"):
        f.yolo(f"{split}/images", f"{split}/labels", "a_jpg.rf.0f", "b_jpg.rf.1e")
    lines = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['cell']\n\n"
    f.text("data.yaml", f"{lines}roboflow:\n  workspace: w\n  license: CC BY 4.0\n  version: 3\n")


def roboflow_in_subfolder(f: Folder) -> None:
    roboflow_yolov8(type(f)(f.root / "NAME-3"))


def roboflow_api(f: Folder) -> None:
    roboflow_yolov8(f)
    f.text("data.yaml", "train: NAME-3/train/images\nval: NAME-3/valid/images\nnc: 1\nnames: ['cell']\n")


def roboflow_coco(f: Folder) -> None:
    categories = ((0, "cells"), (1, "cell", "cells"), (2, "dust", "cells"))
    for split in ("train", "valid"):
        f.images(f"{split}/a.jpg", f"{split}/b.jpg")
        f.coco(f"{split}/_annotations.coco.json", ["a.jpg", "b.jpg"], categories)


def roboflow_coco_by_yaml(f: Folder) -> None:
    roboflow_coco(f)
    f.text("data.yaml", "train: train\nval: valid\n")


def roboflow_voc(f: Folder) -> None:
    for split in ("train", "valid"):
        f.voc(split, split, "a", "b", names=["WBC", "RBC"])


def roboflow_darknet(f: Folder) -> None:
    for split in ("train", "valid"):
        f.yolo(split, split, "a", "b")
        f.text(f"{split}/_darknet.labels", "cell\n")


def cvat_yolo11(f: Folder) -> None:
    f.yolo("obj_train_data", "obj_train_data", "a", "b")
    f.yolo("obj_valid_data", "obj_valid_data", "c", "d")
    f.text("train.txt", "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")
    f.text("valid.txt", "data/obj_valid_data/c.jpg\ndata/obj_valid_data/d.jpg\n")
    lines = "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    f.text("obj.data", lines)
    f.text("obj.names", "cell\n")


def cvat_ultralytics(f: Folder) -> None:
    for split, word in (("train", "train"), ("validation", "validation")):
        f.yolo(f"images/{word}", f"labels/{word}", "a", "b")
        f.text(f"{split}.txt", f"data/images/{word}/a.jpg\ndata/images/{word}/b.jpg\n")
    f.text("data.yaml", "path: .\ntrain: train.txt\nvalidation: validation.txt\nnames:\n  0: cell\n")


def cvat_coco(f: Folder) -> None:
    f.images("images/Train/a.jpg", "images/Train/b.jpg", "images/Validation/c.jpg", "images/Validation/d.jpg")
    f.coco("annotations/instances_Train.json", ["a.jpg", "b.jpg"])
    f.coco("annotations/instances_Validation.json", ["c.jpg", "d.jpg"])


def cvat_voc(f: Folder) -> None:
    f.voc("JPEGImages", "Annotations", *(f"{k}" for k in range(5)))
    f.text("ImageSets/Main/default.txt", "".join(f"{k}\n" for k in range(5)))
    f.text("labelmap.txt", "# label:color_rgb:parts:actions\ncell:128,0,0::\n")


def label_studio_yolo(f: Folder) -> None:
    f.yolo("images", "labels", *(f"{k:08x}-a{k}" for k in range(10)))
    f.text("classes.txt", "cell\ndust\n")
    f.text("notes.json", json.dumps({"categories": [{"id": 0, "name": "cell"}, {"id": 1, "name": "dust"}], "info": {}}))


def label_studio_coco(*names: str) -> Callable[[Folder], None]:
    def write(f: Folder) -> None:
        f.images("images/a b.jpg", "images/c.jpg")
        f.coco("result.json", names)
        f.text("data.yaml", "train: result.json\nval: result.json\n")

    return write


def fiftyone_yolo(f: Folder) -> None:
    for split in ("train", "val"):
        f.yolo(f"images/{split}", f"labels/{split}", "a", "b")
    f.text(
        "dataset.yaml", "names:\n  0: cell\npath: c:\\Dev\\export\ntrain: .\\images\\train\\\nval: .\\images\\val\\\n"
    )


def fiftyone_coco(f: Folder) -> None:
    f.images(*(f"data/{k}.jpg" for k in range(10)))
    f.coco("labels.json", [f"{k}.jpg" for k in range(10)], ((0, "cell"),), used=0)


def darknet(f: Folder) -> None:
    f.yolo("data/obj", "data/obj", "a", "b", "c", "d")
    f.text("data/train.txt", "data/obj/a.jpg\ndata/obj/b.jpg\n")
    f.text("data/test.txt", "D:\\darknet\\data\\obj\\c.jpg\nhttps://host/x/d.jpg?token=1\n")
    f.text("data/obj.names", "cell\n")
    f.text("data/obj.data", "classes=1\ntrain=data/train.txt\nvalid=data/test.txt\nnames=data/obj.names\n")


def kaggle_voc(f: Folder) -> None:
    f.voc("images", "annotations", *(f"road{k}" for k in range(10)), names=["stop", "crosswalk"])


def vocdevkit(f: Folder) -> None:
    base = "VOCdevkit/VOC2007"
    f.voc(f"{base}/JPEGImages", f"{base}/Annotations", "000001", "000002", "000003", "000004")
    f.text(f"{base}/ImageSets/Main/train.txt", "000001\n000002\n")
    f.text(f"{base}/ImageSets/Main/val.txt", "000003\n000004\n")
    f.text(f"{base}/ImageSets/Main/cell_train.txt", "000001 -1\n000002  1\n")


def voc_folder(f: Folder) -> None:
    f.voc("JPEGImages", "Annotations", "a", "b")
    f.text("d.yaml", "train: JPEGImages\nval: JPEGImages\nnames: [cell]\n")


def capitals(f: Folder) -> None:
    for split in ("train", "val"):
        f.yolo(f"Images/{split}", f"Labels/{split}", "a", "b")
    f.text("d.yaml", "Train: Images/train\nVal: images/val\nNames: [cell]\nNC: 1\n")


def train_labels(f: Folder) -> None:
    for split in ("train", "val"):
        f.yolo(f"images/{split}", f"labels/{split}_labels", "a", "b")
    f.text("d.yaml", "train: images/train\nval: images/val\nnames: [cell]\n")


def coco8(f: Folder) -> None:
    for split in ("train", "val"):
        f.yolo(f"images/{split}", f"labels/{split}", "a", "b")
    lines = "train: images/train\nval: images/val\ntest:\nnames:\n  0: cell\ndownload: https://host/coco8.zip\n"
    f.text("coco8.yaml", f"path: set\n{lines}channels: 3\nauthor: me\nminival: x\n")


def coco2017(f: Folder) -> None:
    for split, stem in (("train", "1"), ("val", "2")):
        f.images(f"{split}2017/{stem}.jpg", f"{split}2017/0{stem}.jpg")
        for kind in ("instances", "captions"):
            f.coco(f"annotations/{kind}_{split}2017.json", [f"{stem}.jpg", f"0{stem}.jpg"])


def several_jsons(f: Folder) -> None:
    f.images("images/a.jpg", "images/b.jpg", "images/c.jpg", "images/d.jpg")
    for name in "abcd":
        f.coco(f"{name}.json", [f"images/{name}.jpg"], ((1, "cell"), (2, "dust")) if name == "a" else ((1, "cell"),))
    f.text("data.yaml", "train: [a.json, b.json]\nval: [c.json, d.json]\n")


def folders_of_images(f: Folder) -> None:
    for split in ("training", "validation"):
        f.yolo(f"{split}/images", f"{split}/labels", "a", "b")
    f.text("classes.txt", "cell")


@dataclass(frozen=True)
class Row:
    """What is read of a layout: images of train and val (each with one box of each name), names, and what is told."""

    write: Callable[[Folder], None]
    data: str
    images: tuple[int, int]
    names: tuple[str, ...] = ("cell",)
    told: tuple[str, ...] = ()
    boxes: int = 1


ELSEWHERE = "paths do not exist as written and were found elsewhere"
ONE_ELSEWHERE = "1 path does not exist as written and was found elsewhere"
LABELS = "labels are not where YOLO or VOC have them and were found elsewhere"
HELD_OUT = "no val split: 20% of the training images, chosen by their names, are held out"
SKIPPED = "category 0, 'cells', is the supercategory of the others, has no boxes, and is no class"
AS_IF = "no data YAML here; read as if one said:"
TABLE = {
    "Roboflow YOLOv8": Row(
        roboflow_yolov8, "data.yaml", (2, 2), told=(f"3 {ELSEWHERE}, '../train/images' as 'train/images'",)
    ),
    "Roboflow YOLOv8, its folder": Row(roboflow_yolov8, "", (2, 2), told=(f"3 {ELSEWHERE}",)),
    "Roboflow by its API": Row(
        roboflow_api, "data.yaml", (2, 2), told=(f"2 {ELSEWHERE}, 'NAME-3/train/images' as 'train/images'",)
    ),
    "Roboflow COCO": Row(
        roboflow_coco,
        "",
        (2, 2),
        ("cell", "dust"),
        (SKIPPED, f"{AS_IF} train: train/_annotations.coco.json; val: valid/_annotations.coco.json"),
    ),
    "Roboflow COCO by YAML": Row(roboflow_coco_by_yaml, "data.yaml", (2, 2), ("cell", "dust"), (SKIPPED,)),
    "Roboflow VOC": Row(
        roboflow_voc,
        "",
        (2, 2),
        ("RBC", "WBC"),
        (f"{AS_IF} train: train; val: valid", "names: [RBC, WBC], from the XML"),
        2,
    ),
    "Roboflow Darknet": Row(roboflow_darknet, "", (2, 2), told=(AS_IF, "names: [cell], from ")),
    "CVAT YOLO 1.1": Row(
        cvat_yolo11,
        "obj.data",
        (2, 2),
        told=(f"3 {ELSEWHERE}, 'data/train.txt' as 'train.txt'", f"2 {ELSEWHERE}, 'data/obj_train_data/a.jpg' as"),
    ),
    "CVAT YOLO 1.1, its folder": Row(cvat_yolo11, "", (2, 2), told=(f"2 {ELSEWHERE}, 'data/obj_train_data/a.jpg' as",)),
    "CVAT Ultralytics YOLO": Row(
        cvat_ultralytics,
        "data.yaml",
        (2, 2),
        told=(f"2 {ELSEWHERE}, 'data/images/train/a.jpg' as 'images/train/a.jpg'",),
    ),
    "CVAT COCO": Row(cvat_coco, "", (2, 2), told=(AS_IF, f"2 {ELSEWHERE}, 'a.jpg' as 'images/Train/a.jpg'")),
    "CVAT VOC": Row(cvat_voc, "", (4, 1), told=(HELD_OUT, "names: [cell], from the XML files")),
    "Label Studio YOLO": Row(
        label_studio_yolo,
        "",
        (8, 2),
        ("cell", "dust"),
        (f"{AS_IF} train: images", HELD_OUT, "names: [cell, dust], from"),
    ),
    "Label Studio COCO, prefixes": Row(
        label_studio_coco("images/1/a b.jpg", "images/1/c.jpg"),
        "data.yaml",
        (2, 2),
        told=(f"2 {ELSEWHERE}, 'images/1/a b.jpg' as 'images/a b.jpg'",),
    ),
    "Label Studio COCO, %20": Row(
        label_studio_coco("images/a%20b.jpg", "images/c.jpg"), "data.yaml", (2, 2), told=(f"{ONE_ELSEWHERE}",)
    ),
    "Label Studio COCO, local files": Row(
        label_studio_coco("/data/local-files/?d=my/images/a%20b.jpg", "/data/local-files/?d=my/images/c.jpg"),
        "",
        (2, 2),
        told=(ELSEWHERE,),
    ),
    "Label Studio COCO, Windows": Row(
        label_studio_coco(*(rf"..\..\label-studio\media\upload\4\{name}" for name in ("a b.jpg", "c.jpg"))),
        "",
        (2, 2),
        told=(f"2 {ELSEWHERE}",),
    ),
    "COCO, backslashes": Row(
        label_studio_coco("images\\a b.jpg", "images\\c.jpg"), "", (2, 2), told=(f"2 {ELSEWHERE}",)
    ),
    "COCO, URLs": Row(
        label_studio_coco("https://host/u/a%20b.jpg?sig=1", "s3://bucket/images/c.jpg"),
        "",
        (2, 2),
        told=(ONE_ELSEWHERE,),
    ),
    "FiftyOne YOLO on Windows": Row(fiftyone_yolo, "dataset.yaml", (2, 2), told=(f"2 {ELSEWHERE}",)),
    "FiftyOne COCO": Row(
        fiftyone_coco, "labels.json", (8, 2), told=(HELD_OUT, f"10 {ELSEWHERE}, '0.jpg' as 'data/0.jpg'")
    ),
    "Darknet": Row(
        darknet, "data/obj.data", (2, 2), told=(f"{ONE_ELSEWHERE}, 'https://host/x/d.jpg?token=1' as 'obj/d.jpg'",)
    ),
    "Kaggle VOC": Row(
        kaggle_voc,
        "",
        (8, 2),
        ("crosswalk", "stop"),
        (f"10 {LABELS}, 'images/road0.xml' as 'annotations/road0.xml'", HELD_OUT),
        2,
    ),
    "VOCdevkit": Row(vocdevkit, "VOCdevkit", (2, 2), told=(f"{AS_IF} train: VOC2007/ImageSets/Main/train.txt",)),
    "VOC, a folder of images": Row(voc_folder, "d.yaml", (2, 2), told=(f"2 {LABELS}",)),
    "Capitals": Row(capitals, "d.yaml", (2, 2), told=(f"{ONE_ELSEWHERE}, 'images/val' as 'Images/val'",)),
    "labels/train_labels": Row(
        train_labels, "d.yaml", (2, 2), told=(f"2 {LABELS}, 'images/train/a.txt' as 'labels/train_labels/a.txt'",)
    ),
    "coco8.yaml inside coco8": Row(
        coco8, "coco8.yaml", (2, 2), told=("channels, author, minival: no key of gfldet's, without effect",)
    ),
    "COCO 2017": Row(coco2017, "", (2, 2), told=(f"2 {ELSEWHERE}, '1.jpg' as 'train2017/1.jpg'",)),
    "several JSONs a split": Row(
        several_jsons, "data.yaml", (2, 2), ("cell", "dust"), ("1 image has an id that an earlier JSON uses too",)
    ),
    "folders without a YAML": Row(folders_of_images, "", (2, 2), told=(f"{AS_IF} train: training/images",)),
    "a COCO JSON beside its images": Row(
        coco2017, "annotations/instances_train2017.json", (1, 1), told=(f"2 {ELSEWHERE}, '1.jpg' as 'train2017/1.jpg'",)
    ),
    "an export in a subfolder": Row(roboflow_in_subfolder, "", (2, 2)),
}


@pytest.mark.parametrize("layout", TABLE)
def test_a_layout_of_a_common_tool(layout: str, folder: Folder) -> None:
    row = TABLE[layout]
    row.write(folder)
    spec = load_spec(folder.root / row.data, val_share=0.2)
    assert spec.names == row.names
    splits = [load_split(spec, name) for name in ("train", "val")]
    assert tuple(len(split.records) for split in splits) == row.images
    assert {len(record.boxes) for split in splits for record in split.records} == {row.boxes}
    told = [*spec.notices, *splits[0].warnings, *splits[1].warnings]
    for part in row.told:
        assert any(part in notice for notice in told), (part, told)
    assert len(told) == len(set(told))
