"""Labels for other programs: what stands in each format, odd names, and that nothing is ever half written."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.errors import OutputError
from gfldet.labels import picture as pictures
from gfldet.labels.cvat import Cvat
from gfldet.labels.picture import Picture
from gfldet.labels.writer import FORMATS, LabelFiles

ALL = list(FORMATS)
NAMES = ("cat", "dog")
JPEG = cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))[1].tobytes()
BOXES = [(1, 0.875, (10.0, 5.5, 20.25, 4.5)), (0, 0.5, (0.0, 0.0, 40.0, 30.0))]


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., LabelFiles]:
    """A writer below tmp_path/run, which tells nothing."""

    def make(*formats: str, names: tuple[str, ...] = NAMES, **options: Any) -> LabelFiles:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        given = {"ids": range(3, 3 + len(names)), "model": "best.pt", "image_url": "", "tell": [].append, **options}
        return LabelFiles(folder, formats or ALL, names, **given)

    return make


def picture(name: str, boxes: list[Any] = BOXES, path: Path | None = None) -> Picture:
    """A picture of 40 x 30 px whose file is its name."""

    def put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)

    classes, scores, places = (np.array([box[i] for box in boxes]) for i in range(3))
    return Picture(
        name, path, 40, 30, places.reshape(-1, 4).astype(float), classes.astype(np.int64), scores.astype(float), put
    )


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_coco(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    writer = files("coco")
    for one in (picture("a/x.jpg"), picture("b.jpg", []), picture("c.jpg", BOXES[:1])):
        writer.add(one)
    writer.close()
    found = json.loads((tmp_path / "run/coco/annotations/instances_default.json").read_text())
    assert found["categories"] == [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
    names = ["a/x.jpg", "b.jpg", "c.jpg"]
    assert found["images"] == [
        {"id": number, "file_name": name, "width": 40, "height": 30} for number, name in enumerate(names, 1)
    ]
    assert [(row["id"], row["image_id"], row["category_id"]) for row in found["annotations"]] == [
        (1, 1, 4),
        (2, 1, 3),
        (3, 3, 4),
    ]
    assert found["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 4,
        "bbox": [10, 5.5, 20.25, 4.5],
        "area": 91.125,
        "iscrowd": 0,
        "segmentation": [],
        "score": 0.875,
    }
    assert written(tmp_path / "run/coco/images") == set(names)


def test_cvat(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    writer = files("cvat")
    writer.add(picture("a/x.jpg", path=tmp_path / "a/x.jpg"))
    writer.add(picture("frame.jpg", []))
    writer.close()
    root = ElementTree.parse(tmp_path / "run/cvat/annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [name.text for name in root.findall("meta/task/labels/label/name")] == ["cat", "dog"]
    first, second = root.findall("image")
    assert first.attrib == {"id": "0", "name": "a/x.jpg", "width": "40", "height": "30"}
    assert second.attrib == {"id": "1", "name": "frame.jpg", "width": "40", "height": "30"}
    assert [box.attrib for box in first] == [
        {
            "label": "dog",
            "source": "auto",
            "occluded": "0",
            "z_order": "0",
            "xtl": "10.000",
            "ytl": "5.500",
            "xbr": "30.250",
            "ybr": "10.000",
        },
        {
            "label": "cat",
            "source": "auto",
            "occluded": "0",
            "z_order": "0",
            "xtl": "0.000",
            "ytl": "0.000",
            "xbr": "40.000",
            "ybr": "30.000",
        },
    ]
    assert list(second) == []
    assert written(tmp_path / "run/cvat") == {"annotations.xml", "images/frame.jpg"}


def test_label_studio(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    writer = files("labelstudio")
    writer.add(picture("a/x y.jpg", path=tmp_path / "ä & b/a/x y.jpg"))
    writer.add(picture("clip_000000.jpg", []))
    writer.close()
    first, second = json.loads((tmp_path / "run/labelstudio/tasks.json").read_text())
    (prediction,) = first["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("best.pt", 0.6875)
    assert prediction["result"][0] == {
        "id": "1",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": 40,
        "original_height": 30,
        "image_rotation": 0,
        "score": 0.875,
        "value": {
            "x": 25,
            "y": 18.333333,
            "width": 50.625,
            "height": 15,
            "rotation": 0,
            "rectanglelabels": ["dog"],
        },
    }
    local = "/data/local-files/?d=" + str(tmp_path)[1:]
    assert first["data"] == {"image": f"{local}/%C3%A4%20%26%20b/a/x%20y.jpg"}
    assert second["data"] == {"image": f"{local}/run/labelstudio/images/clip_000000.jpg"}
    assert second["predictions"] == [{"model_version": "best.pt", "result": []}]
    config = ElementTree.parse(tmp_path / "run/labelstudio/config.xml").getroot()
    assert [label.get("value") for label in config.findall("RectangleLabels/Label")] == ["cat", "dog"]
    assert written(tmp_path / "run/labelstudio") == {"config.xml", "tasks.json", "images/clip_000000.jpg"}


@pytest.mark.parametrize("url", ["http://host/p", "http://host/p/", "http://host/?f="])
def test_addresses_of_pictures(files: Callable[..., LabelFiles], tmp_path: Path, url: str) -> None:
    writer = files("labelstudio", image_url=url)
    writer.add(picture("a/x y.jpg", path=tmp_path / "a/x y.jpg"))
    writer.close()
    (task,) = json.loads((tmp_path / "run/labelstudio/tasks.json").read_text())
    assert task["data"]["image"] == url + ("/" if url.endswith("p") else "") + "a/x%20y.jpg"


def test_voc(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    writer = files("voc")
    writer.add(picture("a/x.jpg"))
    writer.add(picture("b.jpg", []))
    writer.close()
    root = ElementTree.parse(tmp_path / "run/voc/Annotations/a/x.xml").getroot()
    assert [root.findtext(tag) for tag in ("filename", "size/width", "size/height")] == ["a/x.jpg", "40", "30"]
    assert [
        [one.findtext(tag) for tag in ("name", "bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")]
        for one in root.findall("object")
    ] == [["dog", "10.000", "5.500", "30.250", "10.000"], ["cat", "0.000", "0.000", "40.000", "30.000"]]
    assert ElementTree.parse(tmp_path / "run/voc/Annotations/b.xml").getroot().findall("object") == []
    assert (tmp_path / "run/voc/ImageSets/Main/train.txt").read_text() == "a/x\nb\n"
    assert written(tmp_path / "run/voc/JPEGImages") == {"a/x.jpg", "b.jpg"}


def test_yolo(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    writer = files("yolo")
    writer.add(picture("a/x.jpg"))
    writer.add(picture("b.jpg", []))
    writer.close()
    folder = tmp_path / "run/yolo"
    assert (folder / "labels/a/x.txt").read_text() == (
        "1 0.503125 0.258333 0.506250 0.150000\n0 0.500000 0.500000 1.000000 1.000000\n"
    )
    assert (folder / "labels/b.txt").read_text() == ""
    assert (folder / "classes.txt").read_text() == "cat\ndog\n"
    assert (folder / "data.yaml").read_text().splitlines()[1:] == ["train: images", "names:", "  0: cat", "  1: dog"]
    assert written(folder / "images") == {"a/x.jpg", "b.jpg"}


ODD_NAMES = ["ä ö.jpg", "a&b<c>\"d'.jpg", "x#1 %20?.jpg", "漢字 😀.jpg", "1/x.jpg", "2/x.jpg", "a.b.jpg", "x 1.jpg"]
ODD_CLASSES = ("a & <b>", "\"q\" 'r'", "größe 😀", "a: b #c", "no", "1", "{x}")


def test_odd_names_come_back(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    """From the readers of the formats that gfldet reads, and from parsers of the others."""
    writer = files(names=ODD_CLASSES, ids=range(len(ODD_CLASSES)))
    boxes = [(c, 0.5, (1.0, 2.0, 3.0 + c, 4.0)) for c in range(len(ODD_CLASSES))]
    for name in ODD_NAMES:
        writer.add(picture(name, boxes, tmp_path / "photos" / name))
    writer.close()
    folder = tmp_path / "run"
    tasks = json.loads((folder / "labelstudio/tasks.json").read_text())
    assert len(tasks) == len(ODD_NAMES)
    for task in tasks:
        assert [row["value"]["rectanglelabels"] for row in task["predictions"][0]["result"]] == [
            [name] for name in ODD_CLASSES
        ]
    config = ElementTree.parse(folder / "labelstudio/config.xml").getroot()
    assert [label.get("value") for label in config.iter("Label")] == list(ODD_CLASSES)
    cvat = ElementTree.parse(folder / "cvat/annotations.xml").getroot()
    assert [image.get("name") for image in cvat.findall("image")] == ODD_NAMES
    assert all([box.get("label") for box in image] == list(ODD_CLASSES) for image in cvat.findall("image"))
    assert [name.text for name in cvat.iter("name")] == list(ODD_CLASSES)
    for word in ("coco", "voc", "yolo"):
        split = load_split(load_spec(folder / word), "train")
        assert sorted(record.file_name for record in split.records) == sorted(ODD_NAMES)
        assert split.names == ODD_CLASSES
        for record in split.records:
            assert record.classes.tolist() == list(range(len(ODD_CLASSES)))


def test_names_that_label_files_cannot_hold(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    told: list[str] = []
    writer = files(tell=told.append)
    for name in ("a\nb.jpg", "a\x07.jpg", "b\udcff.jpg", "good.jpg"):
        writer.add(picture(name, path=tmp_path / "good.jpg"))
    writer.close()
    cvat = ElementTree.parse(tmp_path / "run/cvat/annotations.xml").getroot()
    assert [image.get("name") for image in cvat.findall("image")] == ["good.jpg"]
    assert told == [
        r"'a\nb.jpg' and 2 more: left out of labels; their names hold letters that label files cannot hold. Rename them"
    ]


def test_names_that_differ_in_their_suffix(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    """YOLO and VOC have one label file for both; each of the others has both pictures."""
    told: list[str] = []
    writer = files(tell=told.append)
    for name in ("a.jpg", "a.png", "1/a.jpg", "a.jpg"):
        writer.add(picture(name, path=tmp_path / name))
    writer.close()
    assert told == [
        "'a.png': left out of voc and yolo; others have the same names but for the suffix, and so the same label "
        "files. Rename them"
    ]
    assert written(tmp_path / "run/yolo/images") == written(tmp_path / "run/voc/JPEGImages") == {"a.jpg", "1/a.jpg"}
    assert len(json.loads((tmp_path / "run/labelstudio/tasks.json").read_text())) == 3
    told.clear()
    writer = files("coco", "yolo", tell=told.append)
    for name in ("a.jpg", "a.png", "a.bmp"):
        writer.add(picture(name, path=tmp_path / name))
    writer.close()
    assert [line.partition(";")[0] for line in told] == ["'a.png' and 1 more: left out of yolo"]


def test_letters_that_xml_cannot_hold() -> None:
    assert pictures.xml_text("a\x00\x07<\ud800\uffff&\t") == "a\ufffd\ufffd&lt;\ufffd\ufffd&amp;\t"
    assert pictures.xml_value('a"\n\t') == '"a&quot;&#10;&#9;"'


def test_without_a_picture_files_are_whole(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    writer = files()
    writer.close()
    writer.close()
    assert json.loads((tmp_path / "run/labelstudio/tasks.json").read_text()) == []
    found = json.loads((tmp_path / "run/coco/annotations/instances_default.json").read_text())
    assert (found["images"], found["annotations"]) == ([], [])
    assert ElementTree.parse(tmp_path / "run/cvat/annotations.xml").getroot().findall("image") == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["add", "end"])
def test_what_fails_leaves_nothing_half_written(
    files: Callable[..., LabelFiles],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    when: str,
) -> None:
    def fail(*given: Any) -> None:
        raise error

    writer = files("coco", "cvat", "labelstudio")
    writer.add(picture("a.jpg", path=tmp_path / "a.jpg"))
    monkeypatch.setattr(Cvat, when, fail)
    step = partial(writer.add, picture("b.jpg", path=tmp_path / "b.jpg")) if when == "add" else writer.close
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as told:
        step()
    if isinstance(error, OSError):
        assert str(told.value).endswith(
            "run: cannot be written (No space left on device); free space or choose another project="
        )
    writer.close()  # as whoever cleans up does
    left = {path for path in written(tmp_path / "run") if "images" not in path}
    assert left == set()


def test_a_file_where_the_folder_goes(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/coco").write_text("mine")
    with pytest.raises(OutputError, match=r"run: cannot be written \((Not a directory|File exists)\)"):
        files("cvat", "coco")
    assert written(tmp_path / "run") == {"coco"}


def test_memory_does_not_grow_with_the_pictures(files: Callable[..., LabelFiles], tmp_path: Path) -> None:
    writer = files("coco", "cvat", "labelstudio")
    boxes = BOXES * 10
    tracemalloc.start()
    try:
        for number in range(60):
            writer.add(picture(f"{number}.jpg", boxes, tmp_path / f"{number}.jpg"))
            if number == 2:
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
        grown = tracemalloc.get_traced_memory()[1] - before
        writer.close()
    finally:
        tracemalloc.stop()
    rows = json.loads((tmp_path / "run/coco/annotations/instances_default.json").read_text())["annotations"]
    assert len(rows) == 1200
    assert grown < 150_000  # the rows are 0.7 MB of text
