"""Losses, assigners and heads chosen in a model YAML and by settings, in whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from gfldet import Model, cli
from gfldet.errors import ConfigError, Notice

_long = partial(pytest.param, marks=pytest.mark.long)


@pytest.fixture
def chosen(tiny_yaml: Path, tmp_path: Path) -> Callable[..., Path]:
    """keys -> the tiny model's YAML with these keys beside its layers"""

    def write(**keys: Any) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(tiny_yaml.read_text(encoding="utf-8") + yaml.safe_dump(keys), encoding="utf-8")
        return path

    return write


def args_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "args.yaml").read_text(encoding="utf-8"))
    return found


def test_a_model_yaml_chooses_and_the_user_wins(
    chosen: Callable[..., Path], dataset: Callable[..., Any], quick: dict[str, Any]
) -> None:
    path = chosen(cls_loss="bce", assigner="atss", box=2.0, dgqp=True)
    model = Model(path)
    model.train(**{**quick, "epochs": 1}, data=dataset().yaml, assigner="tal")
    assert model.save_dir is not None
    saved = args_of(model.save_dir)
    assert (saved["cls_loss"], saved["assigner"], saved["box"], saved["dgqp"]) == ("bce", "tal", 2.0, None)
    assert model.model.description.dgqp
    assert model.model.description.preferred == {"cls_loss": "bce", "assigner": "atss", "box": 2.0}


def test_a_file_of_settings_wins_over_the_model_yaml(
    chosen: Callable[..., Path], dataset: Callable[..., Any], quick: dict[str, Any], tmp_path: Path
) -> None:
    cfg = tmp_path / "cfg.yaml"
    cfg.write_text("cls_loss: vfl\n", encoding="utf-8")
    model = Model(chosen(cls_loss="bce"))
    model.train(**{**quick, "epochs": 1}, data=dataset().yaml, cfg=cfg)
    assert model.save_dir is not None
    assert args_of(model.save_dir)["cls_loss"] == "vfl"


def test_wrong_choices_in_a_model_yaml_are_told_with_the_file(chosen: Callable[..., Path]) -> None:
    path = chosen(cls_loss="qlf", assigner="hungarian", box=-1)
    with pytest.raises(ConfigError) as caught:
        Model(path)
    message = str(caught.value)
    assert message.startswith(f"model YAML {path}:")
    for part in ("cls_loss=qlf: expected qfl, vfl", "did you mean qfl?", "assigner=hungarian: expected", "box=-1"):
        assert part in message


@pytest.mark.long
def test_an_end_to_end_model_from_training_to_prediction(
    chosen: Callable[..., Path],
    dataset: Callable[..., Any],
    quick: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn, path = dataset(), chosen(end2end=True)
    words = [f"{name}={value}" for name, value in {**quick, "data": drawn.yaml, "model": path}.items()]
    assert cli.main(["train", *words]) == 0
    best = tmp_path / "runs" / "train" / "weights" / "best.pt"
    trained = json.loads((tmp_path / "runs" / "train" / "metrics.json").read_text(encoding="utf-8"))
    validated = ["val", f"model={best}", f"data={drawn.yaml}", f"project={tmp_path / 'runs'}", "plots=false"]
    assert cli.main(validated) == 0
    assert json.loads((tmp_path / "runs" / "val" / "metrics.json").read_text(encoding="utf-8")) == trained
    capsys.readouterr()
    model = Model(best)
    assert model.model.end2end
    (found,) = model.predict(drawn.images / "val" / "006.png", conf=0.0, max_det=7, verbose=False)
    assert len(found.boxes) == 7  # the best seven, however much they overlap
    assert (found.boxes.conf[:-1] >= found.boxes.conf[1:]).all()
    with pytest.warns(Notice, match="iou: without effect; this end-to-end model needs no NMS"):
        model.predict(drawn.images / "val" / "006.png", iou=0.5, verbose=False)


@pytest.mark.parametrize(
    "choice",
    [
        _long({"cls_loss": "vfl"}),
        _long({"cls_loss": "focal", "iou_loss": "giou"}),
        _long({"cls_loss": "ohem", "iou_loss": "diou"}),
        _long({"cls_loss": "bce", "cls_target": "iou", "iou_loss": "iou"}),
        {"assigner": "atss"},
        {"assigner": "fcos", "reg_max": 1},
        _long({"assigner": "tal-after-atss"}),
        {"dgqp": True, "reg_max": 4},
        {"end2end": True, "dgqp": True},
        _long({"dfl": 0.0}),
        _long({"optimizer": "adamw"}),
        _long({"class_weights": "auto", "repeat_share": 1.0}),
        _long({"class_weights": (1.0, 2.0)}),
    ],
    ids=str,
)
def test_every_choice_trains(
    choice: dict[str, Any], tiny_yaml: Path, dataset: Callable[..., Any], quick: dict[str, Any]
) -> None:
    metrics = Model(tiny_yaml).train(**{**quick, "epochs": 1}, data=dataset().yaml, **choice)
    assert metrics is not None
    assert 0 <= metrics.map <= 1
