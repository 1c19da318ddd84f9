"""tools/tiles: its pictures, and that what is laid side by side lies where the pictures are."""

from __future__ import annotations

import numpy as np
import pytest


def test_small_pictures_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    from measure import tiles

    monkeypatch.setattr(tiles, "SIDE", 96)
    monkeypatch.setattr(tiles, "ACROSS", 2)
    pictures = [tiles.small_picture((2, n), 96) for n in range(4)]
    sizes = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in (picture.boxes for picture in pictures)])
    assert 8 < sizes.min() <= sizes.max() < 16
    whole = tiles.side_by_side(pictures)
    image, boxes = whole.image, whole.boxes
    assert image.shape == (192, 192, 3)
    assert (image[96:, :96] == pictures[2].image).all()
    x1, y1, x2, y2 = pictures[2].boxes[0].tolist()
    row = {"image_id": 6, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.5}
    large = tiles.moved(row)
    assert (large["image_id"], large["score"]) == (1, 0.5)
    first = len(pictures[0].boxes) + len(pictures[1].boxes)
    left, top, width, height = large["bbox"]
    assert [left, top, left + width, top + height] == pytest.approx(boxes[first].tolist())
