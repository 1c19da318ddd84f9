"""Whole runs: the same seed gives the same bits, an interruption changes nothing, and one AP is told everywhere."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gfldet import Model, cli
from gfldet.errors import ConfigError
from gfldet.store import checkpoint as checkpoints
from gfldet.train.observers import ResultsCsv

Run = Callable[..., Model]


@pytest.fixture
def run(dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path) -> Run:
    """settings -> a model after its training; the run folder is its `save_dir`."""
    drawn = dataset()

    def train(model: Model | None = None, **settings: Any) -> Model:
        model = model or Model(tiny_yaml)
        model.train(**{**quick, "data": str(drawn.yaml), **settings})
        return model

    return train


def weights(model: Model, name: str = "last.pt") -> dict[str, Any]:
    """Every tensor of a checkpoint, by its path in there, and every plain value but clock times."""
    assert model.save_dir is not None
    payload = torch.load(model.save_dir / "weights" / name, weights_only=True)
    flat: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{path}/{key}", inner)
        elif isinstance(value, (list, tuple)):
            for i, inner in enumerate(value):
                walk(f"{path}/{i}", inner)
        elif not path.endswith(("/seconds", "settings/name", "settings/project", "settings/workers")):
            flat[path] = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value)

    walk("", payload)
    return flat


def results(model: Model) -> list[dict[str, str]]:
    """results.csv without the time."""
    assert model.save_dir is not None
    with (model.save_dir / "results.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "time"} for row in csv.DictReader(file)]


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    assert a.keys() == b.keys()
    return [path for path in a if a[path] != b[path]]


# ------------------------------------------------------------------------------------------------------ to the bit


def test_the_same_seed_gives_the_same_bits(run: Run) -> None:
    first = run(seed=3, mixup=0.5, degrees=10)
    expected = weights(first)
    assert len(expected) > 300
    again = run(seed=3, mixup=0.5, degrees=10, workers=2)  # the first had none
    assert differing(expected, weights(again)) == []
    assert results(again) == results(first)
    other = run(seed=4, mixup=0.5, degrees=10)
    assert len(differing(expected, weights(other))) > 100


@pytest.mark.long
def test_images_read_anew_give_the_same_bits(run: Run) -> None:
    kept, read = run(cache="ram"), run(cache="none", workers=1)
    assert [p for p in differing(weights(kept), weights(read)) if p != "/settings/cache"] == []


# ---------------------------------------------------------------------------------------------------------- resume


class Killed(BaseException):
    """As a kill: nobody catches it."""


@pytest.fixture
def killed(run: Run, tiny_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Settings -> the folder of a run killed in its epoch 3: after a step, or when all but last.pt was written."""

    def kill_in(epoch: int) -> None:
        if epoch == 2:
            raise Killed

    def train(at: str, **settings: Any) -> Path:
        model, save = Model(tiny_yaml), checkpoints.save
        with monkeypatch.context() as patch:
            if at == "step":
                patch.setattr(ResultsCsv, "step", lambda self, report: kill_in(report.epoch))
            else:
                patch.setattr(
                    checkpoints, "save", lambda path, c: kill_in(c.epoch * (path.name == at)) or save(path, c)
                )
            with pytest.raises(Killed):
                run(model, **settings)
        assert model.save_dir is not None
        return model.save_dir

    return train


@pytest.mark.parametrize(
    ("at", "optimizer", "rows"), [("step", "sgd", 2), pytest.param("last.pt", "adamw", 3, marks=pytest.mark.long)]
)
def test_two_and_two_epochs_are_four(
    run: Run, killed: Callable[..., Path], at: str, optimizer: str, rows: int, tiny_yaml: Path
) -> None:
    settings = {"epochs": 4, "optimizer": optimizer, "lr0": 0.005, "close_mosaic": 1, "seed": 1, "workers": 2}
    whole = run(**settings, name="whole")
    folder = killed(at, **settings, name="halves")
    assert checkpoints.load(folder / "weights" / "last.pt").epoch == 1
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + rows
    halves = Model(tiny_yaml)
    halves.train(resume=folder)
    assert halves.save_dir == folder
    for name in ("last.pt", "best.pt"):
        assert differing(weights(whole, name), weights(halves, name)) == []
    assert results(halves) == results(whole)
    assert [row["epoch"] for row in results(halves)] == ["1", "2", "3", "4"]
    metrics = [json.loads((Path(str(m.save_dir)) / "metrics.json").read_text()) for m in (whole, halves)]
    assert metrics[0] == metrics[1]
    assert sorted(p.name for p in folder.rglob("*")) == sorted(p.name for p in Path(str(whole.save_dir)).rglob("*"))


