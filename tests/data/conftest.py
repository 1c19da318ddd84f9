"""Small data sets on disk, made by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
