"""Pictures of several images: size, order, scaled boxes, and files that can be read back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gfldet.errors import OutputError
from gfldet.viz.draw import class_colour
from gfldet.viz.pictures import _CAPTION, _GAP, Tile, batch_picture, save_picture, truth_and_detections


def tile(value, height=100, width=200, boxes=(), scores=None):
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.zeros(len(corners), np.int64)
    return Tile(np.full((height, width, 3), value, np.uint8), corners, classes, scores, "caption")


def test_a_batch_is_a_grid_in_reading_order():
    picture = batch_picture([tile(10), tile(60), tile(110)], ["a"], tile_size=100)
    side, high = 100 + _GAP, _CAPTION + 50 + _GAP
    assert picture.shape == (2 * high + _GAP, 2 * side + _GAP, 3)
    middle = _GAP + _CAPTION + 25
    assert picture[middle, 50, 0] == 10
    assert picture[middle, side + 50, 0] == 60
    assert picture[high + middle, 50, 0] == 110
    assert picture[high + middle, side + 50, 0] == 255


def test_no_more_than_the_limit():
    assert batch_picture([tile(0)] * 9, ["a"], 50, limit=4).shape == batch_picture([tile(0)] * 4, ["a"], 50).shape


def test_boxes_follow_the_scale():
    picture = batch_picture([tile(90, 100, 200, [[20, 40, 180, 90]])], ["a"], tile_size=100)
    picture = picture[_GAP + _CAPTION : -_GAP, _GAP:-_GAP]  # the image at half its size
    assert tuple(picture[45, 50]) == class_colour(0)
    assert tuple(picture[32, 10]) == class_colour(0)
    assert (picture[25:40, 60:85] == 90).all()


def test_truths_left_detections_right():
    truths = [tile(10), tile(20)]
    detections = [tile(110, boxes=[[20, 40, 180, 90]], scores=np.array([0.5])), tile(120)]
    picture = truth_and_detections(truths, detections, ["a"], tile_size=100)
    row = picture[_GAP + _CAPTION + 48]  # below the box
    assert [int(row[x, 0]) for x in (50, 150)] == [10, 110]
    assert (row[:, 0] == 20).sum() == (row[:, 0] == 120).sum() == 100
    with pytest.raises(ValueError, match="zip"):
        truth_and_detections(truths, detections[:1], ["a"])


def test_odd_tiles():
    for odd in (tile(0, 1, 1), tile(0, 300, 1), tile(0, 1, 300, [[0, 0, 300, 1]])):
        assert batch_picture([odd], ["a"], 64).shape[1] == 64 + 2 * _GAP
    crowded = tile(0, boxes=[[1, 1, 50, 50]] * 200)
    assert batch_picture([crowded], ["a"], 64).size
    assert batch_picture([], ["a"]).size
    assert truth_and_detections([], [], ["a"]).size


def test_a_saved_picture_is_rgb_and_its_folder_is_made(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 200
    path = save_picture(tmp_path / "new" / "grün.png", image)
    read = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert tuple(read[0, 0]) == (0, 0, 200)


def test_what_cannot_be_written(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(OutputError, match=r"no picture format has the suffix '\.txt'; use \.jpg or \.png"):
        save_picture(tmp_path / "a.txt", image)
    with pytest.raises(OutputError, match="suffix ''"):
        save_picture(tmp_path / "a", image)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="the picture cannot be written"):
        save_picture(tmp_path / "file" / "a.png", image)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
