"""`Model`: what a user holds.  Its answers are known beforehand: the model inside finds rectangles by their colour."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import gfldet
from gfldet import Model, cli
from gfldet.config.load import dump, resolve
from gfldet.errors import CheckpointError, ConfigError, DataError, Notice, OutputError
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.results import Results
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint

WIDTH, HEIGHT = 96, 64
RECTANGLES = [(0, 8, 4, 40, 36), (1, 60, 40, 88, 60)]
BOXES = [list(map(float, r[1:])) for r in RECTANGLES]


@pytest.fixture
def picture(draw: Callable[..., np.ndarray]) -> np.ndarray:
    """RGB"""
    return draw(RECTANGLES, WIDTH, HEIGHT, 0)


@pytest.fixture
def folder(tmp_path: Path, picture: np.ndarray) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("b.png", "a.png", "c.bmp"):
        cv2.imwrite(str(tmp_path / "photos" / name), picture[..., ::-1])
    return tmp_path / "photos"


QUIET: dict[str, Any] = {"imgsz": 96, "threads": 1, "verbose": False}


def check(results: Results) -> None:
    """The two rectangles, where they were drawn."""
    assert results.orig_shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(results.boxes.xyxy, BOXES, atol=0.01)
    assert [results.names[int(c)] for c in results.boxes.cls] == ["red", "blue"]


# ------------------------------------------------------------------------------------------------- the caller's process


@pytest.fixture
def threads() -> Iterator[Callable[[], tuple[int, int]]]:
    """The threads of torch and OpenCV, which the caller has set to 3 and 2."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(3)
    cv2.setNumThreads(2)
    yield lambda: (torch.get_num_threads(), cv2.getNumThreads())
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def test_threads_are_the_caller_s_again(
    model: Model, folder: Path, dataset: Callable[..., Any], quick: dict[str, Any], threads: Callable[[], Any]
) -> None:
    inside: list[Any] = []
    decode = model.model.decode
    model.model.decode = lambda *given: inside.append(threads()) or decode(*given)  # type: ignore[func-returns-value]
    model.predict("photos", **QUIET)
    assert threads() == (3, 2)
    for _ in model.predict("photos", stream=True, **QUIET):
        assert threads() == (3, 2)
    stream = model.predict("photos", stream=True, **QUIET)
    next(stream)
    assert threads() == (3, 2)
    stream.close()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError):
        model.predict("photos", classes=["green"], **QUIET)
    data = {"data": str(dataset().yaml), "verbose": False, "plots": False, "imgsz": 64, "threads": 1}
    model.val(**data)
    assert threads() == (3, 2)
    Model(model.source).train(**{**quick, "data": data["data"], "epochs": 1, "val": False})
    assert threads() == (3, 2)


@pytest.mark.parametrize("command", ["train", "val", "predict"])
def test_a_world_of_several_that_is_not_whole(model: Model, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """WORLD_SIZE alone, as somebody's shell may have it; and several devices in a program of one process."""
    given = {"source": "nowhere"} if command == "predict" else {"data": "nowhere"}
    with pytest.raises(ConfigError, match="device=cpu:2: "):
        getattr(model, command)(**given, device="cpu:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=2 is set, but not RANK, .*by torchrun"):
        getattr(model, command)(**given)
    assert not Path("runs").exists()


# ------------------------------------------------------------------------------------------------------- predicting


def test_a_file(model: Model, folder: Path) -> None:
    for source in (folder / "a.png", str(folder / "a.png")):
        (results,) = model.predict(source, **QUIET)
        check(results)
        assert results.path == str(folder / "a.png")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("photos", ["a.png", "b.png", "c.bmp"]),
        ("photos/*.png", ["a.png", "b.png"]),
        ("**/[bc].*", ["b.png", "c.bmp"]),
        (["photos/c.bmp", "photos/a.png"], ["c.bmp", "a.png"]),
        ("list.txt", ["b.png", "a.png"]),
    ],
)
def test_many_files(model: Model, folder: Path, source: Any, names: list[str]) -> None:
    Path("list.txt").write_text("photos/b.png\n./photos/a.png\n")
    found = model.predict(source, **QUIET)
    assert [Path(results.path).name for results in found] == names
    for results in found:
        check(results)


