"""Labels as other programs read them, where these are installed: supervision, pycocotools, Label Studio's SDK, and
datumaro, the reader of CVAT."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gfldet.labels.picture import Picture
from gfldet.labels.writer import FORMATS, LabelFiles

pytestmark = pytest.mark.long  # to import these takes seconds

NAMES = ("a & <b>", "größe 😀", "no")
BOXES = {
    "ä ö & <1>.jpg": [
        (0, 0.9, (10.0, 5.5, 20.25, 4.5)),
        (1, 0.5, (0.0, 0.0, 40.0, 30.0)),
        (0, 0.4, (1.0, 2.0, 3.0, 4.0)),
    ],
    "nothing.jpg": [],
    "b.png": [(2, 0.25, (30.0, 20.0, 10.0, 10.0))],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of three pictures in all formats."""
    photos, folder = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("run")
    writer = LabelFiles(folder, list(FORMATS), NAMES, (1, 2, 5), "best.pt", "", [].append)
    for name, boxes in BOXES.items():
        data = cv2.imencode(Path(name).suffix, np.zeros((30, 40, 3), np.uint8))[1].tobytes()
        (photos / name).write_bytes(data)
        classes, scores, places = ([box[i] for box in boxes] for i in range(3))

        def put(path: Path, name: str = name) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(photos / name, path)

        columns = np.array(places, float).reshape(-1, 4), np.array(classes, np.int64), np.array(scores, float)
        writer.add(Picture(name, photos / name, 40, 30, *columns, put))
    writer.close()
    return folder


def expected(name: str) -> list[tuple[str, list[float]]]:
    """(class name, corners) of each box of a picture."""
    return [(NAMES[c], [x, y, x + w, y + h]) for c, _, (x, y, w, h) in BOXES[name]]


def near(boxes: list[tuple[str, list[float]]]) -> list[tuple[str, Any]]:
    return [(name, pytest.approx(box, abs=1e-3)) for name, box in boxes]


def test_supervision(run: Path) -> None:
    """Of what it reads, all three."""
    supervision = pytest.importorskip("supervision")
    read = supervision.DetectionDataset
    sets = {
        "yolo": read.from_yolo(
            images_directory_path=str(run / "yolo/images"),
            annotations_directory_path=str(run / "yolo/labels"),
            data_yaml_path=str(run / "yolo/data.yaml"),
        ),
        "coco": read.from_coco(
            images_directory_path=str(run / "coco/images"),
            annotations_path=str(run / "coco/annotations/instances_default.json"),
        ),
        "voc": read.from_pascal_voc(
            images_directory_path=str(run / "voc/JPEGImages"),
            annotations_directory_path=str(run / "voc/Annotations"),
        ),
    }
    for word, data in sets.items():
        found = {
            Path(path).name: [(data.classes[c], box) for c, box in zip(one.class_id, one.xyxy.tolist(), strict=True)]
            for path, one in data.annotations.items()
        }
        assert found.keys() == BOXES.keys(), word
        for name in BOXES:
            first = 1 if word == "voc" else 0  # it counts the pixels of VOC from 1
            wanted = [(c, [x - first, y - first, right, bottom]) for c, (x, y, right, bottom) in expected(name)]
            assert found[name] == near(wanted), word


def test_pycocotools(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(str(run / "coco/annotations/instances_default.json"))
    names = {row["id"]: row["name"] for row in coco.loadCats(coco.getCatIds())}
    assert names == dict(zip((1, 2, 5), NAMES, strict=True))
    for image in coco.loadImgs(coco.getImgIds()):
        rows = coco.loadAnns(coco.getAnnIds(image["id"]))
        corners = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
        found = [(names[row["category_id"]], box) for row, box in zip(rows, corners, strict=True)]
        assert found == near(expected(image["file_name"]))
    capsys.readouterr()


def test_label_studio_sdk(run: Path) -> None:
    """Each prediction fits the project that config.xml sets up."""
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
    project = interface((run / "labelstudio/config.xml").read_text(encoding="utf-8"))
    assert set(project.get_control("label").labels) == set(NAMES)
    tasks = json.loads((run / "labelstudio/tasks.json").read_text(encoding="utf-8"))
    assert len(tasks) == len(BOXES)
    for task in tasks:
        assert project.validate_prediction(task["predictions"][0], return_errors=True) == []
    tasks[0]["predictions"][0]["result"][0]["value"]["rectanglelabels"] = ["dog"]
    assert project.validate_prediction(tasks[0]["predictions"][0], return_errors=True)


@pytest.mark.parametrize(("word", "file"), [("cvat", "annotations.xml"), ("coco", ""), ("voc", ""), ("yolo", "")])
def test_datumaro(run: Path, tmp_path: Path, word: str, file: str) -> None:
    datumaro = pytest.importorskip("datumaro")
    folder = tmp_path / word
    shutil.copytree(run / word, folder)
    if word == "cvat":  # it wants the pictures, other than CVAT, which has them in the task
        shutil.copytree(run / "coco/images", folder / "images")
    data = datumaro.Dataset.import_from(str(folder / file), word)
    names = data.categories()[datumaro.AnnotationType.label]
    found = {
        item.id: sorted(
            (names[one.label].name, one.points) for one in item.annotations if hasattr(one, "points") and one.points
        )
        for item in data
    }
    assert found == {Path(name).stem: near(sorted(expected(name))) for name in BOXES}
