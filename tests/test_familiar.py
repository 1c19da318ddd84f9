"""What a `Model` does besides the commands: device, size, weights in and out, callbacks, and what it lacks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gfldet import Model
from gfldet.errors import CheckpointError, ConfigError, OutputError
from gfldet.nn.summary import model_info
from gfldet.nn.tasks import DetectionModel
from gfldet.store import checkpoint as checkpoints

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
QUIET: dict[str, Any] = {"imgsz": 96, "threads": 1, "verbose": False, "conf": 0.01}


def same_weights(a: Model, b: Model) -> bool:
    return all(
        torch.equal(v, w) for v, w in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    )


def test_task_and_device(tiny_yaml: Path) -> None:
    model = Model(tiny_yaml, task="detect")
    assert model.task == "detect"
    assert model.device == torch.device("cpu")
    assert model.fuse() is model
    with pytest.raises(ConfigError, match="task=segment: gfldet does one task, detect; leave it out"):
        Model(tiny_yaml, task="segment")


def test_to(tiny_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = Model(tiny_yaml), []
    monkeypatch.setattr("gfldet.model.predict", lambda _, settings, __: (seen.append(settings.device) for _ in "1"))
    model.predict(IMAGE)
    assert model.to("cpu") is model.to(torch.device("cpu")) is model
    model.predict(IMAGE)
    model.predict(IMAGE, device="auto")
    assert seen == ["auto", "cpu", "auto"]
    with pytest.raises(ConfigError, match="device=cuda:99: torch sees"):
        model.to("cuda:99")
    with pytest.raises(ConfigError, match=r"to\('gpu'\): expected auto, cpu, mps, cuda"):
        model.to("gpu")


def test_info(tiny_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(tiny_yaml)
    model.model.train()
    layers, parameters, gradients, gflops = found = model.info(imgsz=64)
    assert found == model_info(model.model, 64)
    assert (parameters, layers) == (
        model.model.parameter_count(),
        sum(not [*m.children()] for m in model.model.modules()),
    )
    assert gradients == parameters - model.model.reg_max  # the fixed bin values
    assert gflops == pytest.approx(model.info(verbose=False).gflops / 100)
    assert model.model.training
    assert capsys.readouterr().out.count("parameters") == 1
    model.info(detailed=True)
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_the_published_size_of_the_graph() -> None:
    found = model_info(Model("gfldet-n").model)  # YOLOv8n: 3.2 million parameters and 8.7 GFLOPs at 640 px
    assert (found.parameters, found.gradients) == (3157200, 3157184)
    assert found.gflops == pytest.approx(8.743, abs=1e-3)


def test_save_and_load_again(
    tiny_yaml: Path, spread_model: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Model(tiny_yaml)
    model.model = spread_model
    model.save("new/mine.pt")
    again = Model("new/mine.pt")
    assert again.names == model.names
    assert same_weights(again, model)
    (one,), (two,) = (m.predict(IMAGE, **QUIET) for m in (model, again))
    assert len(one) > 0
    assert (one.boxes.data == two.boxes.data).all()
    with torch.no_grad():
        next(again.model.parameters()).add_(1)
    again.save()
    assert same_weights(Model("saved_model.pt"), again)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        model.save("file/mine.pt")


def test_what_a_checkpoint_says_of_itself_is_saved_again(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "data.yaml")
    Model(path).save(tmp_path / "copy.pt")
    one, two = checkpoints.load(path), checkpoints.load(tmp_path / "copy.pt")
    assert (one.category_ids, one.settings, one.names) == (two.category_ids, two.settings, two.names)
    assert one.category_ids == (7, 91)


def test_load_into_fresh_weights(
    tiny_yaml: Path, checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint()
    model = Model(tiny_yaml).load(path)
    assert model.names == {0: "red", 1: "blue"}
    assert same_weights(model, Model(path))
    assert "tensors taken over: everything" in capsys.readouterr().out
    (one,), (two,) = (m.predict(IMAGE, **QUIET) for m in (model, Model(path)))
    assert (one.boxes.data == two.boxes.data).all()
    with pytest.raises(CheckpointError, match="no such file"):
        model.load("gone.pt")


def test_load_into_a_model_with_classes_of_its_own(
    checkpoint: Callable[..., Path], spread_model: DetectionModel, tmp_path: Path
) -> None:
    other = copy.deepcopy(spread_model)
    other.names = {0: "blue", 1: "green"}
    with torch.no_grad():
        for value in other.parameters():
            value.add_(1)
    mine = Model(checkpoint())
    model = Model(checkpoint())
    model.model = other
    model.save(tmp_path / "other.pt")
    mine.load(tmp_path / "other.pt")
    assert mine.names == {0: "red", 1: "blue"}
    row = f"{mine.description.head_prefix}{mine.model.head.class_rows()[0]}"
    got, theirs, own = (m.model.state_dict()[row] for m in (mine, model, Model(checkpoint())))
    assert torch.equal(got[1], theirs[0])
    assert torch.equal(got[0], own[0])


@pytest.mark.long
def test_train_goes_by_what_was_loaded_and_calls_back(
    tiny_yaml: Path, checkpoint: Callable[..., Path], dataset: Callable[..., Any], quick: dict[str, Any]
) -> None:
    path, seen = checkpoint(), []
    model = Model(tiny_yaml).load(path)
    model.add_callback("on_fit_epoch_end", lambda run: seen.append((run.epoch, dict(run.metrics))))
    model.add_callback("on_train_end", lambda run: seen.append(run.best))
    metrics = model.train(data=dataset().yaml, **{**quick, "epochs": 1})
    assert metrics is not None
    assert model.save_dir is not None
    assert yaml.safe_load((model.save_dir / "args.yaml").read_text())["pretrained"] == str(path)
    assert seen == [(0, metrics.results_dict), model.save_dir / "weights" / "best.pt"]
    assert model.source == str(seen[1])
    assert model._pretrained == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("track", "Model has no 'track': take predict.source, track=True, stream=True"),
        ("ckpt_path", "Model has no 'ckpt_path': take .source"),
        ("parameters", "Model has no 'parameters': take .model.parameters, of the torch module"),
        ("predcit", "Model has no 'predcit'; did you mean 'predict'"),
        ("zzz", "Model has no 'zzz'; it has add_callback, "),
    ],
)
def test_what_it_lacks_names_the_nearest(tiny_yaml: Path, name: str, told: str) -> None:
    with pytest.raises(AttributeError, match=told):
        getattr(Model(tiny_yaml), name)


def test_an_exported_file(checkpoint: Callable[..., Path]) -> None:
    pytest.importorskip("onnxruntime")
    model = Model(Model(checkpoint()).export(verbose=False, threads=1))
    assert model.device == "cpu"
    assert model.to("cpu").fuse() is model
    for call in (model.info, model.save, lambda: model.load("a.pt"), lambda: model.add_callback("on_train_end", print)):
        with pytest.raises(ConfigError, match="an exported file predicts and validates, nothing else"):
            call()
    with pytest.raises(AttributeError, match="Model has no 'parameters'"):
        _ = model.parameters