@pytest.mark.long
def test_a_finished_run_is_extended_by_more_epochs(
    run: Run, quick: dict[str, Any], tiny_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(epochs=2, lr0=0.004)
    before = results(first)
    assert cli.main(["train", f"model={tiny_yaml}", "resume=true", f"project={quick['project']}"]) == 2
    last = first.save_dir / "weights" / "last.pt"  # type: ignore[operator]
    told = f"gfldet: resume: {last} has done its 2 epochs; give a larger epochs= to extend it\n"
    assert capsys.readouterr().err == told
    more = Model(tiny_yaml)
    more.train(resume=True, project=quick["project"], epochs=4)
    assert more.save_dir == first.save_dir
    rows = results(more)
    assert rows[:2] == before
    # The rule: from here on the rate is that of a run of 4 epochs, 2 steps each; flat to step 4, then a cosine.
    rates = [0.004 * (0.01 + 0.99 * (1 + math.cos(math.pi * (step - 4) / 3)) / 2) for step in (5, 7)]
    assert [float(row["lr"]) for row in rows[2:]] == pytest.approx(rates, rel=1e-6)
    saved = checkpoints.load(last)
    assert (saved.epoch, saved.settings["epochs"], saved.settings["resume"]) == (3, 4, False)
    with pytest.raises(ConfigError, match="has done its 4 epochs"):
        Model(last).train(resume=True)


# ------------------------------------------------------------------------------------------------------- one AP


def coco_ap(truths: dict[str, Any], predictions: list[dict[str, Any]]) -> float:
    """AP50-95 by pycocotools itself."""
    truth = COCO()
    truth.dataset = truths
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(predictions), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return float(judge.stats[0])


def as_coco(drawn: Any, folder: str, ids: tuple[int, ...] = (0, 1), first: int = 0) -> dict[str, Any]:
    """What was drawn in a split as COCO JSON, images numbered from `first`."""
    names = sorted(path.name for path in (drawn.images / folder).iterdir())
    annotations = [
        {
            "id": 0,
            "image_id": number,
            "category_id": ids[c],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for number, name in enumerate(names, first)
        for c, x1, y1, x2, y2 in drawn.truths[name]
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    images = [{"id": number, "file_name": name, "width": 64, "height": 64} for number, name in enumerate(names, first)]
    categories = [{"id": i, "name": f"class {i}"} for i in ids]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_one_ap_is_told_everywhere(
    dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = dataset(train=9, val=7)
    model = Model(tiny_yaml)
    learning = {"epochs": 9, "lr0": 0.01, "augment": "none", "batch": 4, "iou": 0.6}
    returned = model.train(**{**quick, **learning, "data": str(drawn.yaml)})
    folder = Path(str(model.save_dir))
    aps = [float(row["metrics/mAP50-95"]) for row in results(model)]
    best = checkpoints.load(folder / "weights" / "best.pt")
    assert best.epoch == int(np.argmax(aps))
    ap = best.metrics["map"]
    assert ap > 0.05  # it has learnt something to be measured
    assert aps[best.epoch] == pytest.approx(ap, rel=1e-5)  # as many digits as the table has
    assert returned is not None
    assert returned.map == ap
    assert json.loads((folder / "metrics.json").read_text())["map"] == ap

    answers = {}
    for evaluator in ("hotcoco", "pycocotools"):
        trained = Model(folder / "weights" / "best.pt")
        quiet = {"threads": 1, "plots": False, "project": quick["project"], "verbose": False}
        metrics = trained.val(evaluator=evaluator, **quiet)  # data, imgsz, iou and the like are those of the run
        rows = json.loads((Path(str(trained.save_dir)) / "predictions.json").read_text())
        assert rows == json.loads((folder / "predictions.json").read_text())
        assert coco_ap(as_coco(drawn, "val"), rows) == pytest.approx(metrics.map, abs=1e-9)
        answers[evaluator] = metrics.to_dict()
    assert answers["hotcoco"]["map"] == ap
    for key, value in answers["hotcoco"].items():
        if isinstance(value, float):
            assert answers["pycocotools"][key] == pytest.approx(value, abs=1e-9), key
    capsys.readouterr()


def test_coco_ids_survive(dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path, tmp_path: Path) -> None:
    drawn, ids = dataset(train=4, val=4), (0, 7, 91)
    for split, first in (("train", 500), ("val", 70)):
        truths = as_coco(drawn, split, ids, first)
        (tmp_path / f"{split}.json").write_text(json.dumps(truths))
    (tmp_path / "coco.yaml").write_text(
        "train: train.json\nval: val.json\nimages: {train: set/images/train, val: set/images/val}\n"
    )
    model = Model(tiny_yaml)
    everything = {**quick, "conf": 0.0}  # also what an untrained model would not say
    model.train(**{**everything, "data": str(tmp_path / "coco.yaml"), "epochs": 1})
    assert model.names == {0: "class 0", 1: "class 7", 2: "class 91"}
    folders = [model.save_dir]
    again = Model(Path(str(model.save_dir)) / "weights" / "best.pt")
    again.val(threads=1, verbose=False, project=quick["project"])
    folders.append(again.save_dir)
    for folder in folders:
        rows = json.loads((Path(str(folder)) / "predictions.json").read_text())
        assert {row["category_id"] for row in rows} == set(ids)
        assert {(row["image_id"], row["file_name"]) for row in rows} == {(70 + i, f"00{4 + i}.png") for i in range(4)}
    found = again.predict(
        drawn.images / "val", conf=0, save_json=True, threads=1, verbose=False, project=quick["project"]
    )
    rows = json.loads((Path(str(again.save_dir)) / "predictions.json").read_text())
    assert {row["category_id"] for row in rows} == set(ids)
    assert {row["image_id"] for row in rows} == {4, 5, 6, 7}  # the files' own numbers
    numbers = {float(c) for results in found for c in results.boxes.cls}
    assert numbers == {0, 1, 2}  # Results count classes as `names` does


# -------------------------------------------------------------------------------------------------- without validation


@pytest.mark.long
def test_without_validation(
    dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = dataset(val=0)
    drawn.yaml.write_text(drawn.yaml.read_text().replace("val: images/val\n", ""))
    settings = {**quick, "data": drawn.yaml, "model": tiny_yaml, "verbose": True, "plots": True}
    words = [f"{name}={value}" for name, value in settings.items()]
    assert cli.main(["train", *words, "val_share=0"]) == 2
    told = capsys.readouterr().err
    ways = "name one, set val_share, or set val=false to train without one"
    assert told == f"gfldet: {drawn.yaml}: no val split; {ways}\n"
    assert not Path(quick["project"]).exists()
    assert cli.main(["train", *words, "val=false"]) == 0
    out = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(out) if line.split()[:2] == ["epoch", "box"])
    assert out[head - 1].startswith("writing to ")
    assert [line.split()[4:7] for line in out[head + 1 : head + 3]] == [["-"] * 3] * 2
    assert out[-1] == f"Results are in {quick['project']}/train"
    folder = Path(quick["project"]) / "train"
    assert {path.name for path in folder.rglob("*.*")} >= {"args.yaml", "results.csv", "results.png", "best.pt"}
    assert not (folder / "metrics.json").exists()
    best, last = (checkpoints.load(folder / "weights" / name) for name in ("best.pt", "last.pt"))
    assert best.epoch == last.epoch == 1
    assert Model(folder / "weights" / "best.pt").train(**{**quick, "data": drawn.yaml, "val": False}) is None


# ------------------------------------------------------------------------------------------------- shapes of its own


def test_rectangular_training_and_custom_augmentation(run: Run) -> None:
    seen: list[tuple[int, ...]] = []

    def half(sample: Any, rng: np.random.Generator) -> Any:
        seen.append(sample.image.shape)
        boxes = sample.boxes * 0.5
        return type(sample)(cv2.resize(sample.image, None, fx=0.5, fy=0.5), boxes, sample.classes, sample.ignore)

    model = run(imgsz=(64, 96), augment=half, rect=False, epochs=1)
    assert len(seen) == 6
    saved = checkpoints.load(Path(str(model.save_dir)) / "weights" / "best.pt").settings
    assert saved["imgsz"] == [64, 96]


# ------------------------------------------------------------------------------------------------- train, and then


@pytest.mark.long
def test_a_second_training_continues_from_the_first(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = run(epochs=1)
    best = Path(str(model.save_dir)) / "weights" / "best.pt"
    assert model.source == str(best)
    capsys.readouterr()
    run(model, epochs=1, verbose=True, seed=5)
    out = capsys.readouterr().out
    assert f"weights: {best}, a checkpoint of gfldet" in out
    second = Path(str(model.save_dir))
    assert second != best.parent.parent
    saved = checkpoints.load(second / "weights" / "best.pt")
    assert saved.settings["model"] == str(best)
    assert yaml.safe_load((second / "args.yaml").read_text())["model"] == str(best)
    assert model.source == str(second / "weights" / "best.pt")
    same = run(Model(best), epochs=1, seed=5)  # what the settings tell is what was done
    assert all(torch.equal(value, saved.weights[name]) for name, value in same.model.state_dict().items())


@pytest.mark.long
def test_a_model_is_exported_beside_its_new_weights(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model = run(epochs=1)
    written = model.export(threads=1, verbose=False)
    assert written == Path(str(model.save_dir)) / "weights" / "best.onnx"
    assert written.is_file()
    assert list(Path().iterdir()) == []


@pytest.mark.long
def test_a_model_goes_on_with_its_own_run(run: Run) -> None:
    model = run(epochs=1)
    folder = model.save_dir
    model.train(resume=True, epochs=2)
    assert model.save_dir == folder
    assert [row["epoch"] for row in results(model)] == ["1", "2"]
