"""`Results`: the numbers, the calls that users of this family make, and the files it writes."""

from __future__ import annotations

import copy
import csv
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from gfldet.errors import ConfigError, DataError, OutputError
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


def test_to_dict():
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


def test_some_of_the_detections():
    found = results()
    found.save_dir = "runs/predict"
    for some, expected in (
        (found[0], [1]),
        (found[1:], [0, 1]),
        (found[found.boxes.conf > 0.5], [1, 0]),
        (found[[2]], [1]),
    ):
        assert isinstance(some, Results)
        assert some.boxes.cls.tolist() == expected
        assert (some.path, some.names, some.speed, some.save_dir) == (
            found.path,
            found.names,
            found.speed,
            "runs/predict",
        )
        assert some.orig_img is found.orig_img
    assert [one.verbose() for one in found] == ["1 WBC", "1 RBC", "1 WBC"]
    assert len(found.new()) == 0
    with pytest.raises(IndexError):
        found[3]
    assert len(Results(found.orig_img, "a.jpg", {0: "a"})) == 0
    assert found.to("cuda").cuda(0).cpu() is found


SUMMARY = [
    {"name": "WBC", "class": 1, "confidence": 0.9, "box": {"x1": 10.0, "y1": 20.0, "x2": 50.0, "y2": 80.0}},
    {"name": "RBC", "class": 0, "confidence": 0.6, "box": {"x1": 100.0, "y1": 10.0, "x2": 140.0, "y2": 20.0}},
]


def test_summary_and_what_is_made_of_it():
    found = results(ROWS[:2])
    assert found.summary() == SUMMARY
    assert json.loads(found.to_json()) == json.loads(found.tojson()) == SUMMARY
    assert results([[0, 0, 200 / 3, 50, 0.123456, 0]]).summary(normalize=True, decimals=2) == [
        {"name": "RBC", "class": 0, "confidence": 0.12, "box": {"x1": 0.0, "y1": 0.0, "x2": 0.33, "y2": 0.5}}
    ]
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [(row["name"], row["class"], row["confidence"]) for row in rows] == [
        ("WBC", "1", "0.9"),
        ("RBC", "0", "0.6"),
    ]
    assert [json.loads(row["box"]) for row in rows] == [row["box"] for row in SUMMARY]
    assert results([]).to_csv() == "name,class,confidence,box\n"
    assert results([]).to_json() == "[]"


def test_to_df(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns)))
    assert results(ROWS[:2]).to_df() == (SUMMARY, ["name", "class", "confidence", "box"])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"to_df: pandas is not installed here; pip install pandas"):
        results().to_df()


def test_save_crop(tmp_path):
    found = results([[10.4, 20, 50.2, 80, 0.9, 1], [-5, -5, 400, 400, 0.6, 0], [199.9, 99.9, 200, 100, 0.25, 1]])
    found.orig_img[20:80, 10:51] = (1, 2, 3)
    found.names = {0: "../a/b", 1: "white cell"}
    written = found.save_crop(tmp_path, "im.png")
    assert written == [str(tmp_path / name) for name in ("white cell/im.png", "_a_b/im.png", "white cell/im-2.png")]
    assert (cv2.imread(written[0]) == (1, 2, 3)).all()
    assert [cv2.imread(path).shape[:2] for path in written] == [(60, 41), (100, 200), (1, 1)]
    assert [Path(path).name for path in results().save_crop(tmp_path)] == ["cells.jpg", "cells.jpg", "cells-2.jpg"]
    assert Path(results().save_crop(tmp_path, file_name="a.b")[0]).name == "a.b.jpg"
    assert results([]).save_crop(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_how_it_is_drawn():
    found = results()
    plain = found.plot()
    assert (found.plot(True, 3) == found.plot(line_width=3)).all()
    assert (np.asarray(found.plot(pil=True)) == plain[..., ::-1]).all()
    assert (found.plot(boxes=False) == found.orig_img).all()
    assert (found.plot(font_size=40) != found.plot(font_size=10)).any()
    canvas = np.zeros_like(found.orig_img)
    on_black = found.plot(img=canvas, labels=False)
    assert (on_black[50, 30] == 0).all()
    assert tuple(on_black[20, 30]) == tuple(found.plot(labels=False)[20, 30])
    assert not canvas.any()
    twins = results([[10, 20, 50, 80, 0.9, 1], [100, 20, 150, 80, 0.9, 1]])
    for mode, same in (("class", True), ("instance", False)):
        picture = twins.plot(labels=False, color_mode=mode)
        assert (tuple(picture[20, 30]) == tuple(picture[20, 120])) is same


@pytest.mark.parametrize(
    ("drawing", "error", "told"),
    [
        ({"kpt_radius": 3}, TypeError, "plot takes no kpt_radius: gfldet finds boxes only"),
        ({"line_widht": 3}, TypeError, "plot takes no line_widht; did you mean line_width?"),
        ({"zzz": 3}, TypeError, "plot takes no zzz; it takes conf, line_width, "),
        ({"color_mode": "random"}, DataError, "color_mode=random: expected class or instance"),
        ({"img": np.zeros((5, 5, 3), np.uint8)}, DataError, r"img: expected a numpy array of shape \(100, 200, 3\)"),
        ({"img": "a.jpg"}, DataError, "img: expected a numpy array"),
    ],
)
def test_what_cannot_be_drawn(drawing, error, told, tmp_path):
    for call in (results().plot, results().show):
        with pytest.raises(error, match=told):
            call(**drawing)
    with pytest.raises(error, match=told):
        results().save(tmp_path / "a.png", **drawing)
    assert not list(tmp_path.iterdir())


def test_show(monkeypatch):
    shown = []
    monkeypatch.setattr("PIL.ImageShow.show", lambda picture, title: shown.append((np.asarray(picture), title)) or True)
    results().show(labels=False)
    assert (shown[0][0] == results().plot(labels=False)[..., ::-1]).all()
    assert shown[0][1] == "folder/cells.jpg"
    monkeypatch.setattr("PIL.ImageShow.show", lambda picture, title: False)
    with pytest.raises(OutputError, match=r"no program that shows pictures was found; save\(\) writes one to a file"):
        results().show()


def test_show_in_a_notebook(monkeypatch):
    shown = []
    shell = type("ZMQInteractiveShell", (), {})()
    notebook = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=shown.append))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    results().show()
    assert shown[0].size == (200, 100)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pandas", r"Results has no 'pandas': take \.to_df\(\)"),
        ("xyxy", r"Results has no 'xyxy': take \.boxes\.xyxy"),
        ("save_crops", "Results has no 'save_crops'; did you mean 'save_crop'?"),
        ("zzz", "Results has no 'zzz'; it has boxes, cpu, "),
    ],
)
def test_what_there_is_not_names_the_nearest(name, told):
    with pytest.raises(AttributeError, match=told):
        getattr(results(), name)
    assert not hasattr(results(), "_repr_html_")
    assert copy.deepcopy(results()).summary() == pickle.loads(pickle.dumps(results())).summary()  # noqa: S301


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
    code = "import sys, gfldet.results; assert not {'torch', 'matplotlib', 'PIL', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_large_picture_is_drawn_on_in_strips(monkeypatch, tmp_path):
    """Some rows at a time, to save the memory of a copy: the same picture, which `save` writes as it is."""
    whole = results().plot()
    monkeypatch.setattr("gfldet.results._STRIP", 7 * 200)
    assert (results().plot() == whole).all()
    assert (cv2.imread(results().save(tmp_path / "a.png")) == whole).all()