def test_arrays_are_bgr_and_pil_images_rgb(model: Model, picture: np.ndarray) -> None:
    bgr = np.ascontiguousarray(picture[..., ::-1])
    for results in model.predict([bgr, Image.fromarray(picture)], **QUIET):
        check(results)
        assert (results.orig_img == bgr).all()
    (swapped,) = model.predict(picture, **QUIET)
    assert [swapped.names[int(c)] for c in swapped.boxes.cls] == ["red", "blue"]
    np.testing.assert_allclose(swapped.boxes.xyxy, BOXES[::-1], atol=0.01)  # red is blue now
    check(model(bgr, **QUIET)[0])


def test_floats_and_tensors(model: Model, picture: np.ndarray) -> None:
    bgr = np.ascontiguousarray(picture[..., ::-1])
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    batch = torch.stack((tensor, tensor)).float() / 255
    for source in (bgr / 255, bgr.astype(np.float32), tensor, tensor / 255, batch[:1], batch, [batch, bgr]):
        for results in model.predict(source, **QUIET):
            check(results)
            assert (results.orig_img == bgr).all()
    assert [results.path for results in model.predict([batch, bgr], **QUIET)] == ["image0", "image1", "image2"]


def test_a_video(model: Model, picture: np.ndarray, clip: Callable[..., Path]) -> None:
    found = model.predict(clip([picture] * 5), vid_stride=2, save=True, save_txt=True, **QUIET)
    assert len(found) == 3
    for results in found:
        np.testing.assert_allclose(results.boxes.xyxy, BOXES, atol=2)  # jpeg blurs the edges
    assert model.save_dir is not None
    assert sorted(path.name for path in model.save_dir.rglob("*.*")) == [
        "clip.mp4",
        "clip_000000.txt",
        "clip_000002.txt",
        "clip_000004.txt",
    ]


def test_a_stream_goes_image_by_image(model: Model, folder: Path) -> None:
    seen: list[int] = []
    infer = model.model.infer

    def watched(x: Any) -> Any:
        seen.append(len(x))
        return infer(x)

    model.model.infer = watched  # type: ignore[method-assign]
    found = model.predict(folder, stream=True, **QUIET)
    assert isinstance(found, Iterator)
    assert seen == []
    check(next(found))
    assert seen == [1]
    assert len(list(found)) == 2


def test_any_image_size_gives_boxes_of_the_image(model: Model, folder: Path) -> None:
    for size in (64, 192, (64, 160), (160, 64)):
        (results,) = model.predict(folder / "a.png", **{**QUIET, "imgsz": size})
        np.testing.assert_allclose(results.boxes.xyxy, BOXES, atol=96 / np.min(size) + 0.1)


@pytest.mark.parametrize(
    ("classes", "kept"), [("blue", [1]), (["red"], [0]), (0, [0]), ([0, "blue"], [0, 1]), ("1,red", [0, 1])]
)
def test_classes_by_name_and_number(model: Model, folder: Path, classes: Any, kept: list[int]) -> None:
    (results,) = model.predict(folder / "a.png", classes=classes, **QUIET)
    assert results.boxes.cls.tolist() == kept


def test_classes_that_the_model_does_not_have(model: Model, folder: Path) -> None:
    told = r"classes=\['green', 2\]: the model has \{0: 'red', 1: 'blue'\}; give names or numbers of these"
    with pytest.raises(ConfigError, match=told):
        model.predict(folder, classes=["red", "green", 2], **QUIET)


