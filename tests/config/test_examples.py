"""The data YAMLs that users copy: each one, put beside the folders that its comment draws, loads as it stands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gfldet.config.assets import cfg_folder
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split

EXAMPLES = sorted((cfg_folder() / "data").glob("example-*.yaml"))
XML = """<annotation><filename>0001.jpg</filename><size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>dog</name><bndbox><xmin>8</xmin><ymin>12</ymin><xmax>40</xmax><ymax>36</ymax></bndbox></object>
</annotation>"""


def image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.full((48, 64, 3), 90, np.uint8))


def text(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def lay_yolo(root: Path) -> None:
    for split in ("train", "val"):
        image(root / "images" / split / "0001.jpg")
        text(root / "labels" / split / "0001.txt", "1 0.375 0.5 0.5 0.5\n")


def lay_coco(root: Path) -> None:
    image(root / "images" / "0001.jpg")
    box = {"id": 1, "image_id": 5, "category_id": 91, "bbox": [8, 12, 32, 24], "area": 768, "iscrowd": 0}
    content = {
        "images": [{"id": 5, "file_name": "0001.jpg", "width": 64, "height": 48}],
        "annotations": [box],
        "categories": [{"id": 7, "name": "cat"}, {"id": 91, "name": "dog"}],
    }
    for split in ("train", "val"):
        text(root / "annotations" / f"instances_{split}.json", json.dumps(content))


def lay_voc(root: Path) -> None:
    image(root / "JPEGImages" / "0001.jpg")
    text(root / "Annotations" / "0001.xml", XML)
    for split in ("train", "val"):
        text(root / "ImageSets" / "Main" / f"{split}.txt", "0001\n")


LAYOUTS: dict[str, Callable[[Path], None]] = {"yolo": lay_yolo, "coco": lay_coco, "voc": lay_voc}


def test_there_is_an_example_for_each_format() -> None:
    assert [path.stem for path in EXAMPLES] == [f"example-{name}" for name in sorted(LAYOUTS)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("with_format", [True, False])
def test_example_loads_beside_the_folders_that_it_draws(example: Path, with_format: bool, tmp_path: Path) -> None:
    name = example.stem.removeprefix("example-")
    LAYOUTS[name](tmp_path / "my-data")
    mine = tmp_path / "my-data.yaml"
    shutil.copy(example, mine)
    if not with_format:  # its comment says that the line may be left out
        lines = mine.read_text().splitlines()
        mine.write_text("\n".join(line for line in lines if not line.startswith("format:")))
    spec = load_spec(mine)
    assert spec.format == name
    assert spec.names == ("cat", "dog")
    for part in ("train", "val"):
        (record,) = load_split(spec, part).records
        assert (record.width, record.height) == (64, 48)
        assert record.classes.tolist() == [1]
        assert record.boxes.tolist() == [[8, 12, 40, 36]]
