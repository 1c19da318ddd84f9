"""From defaults, files and overrides to settings: what wins, what is refused and in which words, what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gfldet.config.elsewhere import ANYWAY, ANYWAY_IN, INSTEAD, INSTEAD_IN, SAME
from gfldet.config.load import check, dump, resolve, run_yaml
from gfldet.config.schema import COMMANDS, TrainSettings, settings_of
from gfldet.config.show import default_yaml
from gfldet.errors import ConfigError


def problems_of(command: str, overrides: dict[str, Any]) -> list[str]:
    settings, problems = check(command, overrides)
    assert settings is None
    return problems


def test_defaults_alone() -> None:
    settings = resolve("train", {})
    assert settings == TrainSettings()
    assert (settings.model, settings.data, settings.epochs) == ("gfldet-n.yaml", "shapes", 100)
    assert settings.explicit == frozenset()
    assert settings.notices == ()


def test_overrides_from_text_and_from_python_are_the_same() -> None:
    text = resolve("train", {"epochs": "60", "lr0": "1e-3", "val": "False", "imgsz": "320,640", "freeze": "none"})
    python = resolve("train", {"epochs": 60, "lr0": 0.001, "val": False, "imgsz": (320, 640), "freeze": None})
    assert text == python
    assert text.val is False
    assert text.explicit == {"epochs", "lr0", "val", "imgsz", "freeze"}


def test_an_explicit_default_is_explicit() -> None:
    assert resolve("train", {"epochs": 100}).explicit == {"epochs"}


def test_every_mistake_at_once_each_with_what_is_right() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(
            "train",
            {"epoch": 3, "batch": 0, "lr0": "fast", "optimizer": "adam", "val": "Flase", "weights": "x.pt", "zzz": 1},
        )
    assert str(caught.value).splitlines() == [
        "These settings of train cannot be used:",
        "  epoch: no such setting; did you mean epochs?",
        "  batch=0: expected a whole number from 1 up, or auto",
        "  lr0=fast: expected a number above 0, up to 1, or none",
        "  optimizer=adam: expected muon, adamw or sgd; did you mean adamw?",
        "  val=Flase: expected true or false",
        "  weights: no such setting; did you mean model?",
        "  zzz: no such setting",
        "gfldet train --help lists them all.",
    ]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("batch_size", "batch"),
        ("img_size", "imgsz"),
        ("lr", "lr0"),
        ("close_mosiac", "close_mosaic"),
        ("Epochs", "epochs"),
    ],
)
def test_nearest_spelling(wrong: str, right: str) -> None:
    assert problems_of("train", {wrong: 1}) == [f"{wrong}: no such setting; did you mean {right}?"]


def test_a_setting_of_another_command_is_named_as_such() -> None:
    assert problems_of("val", {"epochs": 3, "save_txt": True}) == [
        "epochs: a setting of train and tune, not of val",
        "save_txt: a setting of predict, not of val",
    ]
    assert problems_of("predict", {"source": "x", "data": "y"}) == [
        "data: a setting of check, train, tune, val and export, not of predict"
    ]


@pytest.mark.parametrize(
    ("command", "name", "value", "told"),
    [
        ("train", "warmup_epochs", 3, "the warm-up is counted in optimiser steps; give warmup_steps"),
        ("train", "nbs", 64, "an optimiser step is taken every batch; give batch"),
        ("train", "save", False, "the weights are saved in any case; leave it out"),
        ("train", "cos_lr", False, "the rate ends in a cosine in any case; flat and lrf shape it"),
        ("predict", "save_crop", True, "call result.save_crop(folder)"),
        ("predict", "show", True, "call result.show(); save=true writes the pictures"),
        ("predict", "Half", True, "float16 is for exported files: gfldet export half=true"),
        ("val", "classes", 0, "metrics.json has each class by itself"),
        ("export", "opset", 13, "it is 17; leave it out"),
        ("export", "simplify", [True] * 10**5, "the graph is written as simple as it is; leave it out"),
    ],
)
def test_what_others_call_a_setting(command: str, name: str, value: Any, told: str) -> None:
    given = {name: value, **({"source": "x"} if command == "predict" else {})}
    assert problems_of(command, given) == [f"{name}: no such setting of {command}; {told}"]


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("predict", "half", False),
        ("predict", "Half", "False"),
        ("val", "half", "no"),
        ("train", "half", False),
        ("predict", "augment", False),
        ("predict", "show", 0),
        ("predict", "embed", None),
        ("predict", "stream", "true"),
        ("train", "single_cls", False),
        ("train", "perspective", 0.0),
        ("train", "fraction", "1.0"),
        ("train", "deterministic", True),
        ("train", "task", "detect"),
        ("train", "mode", "train"),
        ("train", "save", True),
        ("val", "classes", None),
        ("export", "opset", 17),
        ("export", "keras", False),
    ],
)
def test_what_others_call_a_setting_is_taken_where_it_asks_for_nothing_else(
    command: str, name: str, value: Any
) -> None:
    given = {name: value, **({"source": "x"} if command == "predict" else {})}
    settings = resolve(command, given)
    assert settings.notices == (f"{name}={value}: not needed; {command} does so in any case",)
    assert name not in settings.origins


def test_a_file_of_settings_of_others_is_taken_where_it_asks_for_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "args.yaml"
    file.write_text("task: detect\nepochs: 3\nsingle_cls: false\nnbs: 64\n", encoding="utf-8")
    assert problems_of("train", {"cfg": file}) == [
        f"{file}:4: nbs: no such setting of train; an optimiser step is taken every batch; give batch"
    ]
    file.write_text("task: detect\nepochs: 3\nsingle_cls: false\n", encoding="utf-8")
    assert resolve("train", {"cfg": file}).notices == (
        f"{file}:1: task=detect: not needed; train does so in any case",
        f"{file}:3: single_cls=False: not needed; train does so in any case",
    )


def test_the_names_of_others_are_none_of_ours() -> None:
    ours = {command: {s.name for s in settings_of(kind)} for command, kind in COMMANDS.items()}
    every = set().union(*ours.values())
    assert set(SAME.values()) <= every
    assert not INSTEAD.keys() & every
    assert not {name for command, name in INSTEAD_IN if name in ours[command]}
    assert {name for _, name in INSTEAD_IN} <= every
    assert not ANYWAY.keys() & every
    assert not {name for command, name in ANYWAY_IN if name in ours[command]}
    assert {*ANYWAY, *(name for _, name in ANYWAY_IN)} <= INSTEAD.keys() | every


def test_the_default_optimiser_of_others_is_ours() -> None:
    assert resolve("train", {"optimizer": "auto"}).optimizer == resolve("train", {"optimizer": "Muon"}).optimizer


def test_predict_needs_a_source() -> None:
    assert problems_of("predict", {})[0].startswith("source: missing; give an image, a folder")
    assert problems_of("predict", {"source": ""})[0].startswith("source=: expected an image")
    assert resolve("predict", {"source": "images/"}).source == "images/"


def test_long_values_are_cut_in_messages() -> None:
    (problem,) = problems_of("train", {"epochs": np.zeros(1000).tolist()})
    assert len(problem) < 120


def test_unknown_command() -> None:
    with pytest.raises(ConfigError, match="trian: no such command; did you mean train"):
        resolve("trian", {})


def test_image_size_is_rounded_up_and_told() -> None:
    settings = resolve("train", {"imgsz": "500"})
    assert settings.imgsz == 512
    assert settings.notices == ("imgsz=500 is not a multiple of 32: 512 is used",)
    assert resolve("train", {"imgsz": (321, 640)}).imgsz == (352, 640)
    assert resolve("train", {"imgsz": 640}).notices == ()


@pytest.mark.parametrize(
    ("command", "overrides", "notice"),
    [
        ("train", {"augment": "none", "mosaic": 0.5}, "mosaic: without effect unless augment=default"),
        ("train", {"augment": abs, "scale": 0.1, "shear": 2}, "scale, shear: without effect unless augment=default"),
        (
            "train",
            {"augment_at": "after"},
            "augment_at: without effect without an augmentation of your own, augment=FUNCTION from Python",
        ),
        ("train", {"val": False, "patience": 5}, "patience: without effect beside val=false"),
        ("predict", {"source": "x", "save_conf": True}, "save_conf: without effect unless save_txt=true"),
    ],
)
def test_values_without_effect_are_told(command: str, overrides: dict[str, Any], notice: str) -> None:
    assert resolve(command, overrides).notices == (notice,)


@pytest.mark.parametrize("place", ["before", "after"])
def test_strengths_bear_on_what_stands_beside_an_augmentation_of_ones_own(place: str) -> None:
    assert resolve("train", {"augment": abs, "augment_at": place, "scale": 0.1}).notices == ()


def test_files_lie_below_overrides(tmp_path: Path) -> None:
    file = tmp_path / "high.yaml"
    file.write_text("batch: 20\nseed: 30\nlr0: 1e-3\n")  # PyYAML reads 1e-3 as text
    low = {"epochs": 1, "batch": 2, "seed": 3}
    settings = resolve("train", {"seed": 300, "cfg": str(file)}, restored=low)
    assert (settings.epochs, settings.batch, settings.seed, settings.lr0) == (1, 20, 300, 0.001)
    assert settings.explicit == {"batch", "seed", "lr0"}


def test_the_strongest_source_wins_and_is_known() -> None:
    layers: dict[str, dict[str, Any]] = {
        "overrides": {"epochs": 1},
        "restored": {"epochs": 2, "box": 2},
        "preferred": {"epochs": 3, "box": 3, "dfl": 3},
    }
    settings = resolve("train", layers.pop("overrides"), **layers)
    assert (settings.epochs, settings.box, settings.dfl, settings.batch) == (1, 2, 3, 16)
    assert settings.origins == {"epochs": "user", "box": "restored", "dfl": "model"}
    assert settings.explicit == {"epochs"}


def test_every_source_is_checked_as_far_as_it_counts() -> None:
    assert check("train", {"epochs": 1}, restored={"epochs": 0}, preferred={"epochs": "many"})[1] == []
    assert check("train", {}, restored={"epochs": 0}, preferred={"box": -1, "zzz": 1})[1] == [
        "epochs=0: expected a whole number from 1 up",
        "box=-1: expected a number from 0 up",
        "zzz: no such setting",
    ]


def test_a_mistake_in_a_file_that_settings_are_restored_from_names_the_file() -> None:
    with pytest.raises(ConfigError, match=r"runs/best\.pt: imgsz=None: expected a side in pixels"):
        resolve("val", {}, restored={"imgsz": None}, file="runs/best.pt")
    _, problems = check("train", {"box": -1}, restored={"epochs": 0, "zzz": 1}, file="best.pt", preferred={"dfl": "x"})
    assert problems == [
        "box=-1: expected a number from 0 up",
        "best.pt: epochs=0: expected a whole number from 1 up",
        "best.pt: zzz: no such setting",
        "dfl=x: expected a number from 0 up",
    ]


def test_only_what_the_user_gives_now_is_told_to_be_without_effect(tmp_path: Path) -> None:
    run = {"augment": "none", "mosaic": 0.5, "val": False, "patience": 5, "assigner": "atss", "tal_topk": 3}
    assert len(resolve("train", run).notices) == 3
    assert resolve("train", {}, restored=run).notices == ()
    assert resolve("train", {}, preferred=run).notices == ()
    assert resolve("train", {"patience": 7}, restored=run).notices == ("patience: without effect beside val=false",)
    (tmp_path / "args.yaml").write_text(run_yaml(resolve("train", run)))
    assert resolve("train", {"cfg": tmp_path / "args.yaml"}).notices == ()


def test_a_file_that_a_run_wrote_restores_and_one_of_the_users_gives(tmp_path: Path) -> None:
    written, own = tmp_path / "args.yaml", tmp_path / "own.yaml"
    written.write_text(run_yaml(resolve("train", {"dfl": 1.25, "epochs": 7})))
    first, rest = written.read_text().split("\n", 1)
    assert first == "# gfldet: written by a run"
    settings = resolve("train", {"cfg": written, "epochs": 9})
    assert settings.explicit == {"epochs"}
    assert set(settings.origins) == set(dump(settings))
    assert (settings.dfl, settings.epochs) == (1.25, 9)
    own.write_text(rest)  # as the head of the file says
    assert resolve("train", {"cfg": own}).explicit == set(dump(settings))


def test_mistakes_in_a_file_have_their_line(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("epochs: 3\nepoch: 3\nbatch: none\nepochs: 4\ncfg: other.yaml\n")
    assert problems_of("train", {"cfg": file, "lr0": 2}) == [
        f"{file}:2: epoch: no such setting; did you mean epochs?",
        f"{file}:3: batch=none: expected a whole number from 1 up, or auto",
        f"{file}:4: epochs: given twice in this file",
        f"{file}:5: cfg: a file of settings cannot name another one",
        "lr0=2: expected a number above 0, up to 1, or none",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs: [3", "1: is not valid YAML: "),
        (b"- epochs\n", " expected settings, one `key: value` a line"),
        (b"just text\n", " expected settings, one `key: value` a line"),
        (b"epochs: \xff\xfe\n", " is not a UTF-8 text file (byte 8)"),
    ],
)
def test_a_file_that_holds_no_settings(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    (problem,) = problems_of("train", {"cfg": file})
    assert problem.startswith(f"cfg={file}:{message}")


def test_a_missing_file(tmp_path: Path) -> None:
    (problem,) = problems_of("train", {"cfg": tmp_path / "my.yaml"})
    assert "cannot be read (No such file or directory)" in problem


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_file_and_a_copy_of_the_defaults_change_nothing(tmp_path: Path, command: str) -> None:
    empty, defaults = tmp_path / "empty.yaml", tmp_path / "defaults.yaml"
    empty.write_text("# nothing\n")
    defaults.write_text(default_yaml())
    given = {"predict": {"source": "images"}, "import": {"weights": "yolov8n.pt"}}.get(command, {})
    want = dump(resolve(command, given))
    assert dump(resolve(command, {**given, "cfg": empty})) == want
    assert dump(resolve(command, {**given, "cfg": defaults})) == want


def test_saved_settings_repeat_the_run(tmp_path: Path) -> None:
    file = tmp_path / "args.yaml"
    overrides = {"name": "no", "lr0": 1e-5, "imgsz": (320, 640), "freeze": [0, 1], "data": "my data.yaml", "seed": 7}
    settings = resolve("train", overrides)
    file.write_text(run_yaml(settings), encoding="utf-8")
    assert yaml.safe_load(file.read_text()) == dump(settings)
    assert dump(resolve("train", {"cfg": file})) == dump(settings)


def test_dump_names_what_is_not_plain() -> None:
    def my_augmentation(sample: Any) -> Any:
        return sample

    values = dump(resolve("train", {"augment": my_augmentation}))
    assert values["augment"].endswith("my_augmentation>")
    assert dump(resolve("predict", {"source": [np.zeros((1, 1, 3)), "x"]}))["source"] == ["<ndarray>", "x"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epochs: 2001-99-99", ":1: is not valid YAML: '2001-99-99' cannot be read as timestamp"),
        ("epochs: " + "9" * 5000, ":1: is not valid YAML: a number of 5000 digits"),
        ("a: &a [*a]\nepochs: *a", ":1: an alias stands within what it names"),
        ("lr0: 2001-01-01", ":1: lr0=a date: expected a number"),
        ("device: [[1, 2], {a: b}]", ":1: device=[[1, 2], {'a': 'b'}]: expected auto"),
        ("\n".join(f"x{i}: 1" for i in range(1500)), ": expected settings"),
    ],
)
def test_values_that_are_no_settings_are_told_with_the_file(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    (problem,) = problems_of("train", {"cfg": tmp_path / "my.yaml"})
    assert f"{tmp_path / 'my.yaml'}{told}" in problem
    assert len(problem) < 400 + len(str(tmp_path))


def test_nested_values_from_python_are_told_with_a_bound() -> None:
    value: list = ["x"]
    for _ in range(40):
        value = [value, value, value]
    for name in ("epochs", "lr0", "device", "imgsz", "class_weights", "freeze", "optimizer", "data"):
        (problem,) = problems_of("train", {name: value})
        assert problem.startswith(f"{name}=[[[[...]")
        assert len(problem) < 300


# ------------------------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("command", ["train", "val", "predict"])
def test_images_have_the_size_of_tiles_unless_one_is_given(command: str) -> None:
    source = {"source": "a.jpg"} if command == "predict" else {}
    assert resolve(command, {**source, "tile": "512"}).imgsz == 512
    assert resolve(command, {**source, "tile": 512, "imgsz": 320}).imgsz == 320
    assert resolve(command, {**source, "tile": None}).imgsz == 640
    rounded = resolve(command, {**source, "tile": 500})
    assert (rounded.tile, rounded.imgsz) == (512, 512)
    assert rounded.notices == ("tile=500 is not a multiple of 32: 512 is used",)


def test_the_size_of_a_run_on_tiles_is_restored_with_them() -> None:
    trained = {"tile": 512, "imgsz": 1024}
    assert resolve("val", {}, restored=trained).imgsz == 1024
    assert resolve("val", {"tile": 256}, restored=trained).imgsz == 256
    assert resolve("val", {"tile": 256}, restored={"imgsz": 1024}).imgsz == 256
    assert resolve("val", {"tile": "none"}, restored=trained).imgsz == 1024
    assert resolve("val", {"tile": "none"}, restored=trained).tile is None
    assert resolve("val", {"tile": 256, "imgsz": 320}, restored=trained).imgsz == 320


def test_what_is_idle_without_tiles() -> None:
    told = resolve("val", {"overlap": 0.3, "tile_whole": False}).notices
    assert told == ("overlap, tile_whole: without effect unless tile is set",)
    assert resolve("val", {"overlap": 0.3, "tile": 640}).notices == ()
