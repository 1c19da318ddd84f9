"""Small files that every reader takes, to be damaged afterwards: each function writes those of one kind in a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

NAMES = ("red", "blue")
SIZE = 32  # px, of the square pictures
MODEL = """\
nc: 2
reg_max: 4
scales:
  n: [0.5, 0.5, 64]
  s: [1.0, 1.0, 64]
cls_loss: qfl
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 4]]
  - [-1, 2, C2f, [16, True]]
  - [-1, 1, Conv, [16, 3, 4]]
head:
  - [[2, 3], 1, GFLHead, [nc]]
"""
TRAIN = """\
# settings of a run
model: gfldet-n
data: shapes
epochs: 12
imgsz: [320, 256]
lr0: 0.003
optimizer: muon
augment: default
class_weights: [1, 2.5]
freeze: [0, 1]
device: cpu
seed: 3
name: my run
"""


def picture(seed: int = 0) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 of coarse noise."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _pictures(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), picture(number))


def yolo(folder: Path) -> None:
    """A data set with labels in rows, a folder for train and a list for val."""
    _pictures(folder / "images", ("a.png", "b.jpg", "c.png"))
    (folder / "labels").mkdir()
    rows = ("0 .5 .5 .25 .25\n1 .25 .25 .2 .125\n", "1 0.1 0.1 0.6 0.1 0.5 0.7\n", "")
    for name, text in zip("abc", rows, strict=True):
        (folder / "labels" / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "val.txt").write_text("images/a.png\n./images/c.png\n", encoding="utf-8")
    yaml = "path: .\ntrain: images\nval: val.txt\nnc: 2\nnames:\n  0: red\n  1: blue\n"
    (folder / "data.yaml").write_text(yaml, encoding="utf-8")


def coco(folder: Path) -> None:
    """A data set with one JSON a split."""
    _pictures(folder / "images", ("a.png", "b.jpg"))
    rows = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 4.5, 10, 12], "area": 120, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [0, 0, 8, 8], "area": 64, "iscrowd": 1},
        {"id": 3, "image_id": "b", "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 0, "segmentation": [[1, 2, 3]]},
    ]
    document = {
        "info": {"year": 2024},
        "images": [
            {"id": 1, "file_name": "a.png", "width": SIZE, "height": SIZE},
            {"id": "b", "file_name": "b.jpg", "width": SIZE, "height": SIZE},
        ],
        "annotations": rows,
        "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "blue", "supercategory": "colour"}],
    }
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(document), encoding="utf-8")
    yaml = "train: train.json\nval: val.json\nimages: images\nformat: coco\n"
    (folder / "data.yaml").write_text(yaml, encoding="utf-8")


def voc(folder: Path) -> None:
    """A data set of XML, one file each in UTF-8, in GB 2312 and without a declaration, and an ImageSets list."""
    _pictures(folder / "JPEGImages", ("a.png", "b.jpg", "c.png"))
    (folder / "Annotations").mkdir()
    (folder / "ImageSets").mkdir()
    heads = ('<?xml version="1.0" encoding="UTF-8"?>\n', '<?xml version="1.0" encoding="gb2312"?>\n', "")
    for stem, head, encoding in zip("abc", heads, ("utf-8", "gb18030", "utf-8"), strict=True):
        text = f"""{head}<annotation>
  <folder>图片</folder><filename>{stem}.png</filename>
  <size><width>{SIZE}</width><height>{SIZE}</height><depth>3</depth></size>
  <object><name>red</name><difficult>0</difficult>
    <bndbox><xmin>4</xmin><ymin>5</ymin><xmax>14</xmax><ymax>17</ymax></bndbox></object>
  <object><name>blue</name><bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>
