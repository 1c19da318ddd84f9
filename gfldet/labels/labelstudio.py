"""Label Studio: tasks with predictions as JSON, and the XML that sets up a project for them.

Format: https://labelstud.io/guide/predictions.  Boxes are in percent of the upright picture.  A task's score is the
mean of its boxes' scores, so that tasks can be sorted by it.  A picture's address is that of a local file, relative to
LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, which is the root of the file system unless it is set:
https://labelstud.io/guide/storage.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gfldet.labels.picture import Picture, RowFile, Target, xml_value

LOCAL_FILES = "/data/local-files/?d="


class LabelStudio:
    """See `picture.Format`."""

    by_stem = False

    def __init__(self, target: Target) -> None:
        self._target = target
        labels = "".join(f"    <Label value={xml_value(name)}/>\n" for name in target.names)
        config = (
            '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
            f"{labels}  </RectangleLabels>\n</View>\n"
        )
        RowFile(target, "config.xml", config)
        self._tasks = RowFile(target, "tasks.json", "[\n", ",\n")

    def add(self, picture: Picture) -> None:
        path = picture.path
        if path is None:
            path = self._target.folder / "images" / picture.file_name
            picture.put(path)
        prediction: dict[str, Any] = {"model_version": self._target.model, "result": self._result(picture)}
        if len(picture.scores):
            prediction["score"] = round(float(picture.scores.mean()), 6)
        task = {"data": {"image": self._address(picture, path)}, "predictions": [prediction]}
        self._tasks.add(json.dumps(task, allow_nan=False))

    def end(self) -> None:
        self._tasks.end("\n]\n")

    def _result(self, picture: Picture) -> list[dict[str, Any]]:
        sides = (picture.width, picture.height) * 2
        return [
            {
                "id": str(row),
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": picture.width,
                "original_height": picture.height,
                "image_rotation": 0,
                "score": score,
                "value": {
                    **dict(zip(("x", "y", "width", "height"), map(_percent, box, sides), strict=True)),
                    "rotation": 0,
                    "rectanglelabels": [self._target.names[number]],
                },
            }
            for row, (number, score, box) in enumerate(picture.rows(), 1)
        ]

    def _address(self, picture: Picture, path: Path) -> str:
        if self._target.image_url:
            slash = "" if self._target.image_url.endswith(("/", "=")) else "/"
            return f"{self._target.image_url}{slash}{quote(picture.file_name)}"
        local = Path(os.path.abspath(path))
        return LOCAL_FILES + quote(local.relative_to(local.anchor).as_posix())


def _percent(value: float, side: int) -> float:
    return round(100 * value / side, 6)
