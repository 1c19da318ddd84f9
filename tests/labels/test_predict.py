"""`gfldet predict save_format=...`: what was found comes back as the truths of a data set, and into other programs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from gfldet import Model, cli
from gfldet.errors import ConfigError, DataError, Notice
from gfldet.labels.writer import FORMATS

QUIET: dict[str, Any] = {"imgsz": 96, "threads": 1, "verbose": False}
RECTANGLES = [(0, 8, 4, 40, 36), (1, 60, 40, 88, 60)]
ALL = tuple(FORMATS)
Draw = Callable[..., np.ndarray]


@pytest.fixture
def photos(tmp_path: Path, draw: Draw) -> Path:
    """Pictures in two sub-folders with equal names, one turned by EXIF, one without anything to find, odd names."""
    folder = tmp_path / "photos"
    for name in ("1", "2"):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "x.png"), draw(RECTANGLES[: int(name)], 96, 64, 0)[..., ::-1])
    cv2.imwrite(str(folder / "1/nothing here.png"), draw([], 50, 60, 0))
    turned = Image.fromarray(draw([(1, 3, 20, 30, 40)], 96, 64, 1))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "2/gedreht & schön.png", exif=exif)
    return folder


def boxes_of(results: Any) -> list[tuple[str, list[float]]]:
    return [(results.names[int(c)], box.tolist()) for c, box in zip(results.boxes.cls, results.boxes.xyxy, strict=True)]


def test_what_was_found_measured_against_itself(model: Model, photos: Path) -> None:
    """As the truths of a data set in each format that gfldet reads: AP is 1, for pictures turned by EXIF too."""
    found = model.predict(str(photos / "*/*"), save_format=ALL, **QUIET)
    assert [len(results) for results in found] == [0, 1, 1, 2]
    assert found[2].orig_shape == (96, 64)
    run = model.save_dir
    assert run == Path("runs/predict")
    assert run is not None
    for word in ("coco", "voc", "yolo"):
        metrics = model.val(data=str(run / word), split="train", val_share=0, plots=False, project="vals", **QUIET)
        assert metrics is not None
        assert metrics.map == pytest.approx(1), word
        assert metrics.truths == 4
    assert os.path.samefile(run / "yolo/images/1/x.png", photos / "1/x.png")
    by_name = {Path(results.path).relative_to(photos).as_posix(): boxes_of(results) for results in found}
    cvat = ElementTree.parse(run / "cvat/annotations.xml").getroot()
    assert {
        image.get("name"): [
            (box.get("label"), [float(box.get(side) or "") for side in ("xtl", "ytl", "xbr", "ybr")]) for box in image
        ]
        for image in cvat.findall("image")
    } == {name: [(c, pytest.approx(box, abs=1e-3)) for c, box in boxes] for name, boxes in by_name.items()}
    for task, results in zip(json.loads((run / "labelstudio/tasks.json").read_text()), found, strict=True):
        rows = task["predictions"][0]["result"]
        sides = {(row["original_height"], row["original_width"]) for row in rows}
        assert sides <= {results.orig_shape}
        corners = [row["value"]["x"] * row["original_width"] / 100 for row in rows]
        assert corners == pytest.approx([box[0] for _, box in boxes_of(results)], abs=1e-3)


def test_frames_of_a_video_and_arrays_become_pictures(model: Model, draw: Draw, clip: Any, tmp_path: Path) -> None:
    picture = draw(RECTANGLES, 96, 64, 0)
    source = [str(clip([picture] * 3)), np.ascontiguousarray(picture[..., ::-1])]
    model.predict(source, vid_stride=2, save_format=ALL, **QUIET)
    run = tmp_path / "runs/predict"
    names = ["clip_000000.jpg", "clip_000002.jpg", "image0.jpg"]
    for word in ("coco", "cvat", "labelstudio", "yolo"):
        assert sorted(path.name for path in (run / word / "images").iterdir()) == names
    metrics = model.val(data=str(run / "yolo"), split="train", val_share=0, plots=False, project="vals", **QUIET)
    assert metrics is not None
    assert metrics.truths == 6
    assert metrics.map50 == pytest.approx(1)  # a JPEG's edges are not those of the frame


def test_files_with_one_name_from_a_list(model: Model, photos: Path) -> None:
    source = [photos / "1/x.png", photos / "2/x.png", photos / "2/x.png"]
    model.predict(source, save_format="coco", save_json=True, **QUIET)
    run = Path("runs/predict")
    found = json.loads((run / "coco/annotations/instances_default.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["1/x.png", "2/x.png"]
    rows = json.loads((run / "predictions.json").read_text())
    assert [row["file_name"] for row in rows] == ["1/x.png"] + ["2/x.png"] * 4


def test_a_pattern_that_leads_out_of_its_folder(model: Model, photos: Path, tmp_path: Path) -> None:
    """Nothing is written outside of the run folder."""
    model.predict(f"{photos}/*/../../photos/2/x.png", save_format=("yolo", "voc"), **QUIET)
    assert [path.name for path in (tmp_path / "runs/predict/yolo/labels").rglob("*.txt")] == ["x.txt"]
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "runs"} | {p.name for p in tmp_path.glob("*.yaml")}


def test_a_second_run_into_the_same_folder(model: Model, photos: Path) -> None:
    """The pictures are those of the later run, and the user's own are as before."""
    options = {"save_format": "yolo", "name": "mine", "exist_ok": True, **QUIET}
    model.predict(photos / "2", **options)
    images = Path("runs/mine/yolo/images")
    assert os.path.samefile(images / "x.png", photos / "2/x.png")
    shutil.copyfile(photos / "2/x.png", images / "nothing here.png")
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    model.predict(photos / "1", **options)
    assert os.path.samefile(images / "x.png", photos / "1/x.png")
    assert os.path.samefile(images / "nothing here.png", photos / "1/nothing here.png")
    model.predict(images / "x.png", **options)
    assert os.path.samefile(images / "x.png", photos / "1/x.png")
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before


def test_where_there_are_no_links_pictures_are_copied(
    model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    model.predict(photos / "1", save_format="yolo", **QUIET)
    copy = Path("runs/predict/yolo/images/x.png")
    assert not os.path.samefile(copy, photos / "1/x.png")
    assert copy.read_bytes() == (photos / "1/x.png").read_bytes()


def test_a_file_that_cannot_be_read_later(model: Model, photos: Path) -> None:
    """The labels of the others are there, and whole."""
    whole = (photos / "2/x.png").read_bytes()
    (photos / "2/x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="x"):
        model.predict(str(photos / "2/*"), save_format="cvat", **QUIET)
    root = ElementTree.parse("runs/predict/cvat/annotations.xml").getroot()
    assert [image.get("name") for image in root.findall("image")] == ["gedreht & schön.png"]


def test_formats_that_there_are_not(model: Model, photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"save_format.*labelstudio, cvat, coco, voc or yolo, or several of them"):
        model.predict(photos / "1", save_format="coco,labelme")
    with pytest.warns(Notice, match="image_url: without effect unless save_format=labelstudio"):
        model.predict(photos / "1", save_format="coco", image_url="http://host/", **QUIET)


def test_a_folder_that_cannot_be_written(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out/run").mkdir(parents=True)
    (tmp_path / "out/run/voc").write_text("mine")
    words = [f"model={trained}", f"source={photos / '1'}", "save=false", "save_format=voc", "imgsz=64", "threads=1"]
    assert cli.main(["predict", *words, f"project={tmp_path / 'out'}", "name=run", "exist_ok=true"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "cannot be written" in told
    assert [path.name for path in (tmp_path / "out/run").rglob("*")] == ["voc"]