</annotation>
"""
        (folder / "Annotations" / f"{stem}.xml").write_bytes(text.encode(encoding))
    for split in ("train", "val"):
        (folder / "ImageSets" / f"{split}.txt").write_text("a\nb 1\nc -1\n", encoding="utf-8")
    yaml = "train: ImageSets/train.txt\nval: ImageSets/val.txt\nnames: [red, blue]\nformat: voc\n"
    (folder / "data.yaml").write_text(yaml, encoding="utf-8")


def model_yaml(folder: Path) -> None:
    """A model YAML of two levels and two scales."""
    (folder / "net.yaml").write_text(MODEL, encoding="utf-8")


def settings(folder: Path) -> None:
    """A file of settings, and the table of results of a run."""
    (folder / "mine.yaml").write_text(TRAIN, encoding="utf-8")


def results(folder: Path) -> None:
    """The results.csv of a run, and detections as predictions.json has them."""
    from gfldet.train.observers import COLUMNS

    rows = [",".join(COLUMNS), *(",".join(str(n + i / 8) for i in range(len(COLUMNS))) for n in range(1, 4))]
    (folder / "results.csv").write_text("\n".join(rows).replace(".0,", ",", 3) + "\n", encoding="utf-8")
    found = {"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4], "score": 0.5}
    (folder / "predictions.json").write_text(json.dumps([found, {**found, "image_id": "b"}]), encoding="utf-8")


def images(folder: Path) -> None:
    """One picture in each of the formats."""
    pixels = picture()[:12, :16]
    rgb = Image.fromarray(pixels)
    for name in ("a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.tif", "a.ppm"):
        rgb.save(folder / name)
    rgb.save(folder / "lzw.tif", compression="tiff_lzw")
    rgb.save(folder / "progressive.jpg", progressive=True)
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.quantize(16).save(folder / "palette.png", transparency=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=exif)
    cv2.imwrite(str(folder / "deep.png"), pixels.astype(np.uint16) * 200)


def sources(folder: Path) -> None:
    """What to predict on: pictures, a list of them, a video of each of two kinds."""
    _pictures(folder, ("a.png", "b.jpg"))
    (folder / "list.txt").write_text("a.png\nb.jpg\nvideo.avi\n", encoding="utf-8")
    for name, code in (("video.avi", "MJPG"), ("video.mp4", "mp4v")):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter.fourcc(*code), 5.0, (SIZE, SIZE))
        for number in range(3):
            writer.write(picture(number))
        writer.release()


def _description(folder: Path) -> Any:
    from gfldet.nn.build import read_description

    path = folder / "net.yaml"
    path.write_text(MODEL, encoding="utf-8")
    try:
        return read_description(path)
    finally:
        path.unlink()


def checkpoint(folder: Path) -> None:
    """A checkpoint of a small model."""
    import torch

    from gfldet.nn.tasks import DetectionModel
    from gfldet.store import checkpoint as checkpoints

    description = _description(folder)
    torch.manual_seed(0)
    state = DetectionModel(description, NAMES).state_dict()
    settings = {"imgsz": 32, "data": "shapes", "epochs": 3, "class_weights": [1.0, 2.0]}
    metrics = {"map": 0.5}
    saved = checkpoints.Checkpoint(description, NAMES, (0, 1), state, settings, 2, metrics)
    checkpoints.save(folder / "best.pt", saved)


def onnx(folder: Path) -> None:
    """Exported files: raw, decoded, and with the selection of detections inside."""
    import torch

    from gfldet.detect.card import Card
    from gfldet.export import onnx as exporting
    from gfldet.nn.tasks import DetectionModel

    description = _description(folder)
    for layout in ("raw", "decoded", "detections"):
        torch.manual_seed(0)
        model = DetectionModel(description, NAMES)
        model.fuse()
        card = Card(
            names=NAMES,
            category_ids=(0, 1),
            imgsz=(SIZE, SIZE),
            strides=model.strides,
            multiple=model.multiple,
            reg_max=model.reg_max,
            layout="raw" if layout == "raw" else "decoded",
            conf=0.1,
            iou=0.5,
            max_det=10,
        )
        graph = exporting.to_graph(model, card)
        if layout == "detections":
            card = replace(card, layout="detections")
            graph = exporting.with_selection(graph, card)
        exporting.save(graph, card, folder / f"{layout}.onnx")


def foreign(folder: Path) -> None:
    """Files that are recognised as another program's by the names in them, of torch's two kinds, and an ONNX graph."""
    import torch
    from onnx import helper, numpy_helper
    from onnx import save as save_onnx

    weight = torch.rand(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    marks = {
        "yolov9": ("22.heads.0.anchor_conv.0.conv.weight",),
        "yolox": ("backbone.C3_p4.conv1.conv.weight",),
        "nanodet": ("backbone.stage2.0.branch2.0.weight", "head.gfl_cls.0.weight"),
        "torchvision": ("backbone.body.conv1.weight", "head.regression_head.bbox_ctrness.weight"),
    }
    for family, names in marks.items():
        state = {"model": dict.fromkeys(names, weight), "epoch": 3, "names": ["a", "b"]}
        torch.save(state, folder / f"{family}.pt")
    torch.save(state, folder / "older.pth", _use_new_zipfile_serialization=False)
    values = [numpy_helper.from_array(weight.numpy(), "backbone.C3_p4.conv1.conv.weight")]
    node = helper.make_node("Conv", ["images", values[0].name], ["out"])
    ends = [helper.make_tensor_value_info(name, 1, [1, 4, 8, 8]) for name in ("images", "out")]
    save_onnx(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], values)), str(folder / "net.onnx"))
