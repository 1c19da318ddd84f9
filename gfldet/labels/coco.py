"""COCO: images, annotations and categories in one JSON, which CVAT, Roboflow, FiftyOne and others import.

Format: https://cocodataset.org/#format-data.  The folders are those in which CVAT writes COCO.  Each annotation has its
`score` too, as predictions.json has it; who does not know that key passes over it.
"""

from __future__ import annotations

import json
from tempfile import TemporaryFile
from typing import Any

from gfldet.labels.picture import Picture, RowFile, Target, data_yaml

FILE = "annotations/instances_default.json"


class Coco:
    """See `picture.Format`."""

    by_stem = False

    def __init__(self, target: Target) -> None:
        self._target = target
        categories = [{"id": i, "name": name} for i, name in zip(target.ids, target.names, strict=True)]
        head = f'{{"info": {{}}, "licenses": [], "categories": {_json(categories)}, "images": ['
        self._images = RowFile(target, FILE, head, ",\n")
        # They follow all images, of which nobody knows yet how many will come.
        self._annotations = target.open_files.enter_context(TemporaryFile(dir=target.folder))  # noqa: SIM115
        self._count = self._found = 0
        RowFile(target, "data.yaml", data_yaml(images="images", train=FILE))

    def add(self, picture: Picture) -> None:
        self._count += 1
        image = {"id": self._count, "file_name": picture.file_name, "width": picture.width, "height": picture.height}
        self._images.add(_json(image))
        for number, score, box in picture.rows():
            self._found += 1
            row = {
                "id": self._found,
                "image_id": self._count,
                "category_id": self._target.ids[number],
                "bbox": box,
                "area": round(box[2] * box[3], 3),
                "iscrowd": 0,
                "segmentation": [],
                "score": score,
            }
            self._annotations.write(f"{',' if self._found > 1 else ''}\n{_json(row)}".encode())
        picture.put(self._target.folder / "images" / picture.file_name)

    def end(self) -> None:
        self._images.end('],\n"annotations": [')
        self._images.end_with(self._annotations, "]}\n")


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
