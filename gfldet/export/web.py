"""A folder with a static page that runs the model in a browser, by onnxruntime-web."""

from __future__ import annotations

from pathlib import Path

from gfldet.export.card import Card


def write(file: Path, card: Card, folder: Path) -> Path:
    """Fill `folder` with the page and the model `file`."""
    raise NotImplementedError
