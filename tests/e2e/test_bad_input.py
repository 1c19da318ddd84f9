"""Bad input on the command line: exit code 2, one message that names file and line, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gfldet import Model, cli

Gfldet = Callable[..., str]


@pytest.fixture
def refused(
    quick: dict[str, Any],
    tiny_yaml: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Gfldet:
    """command, settings -> what the one message says; checks that it is one, and that nothing was written."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, **settings: Any) -> str:
        names = ("imgsz", "threads", "workers", "project", *(("epochs", "batch") if command == "train" else ()))
        common = {"model": tiny_yaml if command == "train" else trained, **{name: quick[name] for name in names}}
        before = sorted(tmp_path.rglob("*"))
        assert cli.main([command, *(f"{name}={value}" for name, value in {**common, **settings}.items())]) == 2
        got = capsys.readouterr()
        assert sorted(tmp_path.rglob("*")) == before
        assert got.err.startswith("gfldet: ")
        assert got.err.count("gfldet: ") == 1
        assert "Traceback" not in got.err
        assert "Results are in" not in got.out
        return got.err

    return run


# ------------------------------------------------------------------------------------------------------ data sets


def change(yaml: Path, old: str, new: str) -> None:
    text = yaml.read_text()
    assert old in text
    yaml.write_text(text.replace(old, new))


@pytest.mark.parametrize("command", ["train", "val"])
def test_data_yaml_that_is_not_there(refused: Gfldet, command: str) -> None:
    told = refused(command, data="gone.yaml")
    sets = "shapes, shapes-small, shapes-dense, shapes-thin, shapes-huge"
    assert told == f"gfldet: gone.yaml: no such data YAML; expected a file, a folder, or a built-in set: {sets}\n"


@pytest.mark.parametrize("command", ["train", "val"])
def test_data_yaml_that_does_not_parse(refused: Gfldet, dataset: Callable[..., Any], command: str) -> None:
    yaml = dataset().yaml
    change(yaml, "blue]", "blue")
    told = refused(command, data=yaml)
    assert told.startswith(f"gfldet: {yaml}:")
    assert "is not valid YAML" in told


def test_data_yaml_with_mistakes(refused: Gfldet, dataset: Callable[..., Any]) -> None:
    yaml = dataset().yaml
    change(yaml, "train: images/train", "trian: images/train\nnc: 5")
    told = refused("train", data=yaml)
    assert "trian: unknown key" in told
    assert "nc: 5 does not match the 2 names" in told


@pytest.mark.parametrize("command", ["train", "val"])
def test_image_folder_that_is_not_there(refused: Gfldet, dataset: Callable[..., Any], command: str) -> None:
    data = dataset()
    change(data.yaml, "images/val", "images/gone")
    told = refused(command, data=data.yaml)
    assert str(data.yaml) in told
    assert str(data.images / "gone") in told


@pytest.mark.parametrize("command", ["train", "val"])
def test_image_folder_that_is_empty(refused: Gfldet, dataset: Callable[..., Any], command: str) -> None:
    data = dataset(val=0)
    assert str(data.images / "val") in refused(command, data=data.yaml)


def spoil_labels(data: Any, split: str) -> list[str]:
    """Five bad rows in three files; what has to be told of each."""
    folder = data.yaml.parent / "labels" / split
    first, second, third = sorted(folder.iterdir())[:3]
    lines = len(first.read_text().splitlines())
    first.write_text(first.read_text() + "7 .5 .5 .2 .2\n\n-1 .5 .5 .2 .2\n")
    second.write_text("0 .5 .5 .2\n0 .5 .5 wide .2\n")
    third.write_text("1.5 .5 .5 .2 .2\n")
    return [f"{first}:{lines + 1}:", f"{first}:{lines + 3}:", f"{second}:1:", f"{second}:2:", f"{third}:1:"]


@pytest.mark.parametrize(("command", "split"), [("train", "train"), ("train", "val"), ("val", "val")])
def test_labels_that_are_none(refused: Gfldet, dataset: Callable[..., Any], command: str, split: str) -> None:
    data = dataset()
    places = spoil_labels(data, split)
    told = refused(command, data=data.yaml)
    assert [place for place in places if place not in told] == []
    assert told.splitlines()[0] == f"gfldet: {data.yaml}: {split}: 5 problems:"
    assert told.splitlines()[-1] == "Correct or remove them, or set on_bad=skip to go on without these images."


def spoil_images(data: Any, split: str) -> list[Path]:
    """An empty image, one of noise, and one cut in the middle of its header."""
    empty, noise, cut = sorted((data.images / split).iterdir())[:3]
    empty.write_bytes(b"")
    noise.write_bytes(np.random.default_rng(0).bytes(500))
    cut.write_bytes(cut.read_bytes()[:20])
    return [empty, noise, cut]


@pytest.mark.parametrize(("command", "split"), [("train", "train"), ("train", "val"), ("val", "val")])
def test_images_that_are_none_are_all_listed(
    refused: Gfldet, dataset: Callable[..., Any], command: str, split: str
) -> None:
    data = dataset()
    bad = spoil_images(data, split)
    told = refused(command, data=data.yaml)
    assert [path for path in bad if str(path) not in told] == []
    assert len(told.splitlines()) == 5