def test_choice_of_detections(model: Model, folder: Path) -> None:
    def classes(**settings: Any) -> list[float]:
        return [c for results in model.predict(folder / "a.png", **QUIET, **settings) for c in results.boxes.cls]

    assert classes(conf=0.85) == [0]
    assert classes(conf=0.95) == []
    assert classes(max_det=1) == [0]


def test_nothing_is_written_unless_asked(model: Model, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.predict(folder, **QUIET)
    assert model.save_dir is None
    assert not Path("runs").exists()
    got = capsys.readouterr()
    assert (got.out, got.err) == ("", "")


def test_nothing_in_many_images_is_told(model: Model, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speaking = {**QUIET, "verbose": True}
    model.predict(folder, **speaking, conf=0.95)
    assert "nothing was found in 3 images at conf=0.95; a lower one" in capsys.readouterr().out
    model.predict(folder, **speaking, conf=0.85)
    model.predict(folder / "a.png", **speaking, conf=0.95)  # its own line says it
    assert "nothing was found in" not in capsys.readouterr().out


def test_what_is_written(model: Model, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saving = {"save": True, "save_txt": True, "save_conf": True, "save_json": True, "project": "out"}
    found = model.predict(folder, **{**QUIET, "verbose": True}, **saving)
    assert model.save_dir == Path("out/predict")
    assert sorted(str(path.relative_to("out/predict")) for path in Path("out/predict").rglob("*.*")) == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
        "labels/a.txt",
        "labels/b.txt",
        "labels/c.txt",
        "predictions.json",
    ]
    saved = cv2.imread("out/predict/a.jpg").astype(int)
    plotted = found[0].plot().astype(int)
    assert np.abs(saved - plotted).mean() < 10 < np.abs(saved - plotted[..., ::-1]).mean()
    row = Path("out/predict/labels/a.txt").read_text().splitlines()[0].split()
    assert [float(v) for v in row] == pytest.approx([0, 24 / 96, 20 / 64, 32 / 96, 32 / 64, 0.9], abs=1e-5)
    rows = json.loads(Path("out/predict/predictions.json").read_text())
    assert rows[0] == {
        "image_id": "a",
        "file_name": "a.png",
        "category_id": 0,
        "bbox": [8, 4, 32, 32],
        "score": 0.9,
    }
    assert len(rows) == 6
    assert capsys.readouterr().out.splitlines()[0] == f"{folder / 'a.png'}: 1 red, 1 blue"
    model.predict(folder / "a.png", save=True, project="out", **QUIET)
    assert model.save_dir == Path("out/predict2")


def test_folders_as_asked(model: Model, folder: Path) -> None:
    for _ in range(2):
        model.predict(folder / "a.png", save=True, name="mine", exist_ok=True, **QUIET)
        assert model.save_dir == Path("runs/mine")
    with pytest.raises(OutputError, match="runs/mine exists; choose another name="):
        model.predict(folder / "a.png", save=True, name="mine", **QUIET)


def test_images_that_do_not_decode(model: Model, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[:60] + b"\0" * 200)
    with pytest.raises(DataError, match=r"b\.png"):
        model.predict(folder, save=True, **QUIET)
    assert sorted(path.name for path in Path("runs/predict").iterdir()) == ["a.jpg", "c.jpg"]  # the others are done
    with pytest.raises(DataError, match=r"b\.png"):
        model.predict(folder / "b.png", save=True, **QUIET)
    assert not Path("runs/predict2").exists()
    capsys.readouterr()
    found = model.predict(folder, on_bad="skip", **QUIET)
    assert [Path(results.path).name for results in found] == ["a.png", "c.bmp"]
    got = capsys.readouterr()
    assert got.out == ""
    assert got.err.startswith("warning: left out (on_bad=skip): ")
    assert "b.png" in got.err


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nothing", "nothing: no such file or folder"),
        ("empty", "empty: no image or video in this folder"),
        ("photos/*.gif", "matches no image or video"),
        ([], "source: the list is empty"),
        (np.full((4, 4), np.nan), "image0: float samples from nan to nan"),
    ],
)
def test_sources_that_are_none(model: Model, folder: Path, source: Any, told: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(DataError, match=told):
        model.predict(source, save=True, **QUIET)
    assert not Path("runs").exists()


def test_results_serve_supervision(model: Model, folder: Path) -> None:
    supervision = pytest.importorskip("supervision")
    (results,) = model.predict(folder / "a.png", **QUIET)
    detections = supervision.Detections.from_ultralytics(results)
    np.testing.assert_allclose(detections.xyxy, BOXES, atol=0.01)
    np.testing.assert_allclose(detections.confidence, [0.9, 0.8], atol=1e-6)
    assert detections.class_id.tolist() == [0, 1]
    assert detections.data["class_name"].tolist() == ["red", "blue"]
    (nothing,) = model.predict(folder / "a.png", conf=0.99, **QUIET)
    assert len(supervision.Detections.from_ultralytics(nothing)) == 0


# ------------------------------------------------------------------------------------------------------- validating


def test_val_measures_and_writes(model: Model, dataset: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset(width=96, height=64, val=5).yaml
    metrics = model.val(data=data, **{**QUIET, "verbose": True})
    assert metrics.map == pytest.approx(1)
    assert (metrics.images, metrics.truths) == (5, 8)
    assert model.save_dir == Path("runs/val")
    assert sorted(path.name for path in model.save_dir.iterdir()) == [
        "confusion_matrix.png",
        "metrics.json",
        "precision_recall.png",
        "predictions.json",
        "report.html",
        "thresholds.png",
        "val_truth_and_detections.jpg",
    ]
    written = json.loads((model.save_dir / "metrics.json").read_text())
    assert written == metrics.to_dict()
    rows = json.loads((model.save_dir / "predictions.json").read_text())
    assert {row["file_name"] for row in rows} == {f"{i:03d}.png" for i in range(6, 11)}
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "val: 5 images, 8 boxes, 2 classes; kept in memory"
    assert out[1].split() == ["class", "images", "truths", "P", "R", "F1", "conf", "AP50", "AP50-95"]
    assert out[2].split()[:3] == ["all", "5", "8"]
    assert out[2].split()[-1] == "1.000"
    model.val(data=data, split="train", plots=False, **QUIET)
    assert model.save_dir == Path("runs/val2")
    assert sorted(path.name for path in model.save_dir.iterdir()) == ["metrics.json", "predictions.json"]


def test_later_commands_go_by_the_training_run(
    tiny: Description, dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained_on, other = dataset().yaml, dataset("other").yaml
    run = resolve("train", {"data": trained_on, "imgsz": 64, "iou": 0.3, "batch": 3, "rect": False, "epochs": 9})
    weights = DetectionModel(tiny, ("red", "blue")).state_dict()
    checkpoints.save(tmp_path / "best.pt", Checkpoint(tiny, ("red", "blue"), (0, 1), weights, dump(run)))
    model, seen = Model("best.pt"), []
    monkeypatch.setattr("gfldet.validating.measure", lambda subject, settings, folder, ranks: seen.append(settings))
    monkeypatch.setattr("gfldet.validating.format_table", str)
    monkeypatch.setattr("gfldet.model.predict", lambda subject, settings, _: (seen.append(settings) for _ in "1"))
    Path("mine.yaml").write_text(f"data: {other}\niou: 0.5\nimgsz: 96\n")

    def settings_of(command: str, *source: str, **given: Any) -> Any:
        with contextlib.suppress(AttributeError):  # there is no result to return
            getattr(model, command)(*source, **given)
        return seen.pop()

    plain, filed = settings_of("val"), settings_of("val", cfg="mine.yaml", batch=5)
    assert (plain.data, plain.imgsz, plain.iou, plain.batch, plain.rect) == (str(trained_on), 64, 0.3, 3, False)
    assert (filed.data, filed.imgsz, filed.iou, filed.batch, filed.rect) == (str(other), 96, 0.5, 5, False)
    assert set(plain.origins) == {
        "model",
        "data",
        "val_share",
        "imgsz",
        "sample_bits",
        "batch",
        "rect",
        "conf",
        "iou",
        "max_det",
        "agnostic_nms",
        "tile",
        "overlap",
        "tile_whole",
    }
    assert plain.explicit == {"model"}  # the rest is restored from the run
    assert filed.explicit == {"model", "data", "imgsz", "iou", "batch"}
    assert settings_of("val", iou=0.7).iou == 0.7  # the default, but given
    assert settings_of("predict", "x").imgsz == 64
    assert settings_of("predict", "x").iou == 0.7
    assert settings_of("predict", "x", cfg="mine.yaml").imgsz == 96


def test_val_of_other_classes(model: Model, dataset: Callable[..., Any]) -> None:
    data = dataset().yaml
    data.write_text(data.read_text().replace("red, blue", "red, green"))
    told = r"its classes \['red', 'green'\] are not those of .*tiny\.yaml, \['red', 'blue'\]"
    with pytest.raises(DataError, match=told):
        model.val(data=data, **QUIET)
    assert not Path("runs").exists()


def test_val_of_a_split_that_is_not_there(model: Model, dataset: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="has no split 'test'; it has: train, val"):
        model.val(data=dataset().yaml, split="test", **QUIET)
    assert not Path("runs").exists()


# ------------------------------------------------------------------------------------------------------ the rest of it


def test_models_by_name() -> None:
    named = Model("gfldet-n")
    assert named.description.name == "gfldet-n"
    assert len(named.names) == 80
    with pytest.raises(ConfigError, match="gfldet"):
        Model("gfldet-q")
    with pytest.raises(CheckpointError, match=r"gone\.pt: no such file"):
        Model("gone.pt")


def test_the_package_offers_it() -> None:
    assert gfldet.Model is Model
    assert gfldet.Results is Results


@pytest.mark.parametrize("command", ["train", "val", "predict"])
def test_a_model_is_given_once(model: Model, command: str) -> None:
    arguments = ("x",) if command == "predict" else ()
    with pytest.raises(ConfigError, match=r"model=gfldet-s: this Model is .*tiny\.yaml already; make another, Model"):
        getattr(model, command)(*arguments, model="gfldet-s")


def test_a_model_whose_layers_do_not_fit_together_names_its_file(tiny_yaml: Path, tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(tiny_yaml.read_text().replace("3, 2]", "3, 0]", 1))
    with pytest.raises(ConfigError, match=r".*/odd\.yaml: model odd: the layers do not fit together"):
        Model(file)


def test_python_is_warned_of_what_was_changed(
    model: Model, folder: Path, capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    with pytest.warns(Notice, match="imgsz=90 is not a multiple of 32: 96 is used") as caught:
        model.predict(folder / "a.png", threads=1, verbose=False, imgsz=90)
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    with pytest.warns(Notice, match="save_conf: without effect unless save_txt=true"):
        model.predict(folder / "a.png", save_conf=True, **QUIET)
    capsys.readouterr()
    words = ["imgsz=90", "save_conf=true", "save=false", "threads=1", "verbose=false"]
    assert cli.main(["predict", f"model={trained}", f"source={folder / 'a.png'}", *words]) == 0
    assert capsys.readouterr().err.splitlines() == [  # each once
        "notice: imgsz=90 is not a multiple of 32: 96 is used",
        "notice: save_conf: without effect unless save_txt=true",
    ]


@pytest.mark.parametrize("command", ["train", "val", "predict"])
def test_unknown_settings_are_an_error(model: Model, command: str) -> None:
    arguments = ("x",) if command == "predict" else ()
    with pytest.raises(ConfigError, match="imgs: no such setting; did you mean imgsz"):
        getattr(model, command)(*arguments, imgs=640)
    assert not Path("runs").exists()
