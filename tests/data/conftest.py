"""Small data sets on disk, made by the tests themselves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def image(tmp_path: Path) -> Write:
    """Saves a picture of random pixels below tmp_path: image("a/b.jpg", width, height, **options of PIL's save)."""

    def write(name: str, width: int = 40, height: int = 20, **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def text(tmp_path: Path) -> Write:
    """Saves text below tmp_path: text("labels/a.txt", "0 .5 .5 .2 .2")."""

    def write(name: str, content: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    return write


_BYTES = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(_BYTES, "JPEG")
PICTURE = _BYTES.getvalue()
ROW = "0 .5 .5 .25 .25\n"


class Folder:
    """A folder to write an export into; paths are relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def text(self, name: str, content: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def images(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PICTURE)

    def yolo(self, images: str, labels: str, *stems: str) -> None:
        """Images in one folder and a label for each in another."""
        self.images(*(f"{images}/{stem}.jpg" for stem in stems))
        for stem in stems:
            self.text(f"{labels}/{stem}.txt", ROW)

    def voc(self, images: str, labels: str, *stems: str, names: Iterable[str] = ("cell",)) -> None:
        """Images in one folder and an XML for each in another, which names a path of another machine."""
        self.images(*(f"{images}/{stem}.jpg" for stem in stems))
        box = "<bndbox><xmin>8</xmin><ymin>8</ymin><xmax>24</xmax><ymax>24</ymax></bndbox>"
        objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in names)
        for stem in stems:
            head = f"<folder>images</folder><filename>{stem}.jpg</filename><path>C:\\me\\{stem}.jpg</path>"
            self.text(f"{labels}/{stem}.xml", f"<annotation>{head}{objects}</annotation>")

    def coco(self, name: str, file_names: Iterable[str], categories: Any = ((1, "cell"),), used: int = 1) -> None:
        """A COCO JSON with one box of the category `used` on each image."""
        images = [{"id": k, "file_name": file, "width": 64, "height": 48} for k, file in enumerate(file_names, 1)]
        boxes = [
            {"id": row["id"], "image_id": row["id"], "category_id": used, "bbox": [8, 8, 16, 16]} for row in images
        ]
        rows = [{"id": i, "name": n, "supercategory": s[0] if s else "none"} for i, n, *s in categories]
        self.text(name, json.dumps({"images": images, "annotations": boxes, "categories": rows}))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Where a test writes the export of a tool."""
    return Folder(tmp_path / "set")