def test_skipping_trains_on_the_rest_and_names_what_is_left_out(
    dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = dataset(train=8)
    bad = [*spoil_images(data, "train"), *spoil_images(data, "val")]
    left = sorted((data.images / "train").iterdir())[3]
    label = data.yaml.parent / "labels" / "train" / f"{left.stem}.txt"
    label.write_text("9 .5 .5 .2 .2\n")
    metrics = Model(tiny_yaml).train(**{**quick, "verbose": True}, data=data.yaml, on_bad="skip")
    assert metrics is not None
    assert metrics.images == 1
    out, told = capsys.readouterr()
    assert "train: 4 images, " in out
    assert [path for path in bad if str(path) not in told] == []
    assert f"{label}:1:" in told
    assert all(line.startswith("warning: ") for line in told.splitlines())


def test_skipping_everything_is_an_error(refused: Gfldet, dataset: Callable[..., Any]) -> None:
    data = dataset(train=3)
    bad = spoil_images(data, "train")
    told = refused("train", data=data.yaml, on_bad="skip")
    assert "no image is left to use" in told
    assert [path for path in bad if str(path) not in told] == []


def test_a_jpeg_without_its_end_is_used_with_a_warning(
    dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = dataset()
    whole = data.images / "train" / "000.png"
    image = cv2.imread(str(whole))
    whole.unlink()
    cut = whole.with_suffix(".jpg")
    cv2.imwrite(str(cut), image)
    cut.write_bytes(cut.read_bytes()[:-40])
    Model(tiny_yaml).train(**{**quick, "data": data.yaml, "epochs": 1, "verbose": True})
    got = capfd.readouterr()
    assert "train: 6 images" in got.out
    (told,) = got.err.splitlines()  # and nothing of libjpeg's own
    assert told.startswith("warning: train: ")
    assert str(cut) in told


# ---------------------------------------------------------------------------------------------- models and sources


def test_models_that_are_none(refused: Gfldet, tmp_path: Path) -> None:
    assert "gone.yaml" in refused("train", model="gone.yaml")
    Path("net.yaml").write_text("backbone: [")
    assert refused("train", model="net.yaml").startswith("gfldet: net.yaml:1: is not valid YAML")
    Path("net.yaml").write_text("nc: 2\nbackbone:\n  - [-1, 1, Cnov, [8]]\nhead:\n  - [[0], 1, GFLHead, [nc]]\n")
    told = refused("train", model="net.yaml")
    assert "did you mean 'Conv'?" in told
    Path("net.yaml").write_text(
        "nc: 2\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2, 0, 7]]\nhead:\n  - [[0], 1, GFLHead, [nc]]\n"
    )
    assert "row 0" in refused("train", model="net.yaml")


@pytest.mark.parametrize("source", ["gone.jpg", "gone/*.jpg", "empty", "zero.jpg", "noise.png", "list.txt"])
def test_sources_that_are_none(refused: Gfldet, source: str) -> None:
    Path("empty").mkdir()
    Path("zero.jpg").write_bytes(b"")
    Path("noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + np.random.default_rng(0).bytes(300))
    Path("list.txt").write_text("one.jpg\ntwo.jpg\n")
    told = refused("predict", source=source)
    assert source.removesuffix("list.txt") in told


def test_all_bad_files_of_a_source_are_listed(refused: Gfldet, dataset: Callable[..., Any]) -> None:
    data = dataset(train=3)
    bad = spoil_images(data, "train")
    told = refused("predict", source=data.images / "train")
    assert [path for path in bad if str(path) not in told] == []


# --------------------------------------------------------------------------------------------------- run folders


@pytest.mark.parametrize("command", ["train", "val", "predict"])
def test_folders_that_cannot_be_written(
    refused: Gfldet, dataset: Callable[..., Any], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset()
    what: dict[str, Any] = {"source": data.images / "val"} if command == "predict" else {"data": data.yaml}
    Path("file").write_text("")
    told = refused(command, **what, project="file")
    assert told == f"gfldet: file/{command}: file is a file, not a folder; choose another project= or name=\n"
    Path("mine").mkdir()
    told = refused(command, **what, project=".", name="mine")
    assert told == "gfldet: mine exists; choose another name=, or exist_ok=true to write into it\n"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "mine" and access(path, mode))
    told = refused(command, **what, project="mine")
    assert told == f"gfldet: mine/{command}: no permission to write in mine; choose another project= or name=\n"


def test_devices_that_are_not_there(refused: Gfldet, dataset: Callable[..., Any]) -> None:
    told = refused("train", data=dataset().yaml, device="cuda:63")
    assert "device=cuda:63: torch sees" in told


# ------------------------------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("command", ["train", "val", "predict"])
@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("tile", "31", "a whole number from 32 to 16384, or none"),
        ("tile", "0", "a whole number from 32 to 16384, or none"),
        ("tile", "-640", "a whole number from 32 to 16384, or none"),
        ("tile", "640.5", "a whole number from 32 to 16384, or none"),
        ("tile", "nan", "a whole number from 32 to 16384, or none"),
        ("tile", "640,480", "a whole number from 32 to 16384, or none"),
        ("overlap", "1", "a number from 0 to 0.9"),
        ("overlap", "-0.1", "a number from 0 to 0.9"),
        ("overlap", "nan", "a number from 0 to 0.9"),
        ("overlap", "20%", "a number from 0 to 0.9"),
        ("tile_whole", "maybe", "true or false"),
    ],
)
def test_tiles_that_are_none(
    refused: Gfldet, dataset: Callable[..., Any], command: str, setting: str, value: str, expected: str
) -> None:
    data = dataset(train=1, val=1)
    given = {"source": data.images / "val"} if command == "predict" else {"data": data.yaml}
    told = refused(command, **given, **{"tile": 64, setting: value})
    assert f"{setting}={value}: expected {expected}" in told
