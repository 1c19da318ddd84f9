"""`Results`: the numbers, the calls that users of this family make, and the files it writes."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from gfldet.errors import OutputError
from gfldet.results import Boxes, Results

ROWS = [[10, 20, 50, 80, 0.9, 1], [100, 10, 140, 20, 0.6, 0], [0, 0, 200, 100, 0.25, 1]]


def results(rows=ROWS, path="folder/cells.jpg"):
    image = np.full((100, 200, 3), (200, 100, 50), np.uint8)  # BGR
    return Results(image, path, {0: "RBC", 1: "WBC"}, rows, {"inference": 4.0})


def test_boxes_by_hand():
    boxes = results().boxes
    assert len(boxes) == 3
    assert boxes.xyxy.tolist() == [[10, 20, 50, 80], [100, 10, 140, 20], [0, 0, 200, 100]]
    assert boxes.xywh.tolist() == [[30, 50, 40, 60], [120, 15, 40, 10], [100, 50, 200, 100]]
    np.testing.assert_allclose(boxes.xywhn[0], [0.15, 0.5, 0.2, 0.6], rtol=1e-6)
    np.testing.assert_allclose(boxes.xyxyn[2], [0, 0, 1, 1])
    np.testing.assert_allclose(boxes.conf, [0.9, 0.6, 0.25], rtol=1e-6)
    assert boxes.cls.tolist() == [1, 0, 1]
    assert boxes.data.shape == (3, 6)
    assert boxes.id is None


def test_the_calls_that_users_make_on_tensors():
    boxes = results().boxes
    assert type(boxes.xyxy.cpu().numpy()) is np.ndarray
    assert boxes.cls.int().cpu().tolist() == [1, 0, 1]
    assert boxes.cls.detach().cpu().numpy().astype(int).tolist() == [1, 0, 1]
    assert [int(box.cls) for box in boxes] == [1, 0, 1]
    assert [round(float(box.conf), 2) for box in boxes] == [0.9, 0.6, 0.25]
    assert [results().names[c.item()] for c in boxes.cls] == ["WBC", "RBC", "WBC"]
    x1, y1, x2, y2 = boxes[0].xyxy[0].tolist()
    assert (x1, y1, x2, y2) == (10, 20, 50, 80)
    assert results().cpu().numpy().boxes.cpu().numpy().conf.shape == (3,)
    assert np.asarray(boxes.conf).dtype == np.float32


def test_some_of_the_boxes():
    boxes = results().boxes
    assert boxes[1].xyxy.tolist() == [[100, 10, 140, 20]]
    assert len(boxes[boxes.conf > 0.5]) == 2
    assert len(boxes[:2]) == 2
    assert len(boxes[[0, 2]]) == 2
    assert isinstance(boxes[-1], Boxes)
    with pytest.raises(IndexError):
        boxes[3]


def test_the_given_rows_are_not_shared():
    rows = np.array(ROWS, np.float32)
    found = results(rows)
    rows[:] = 0
    assert found.boxes.conf[0] == np.float32(0.9)


def test_results_has_what_the_interface_names():
    found = results()
    assert found.orig_shape == (100, 200)
    assert found.orig_img.shape == (100, 200, 3)
    assert found.path == "folder/cells.jpg"
    assert found.names == {0: "RBC", 1: "WBC"}
    assert found.speed == {"inference": 4.0}
    assert len(found) == 3
    assert (found.masks, found.keypoints, found.probs, found.obb) == (None,) * 4
    assert found.verbose() == "2 WBC, 1 RBC"
    assert repr(found) == "Results(folder/cells.jpg: 2 WBC, 1 RBC)"


def test_nothing_found(tmp_path):
    found = results(np.zeros((0, 6)))
    assert len(found) == 0
    assert found.verbose() == "nothing found"
    assert found.boxes.xywhn.shape == (0, 4)
    assert found.to_dict()["boxes"] == []
    np.testing.assert_array_equal(found.plot(), found.orig_img)
    found.save_txt(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == ""
    assert len(results([])) == 0


def test_plot_draws_on_a_copy_in_bgr():
    found = results(ROWS[:1])
    before = found.orig_img.copy()
    picture = found.plot(line_width=1, labels=False)
    np.testing.assert_array_equal(found.orig_img, before)
    assert picture.dtype == np.uint8
    assert tuple(picture[20, 30]) == (233, 180, 86)  # class 1, sky blue (86, 180, 233), as BGR
    assert tuple(picture[50, 30]) == (200, 100, 50)
    assert (found.plot() != picture).any()
    assert (found.plot(conf=False) != found.plot()).any()


def test_to_dict_and_json():
    plain = results(path="bäume.jpg").to_dict()
    assert plain["boxes"][0] == {
        "name": "WBC",
        "class": 1,
        "confidence": 0.9,
        "box": {"x1": 10.0, "y1": 20.0, "x2": 50.0, "y2": 80.0},
    }
    assert {k: v for k, v in plain.items() if k != "boxes"} == {
        "path": "bäume.jpg",
        "orig_shape": [100, 200],
        "speed": {"inference": 4.0},
    }
    assert json.loads(results(path="bäume.jpg").to_json()) == plain


def test_save_txt(tmp_path):
    path = tmp_path / "labels" / "cells.txt"
    assert results().save_txt(path) == str(path)
    assert path.read_text().splitlines()[0] == "1 0.150000 0.500000 0.200000 0.600000"
    results().save_txt(path, save_conf=True)  # written anew, not added to
    assert [line.split()[5] for line in path.read_text().splitlines()] == ["0.900000", "0.600000", "0.250000"]


def test_save(tmp_path, monkeypatch):
    found = results()
    written = found.save(tmp_path / "new" / "out.png")
    np.testing.assert_array_equal(cv2.imread(written), found.plot())
    monkeypatch.chdir(tmp_path)
    assert found.save() == "results_cells.jpg"
    assert (tmp_path / "results_cells.jpg").is_file()


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("image0", "", "results_image0.jpg"),  # an array
        ("in/clip.mp4", "clip_000012", "results_clip_000012.jpg"),  # a frame of a video has a file of its own
        ("a.jfif", "", "results_a.jpg"),
        ("a.MPO", "a", "results_a.jpg"),
        ("grey.pgm", "", "results_grey.jpg"),
        ("in/a.b.PNG", "a.b", "results_a.b.PNG"),
        ("shapes:/val/000012.png", "000012", "results_000012.png"),
    ],
)
def test_save_without_a_path_whatever_the_image_came_from(tmp_path, monkeypatch, path, name, expected):
    monkeypatch.chdir(tmp_path)
    one = Results(np.zeros((8, 8, 3), np.uint8), path, {0: "a"}, [], name=name)
    assert one.save() == expected
    assert cv2.imread(expected).shape == (8, 8, 3)


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="the labels cannot be written"):
        results().save_txt(tmp_path / "file" / "a.txt")
    with pytest.raises(OutputError, match="the picture cannot be written"):
        results().save(tmp_path / "file" / "a.png")


def test_supervision_reads_it():
    supervision = pytest.importorskip("supervision")
    detections = supervision.Detections.from_ultralytics(results())
    assert detections.xyxy.tolist() == [row[:4] for row in ROWS]
    np.testing.assert_allclose(detections.confidence, [0.9, 0.6, 0.25], rtol=1e-6)
    assert detections.class_id.tolist() == [1, 0, 1]
    assert detections.data["class_name"].tolist() == ["WBC", "RBC", "WBC"]
    assert detections.tracker_id is None
    assert len(supervision.Detections.from_ultralytics(results(np.zeros((0, 6))))) == 0


def test_no_torch():
    code = "import sys, gfldet.results; assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
