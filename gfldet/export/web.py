"""A folder with a static page that runs the model in a browser, with onnxruntime-web.

The files of the page are in `page/`: plain JavaScript, copied unchanged.  onnxruntime-web is not among them;
`npm install` in the folder adds it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from gfldet.detect.card import Card

PAGE = Path(__file__).parent / "page"


def write(file: Path, card: Card, folder: Path) -> Path:
    """Fill `folder` with the page, the ONNX `file` of layout detections and its card; return the folder."""
    folder.mkdir()
    for part in PAGE.iterdir():
        shutil.copyfile(part, folder / part.name)
    shutil.copyfile(file, folder / "model.onnx")
    text = json.dumps(card.to_dict(), ensure_ascii=False, indent=2)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")
    return folder
