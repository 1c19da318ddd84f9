"""Tiles from the command line and from Python: trained, validated and predicted with, by checkpoint and by file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from gfldet import Model, cli
from gfldet.errors import ConfigError
from gfldet.store import checkpoint as checkpoints

Write = Callable[..., Path]


@pytest.fixture
def scan(tmp_path: Path) -> np.ndarray:
    """A picture of 200 x 150 px without two places alike, BGR."""
    coarse = np.random.default_rng(3).integers(0, 255, (19, 25, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (200, 150), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.long
def test_a_run_on_tiles(quick: dict[str, Any], tiny_yaml: Path, dataset: Callable[..., Any], tmp_path: Path) -> None:
    """imgsz is that of the tiles; `val` repeats the run's last numbers, and `predict` shows what the run showed."""
    data = dataset(width=150, height=100)
    settings = {name: value for name, value in quick.items() if name != "imgsz"}
    model = Model(tiny_yaml)
    metrics = model.train(**settings, data=str(data.yaml), tile=64, overlap=0.25)
    assert metrics is not None
    run = model.save_dir
    assert run is not None
    kept = yaml.safe_load((run / "args.yaml").read_text())
    assert [kept[name] for name in ("imgsz", "tile", "overlap", "tile_whole")] == [64, 64, 0.25, True]
    plan = (run / "args.yaml").read_text()
    assert "steps_per_epoch = 14" in plan  # 6 pictures of 6 tiles and a whole, 3 in a batch
    again = Model(run / "weights" / "best.pt")
    assert again.val(project=str(tmp_path / "val"), plots=False, verbose=False).to_dict() == metrics.to_dict()
    assert again.save_dir is not None
    assert (again.save_dir / "predictions.json").read_bytes() == (run / "predictions.json").read_bytes()
    picture = sorted((data.images / "val").iterdir())[0]
    as_trained = again.predict(str(picture), conf=0.001, verbose=False)[0].boxes.data
    given = again.predict(str(picture), conf=0.001, verbose=False, tile=64, overlap=0.25)[0].boxes.data
    without = again.predict(str(picture), conf=0.001, verbose=False, tile=None)[0].boxes.data
    assert as_trained.tolist() == given.tolist()
    assert as_trained.shape != without.shape or as_trained.tolist() != without.tolist()


@pytest.mark.long
def test_resuming_a_run_on_tiles(quick: dict[str, Any], tiny_yaml: Path, dataset: Callable[..., Any]) -> None:
    data = dataset(width=150, height=100, train=2, val=1)
    settings = {name: value for name, value in quick.items() if name not in ("imgsz", "epochs")}
    whole = Model(tiny_yaml)
    whole.train(**settings, data=str(data.yaml), tile=64, epochs=2)
    part = Model(tiny_yaml)
    part.train(**settings, data=str(data.yaml), tile=64, epochs=1)
    assert whole.save_dir is not None
    assert part.save_dir is not None
    more = Model(tiny_yaml)
    more.train(resume=str(part.save_dir), epochs=2, verbose=False)
    assert more.save_dir is not None
    kept = checkpoints.load(more.save_dir / "weights" / "last.pt").settings
    assert [kept[name] for name in ("tile", "imgsz")] == [64, 64]


@pytest.mark.parametrize(
    "options",
    [
        {"dynamic": "all"},
        pytest.param({}, marks=pytest.mark.long),
        pytest.param({"dynamic": "batch", "decode": False}, marks=pytest.mark.long),
    ],
)
def test_an_exported_file_finds_the_same(
    checkpoint: Write, scan: np.ndarray, tmp_path: Path, options: dict[str, Any]
) -> None:
    pytest.importorskip("onnxruntime")
    model = Model(checkpoint())
    file = model.export(**options, verbose=False, device="cpu", threads=1)
    settings: dict[str, Any] = {
        "tile": 64,
        "overlap": 0.3,
        "conf": 0.3,
        "max_det": 1000,
        "verbose": False,
        "threads": 1,
    }
    ours, theirs = (one.predict(scan, **settings)[0].boxes.data for one in (model, Model(file)))
    assert len(ours) > 20
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 0.05


@pytest.mark.long
def test_an_exported_file_knows_the_tiles_of_its_training(checkpoint: Write, scan: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    path = checkpoint()
    kept = checkpoints.load(path)
    kept.settings.update({"tile": 64, "overlap": 0.3, "tile_whole": False})
    checkpoints.save(path, kept)
    model = Model(path)
    file = Model(model.export(dynamic="all", verbose=False, device="cpu"))
    ours, theirs = (one.predict(scan, conf=0.3, verbose=False)[0].boxes.data for one in (model, file))
    plain = file.predict(scan, conf=0.3, verbose=False, tile=None)[0].boxes.data
    assert len(ours) == len(theirs) != len(plain)


def test_a_picture_that_no_tile_cuts_passes_as_ever(checkpoint: Write, scan: np.ndarray) -> None:
    model = Model(checkpoint())
    plain = model.predict(scan, conf=0.3, verbose=False, threads=1)[0].boxes.data
    tiled = model.predict(scan, conf=0.3, verbose=False, threads=1, tile=224, imgsz=64)[0].boxes.data
    assert plain.tolist() == tiled.tolist()


@pytest.mark.long
def test_from_the_command_line(
    checkpoint: Write,
    dataset: Callable[..., Any],
    scan: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    cv2.imwrite("scans/large.png", scan)
    cv2.imwrite("scans/small.png", scan[:40, :50])
    model = checkpoint()
    predict = ["predict", f"model={model}", "source=scans", "tile=64", "overlap=0.2", "save_json=true", "max_det=30"]
    assert cli.main([*predict, "conf=0.2"]) == 0
    told = capsys.readouterr()
    assert told.err.count("30 detections, as many as max_det allows") == 1
    assert {path.name for path in Path("runs/predict").iterdir()} == {"large.jpg", "small.jpg", "predictions.json"}
    rows = json.loads(Path("runs/predict/predictions.json").read_text())
    assert sum(row["image_id"] == "large" for row in rows) == 30
    right = max(row["bbox"][0] + row["bbox"][2] for row in rows if row["image_id"] == "large")
    assert 150 < right <= 200
    data = dataset(width=150, height=100, val=2)
    assert cli.main(["val", f"model={model}", f"data={data.yaml}", "tile=50", "plots=true", "threads=1"]) == 0
    assert "tile=50 is not a multiple of 32: 64 is used" in capsys.readouterr().err
    assert Path("runs/val/val_truth_and_detections.jpg").is_file()


def test_a_tile_smaller_than_the_stride(checkpoint: Write, scan: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from gfldet.detect.torch_detector import TorchDetector

    model = Model(checkpoint())
    monkeypatch.setattr(TorchDetector, "multiple", 128)
    with pytest.raises(ConfigError, match="tile=64: smaller than the coarsest stride of this model, 128 px"):
        model.predict(scan, tile=64)
