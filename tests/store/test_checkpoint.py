"""Checkpoints: whole or untouched on disk, and nothing that is not ours gets in, let alone runs."""

from __future__ import annotations

import os
import pickle
import resource
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet import cli
from gfldet.errors import CheckpointError, ConfigError, OutputError
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import checkpoint as checkpoints
from gfldet.store import transfer
from gfldet.store.checkpoint import TRAINING_PARTS, Checkpoint

NAMES = ("cat", "dog")


@pytest.fixture
def whole(tiny: Description) -> Checkpoint:
    model = DetectionModel(tiny, NAMES)
    return Checkpoint(
        description=model.description,
        names=NAMES,
        category_ids=(7, 91),
        weights=model.state_dict(),
        settings={"imgsz": [64, 96], "lr0": None, "data": "x.yaml"},
        epoch=3,
        metrics={"map": float("nan"), "map50": 0.5},
        training={**{part: {} for part in TRAINING_PARTS}, "updates": 1, "random": torch.tensor(3)},
    )


def test_there_and_back(tmp_path: Path, whole: Checkpoint) -> None:
    path = tmp_path / "a.pt"
    checkpoints.save(path, whole)
    model, back = checkpoints.load_model(path)
    assert back.description == whole.description
    assert (back.names, back.category_ids, back.epoch) == (NAMES, (7, 91), 3)
    assert back.settings == whole.settings
    assert back.training == whole.training
    assert model.names == {0: "cat", 1: "dog"}
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x)[0], whole.model().eval()(x)[0])
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------ a disk that is full


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, whole: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoints.save(path, whole)
    before = path.read_bytes()

    class Full:
        """Takes a few bytes and then no more, as a disk does."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> int:
            if self.file.tell() > 5000:
                raise OSError(28, "No space left on device")
            return int(self.file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    write_aside = checkpoints.write_aside
    monkeypatch.setattr(
        checkpoints, "write_aside", lambda path, write: write_aside(path, lambda file: write(Full(file)))
    )
    with pytest.raises(
        OutputError, match=r"last\.pt: cannot be written \(No space left on device\); free space or choose"
    ):
        checkpoints.save(path, replace(whole, epoch=4))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_may_not_become_so_large(tmp_path: Path, whole: Checkpoint) -> None:
    """As under `ulimit -f`: here the system itself refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OutputError, match=r"last\.pt: cannot be written \(File too large\); free space or choose"):
            checkpoints.save(tmp_path / "last.pt", whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_kill_before_the_renaming_leaves_the_old_file(
    tmp_path: Path, whole: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    checkpoints.save(path, whole)
    before, order = path.read_bytes(), []
    fsync, rename = os.fsync, os.replace

    def stopped(a: Any, b: Any) -> None:
        order.append("replace")
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", lambda number: (order.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(path, replace(whole, epoch=4))
    assert order == ["fsync", "replace"]  # on the disk before it takes the old one's place
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(os, "replace", rename)
    checkpoints.save(path, replace(whole, epoch=4))
    assert checkpoints.load(path).epoch == 4


# --------------------------------------------------------------------------------------- files that are none of ours


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, write: Callable[[Any, Path], Any]) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "ran"
    write({"format": "gfldet-checkpoint", "version": 1, "weights": Trap(mark)}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pt: (refused: it holds more|no checkpoint)"):
        checkpoints.load(path)
    assert not mark.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False) if zipfile.is_zipfile(path) else pickle.loads(  # noqa: S301
        path.read_bytes()
    )
    assert mark.exists()  # the trap would have worked


def _payload(whole: Checkpoint, tmp_path: Path) -> dict[str, Any]:
    checkpoints.save(tmp_path / "whole.pt", whole)
    payload: dict[str, Any] = torch.load(tmp_path / "whole.pt", weights_only=True)
    (tmp_path / "whole.pt").unlink()
    return payload


Change = Callable[[dict[str, Any]], Any]
BAD_PAYLOADS: dict[str, tuple[Change, str]] = {
    "list": (lambda p: [1, 2], "a torch file, but no gfldet checkpoint"),
    "tensor": (lambda p: torch.zeros(3), "a torch file, but no gfldet checkpoint"),
    "state_dict": (lambda p: p["weights"], "a torch file, but no gfldet checkpoint"),
    "version": (lambda p: {**p, "version": 99}, r"checkpoint version 99; this gfldet .* reads versions 1 to 2"),
    "no_version": (lambda p: {k: v for k, v in p.items() if k != "version"}, "checkpoint version None"),
    **{
        f"no_{part}": (
            lambda p, part=part: {k: v for k, v in p.items() if k != part},
            rf"parts of the checkpoint are missing \(KeyError\('{part}'\)\)",
        )
        for part in ("model", "names", "category_ids", "weights", "settings", "epoch", "metrics", "training")
    },
    "no_progress": (
        lambda p: {**p, "training": {k: v for k, v in p["training"].items() if k != "progress"}},
        r"parts of the checkpoint are missing \(KeyError\('progress'\)\)",
    ),
    "names": (lambda p: {**p, "names": 3}, r"a part of the checkpoint is damaged \(names 3; a list of text expected"),
    "model": (lambda p: {**p, "model": {"nc": 2}}, "parts of the checkpoint are missing"),
    "module": (
        lambda p: {**p, "model": {**p["model"], "rows": [[-1, 1, "Nothing", []]]}},
        r"the model it describes is none \(model tiny: row 0 \[-1, 1, 'Nothing', \[\]\]: unknown module",
    ),
    "weights": (lambda p: {**p, "weights": {}}, "the weights do not fit the model they name"),
    "shape": (
        lambda p: {**p, "weights": {**p["weights"], "graph.layers.0.conv.weight": torch.zeros(1)}},
        "the weights do not fit the model they name",
    ),
    "classes": (lambda p: {**p, "names": ["one"]}, "1 name and 2 category ids in it"),
}


@pytest.mark.parametrize("what", BAD_PAYLOADS)
def test_torch_files_that_are_no_checkpoint(tmp_path: Path, whole: Checkpoint, what: str) -> None:
    change, told = BAD_PAYLOADS[what]
    path = tmp_path / "odd.pt"
    torch.save(change(_payload(whole, tmp_path)), path)
    with pytest.raises(CheckpointError, match=rf"odd\.pt: {told}"):
        checkpoints.load_model(path)


def _random(path: Path, whole: Checkpoint) -> None:
    path.write_bytes(torch.randint(0, 256, (4000,), dtype=torch.uint8).numpy().tobytes())


def _cut(path: Path, whole: Checkpoint) -> None:
    checkpoints.save(path, whole)
    path.write_bytes(path.read_bytes()[:-300])


def _zip(path: Path, whole: Checkpoint) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("holiday.txt", "no tensors here")


def _damaged(path: Path, whole: Checkpoint) -> None:
    """A zip as torch makes it, whose pickle is noise."""
    checkpoints.save(path, whole)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, b"\x80\x02}q\x00garbage" if name.endswith("data.pkl") else data)


BAD_FILES: dict[str, tuple[Callable[[Path, Checkpoint], Any], str]] = {
    "random": (_random, "no checkpoint, or one that was cut short"),
    "empty": (lambda path, whole: path.write_bytes(b""), "no checkpoint, or one that was cut short"),
    "text": (lambda path, whole: path.write_text("hello"), "no checkpoint, or one that was cut short"),
    "cut": (_cut, "no checkpoint, or one that was cut short"),
    "zip": (_zip, "not a readable checkpoint"),
    "damaged": (_damaged, "(not a readable checkpoint|refused)"),
    "missing": (lambda path, whole: None, "no such file; give a .pt that gfldet wrote"),
    "folder": (lambda path, whole: path.mkdir(), "no such file"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_files_that_are_no_checkpoint(
    tmp_path: Path, whole: Checkpoint, what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, told = BAD_FILES[what]
    path = tmp_path / "bad.pt"
    write(path, whole)
    with pytest.raises(CheckpointError, match=rf"bad\.pt: {told}"):
        checkpoints.load(path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for words in (["val", f"model={path}"], ["predict", f"model={path}", "source=shapes"], ["train", f"model={path}"]):
        assert cli.main(words) == 2
        got = capsys.readouterr()
        assert got.out == ""
        assert got.err.startswith(f"gfldet: {path}: ")
        assert got.err.count("\n") == 1
        assert "gfldet wrote" in got.err
    assert sorted(tmp_path.iterdir()) == before


# ------------------------------------------------------------------------------------------------ taking weights over


def test_transfer_matches_classes_by_name(tiny: Description, whole: Checkpoint) -> None:
    for name, value in whole.weights.items():
        if value.is_floating_point() and "bins" not in name:
            torch.nn.init.normal_(value)
    model = DetectionModel(replace(tiny, nc=3), ("bird", "dog", "cat"))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    done = transfer.transfer(model, whole)
    now, old = model.state_dict(), whole.weights
    for level in range(2):
        for kind in ("weight", "bias"):
            name = f"graph.layers.4.cls.{level}.2.{kind}"
            assert torch.equal(now[name][1], old[name][1])  # dog
            assert torch.equal(now[name][2], old[name][0])  # cat
            assert torch.equal(now[name][0], fresh[name][0])  # bird is new
    assert torch.equal(now["graph.layers.2.conv.weight"], old["graph.layers.2.conv.weight"])
    assert (done.classes, done.new, done.left) == (("dog", "cat"), ("bird",), ())
    assert str(done) == (
        f"{len(done.loaded)} tensors taken over: all but class rows; classes by name: dog, cat; new classes: bird"
    )


def test_transfer_to_the_same_classes_takes_everything(tiny: Description, whole: Checkpoint) -> None:
    model = DetectionModel(tiny, NAMES)
    done = transfer.transfer(model, whole)
    assert (done.extent, done.left, done.classes, done.new) == ("everything", (), (), ())
    assert all(torch.equal(value, whole.weights[name]) for name, value in model.state_dict().items())


def test_transfer_keeps_other_classes_apart(tiny: Description, whole: Checkpoint) -> None:
    model = DetectionModel(tiny, ("car", "bus"))  # as many, but others
    name = "graph.layers.4.cls.0.2.weight"
    before = model.state_dict()[name].clone()
    done = transfer.transfer(model, whole)
    assert torch.equal(model.state_dict()[name], before)
    assert name in done.left
    assert str(done).endswith("; new classes: car, bus; 4 left at their start, as in layer 4 cls")


@pytest.mark.parametrize(
    ("without", "extent"),
    [
        (("graph.layers.4.cls",), "body and boxes"),
        (("graph.layers.4.box.1",), "body"),  # the boxes of one level are not the branch
        (("graph.layers.4",), "body"),
        (("graph.layers.4", "graph.layers.3"), "parts"),
    ],
)
def test_how_much_is_taken_over(
    tiny: Description, whole: Checkpoint, without: tuple[str, ...], extent: transfer.Extent
) -> None:
    weights = {name: value for name, value in whole.weights.items() if not name.startswith(without)}
    done = transfer.transfer(DetectionModel(tiny, NAMES), replace(whole, weights=weights))
    assert done.extent == extent
    assert f"{len(weights)} tensors taken over: {extent}; " in str(done)


def test_transfer_of_nothing_is_an_error(tiny: Description, whole: Checkpoint) -> None:
    with pytest.raises(
        CheckpointError, match=r"pretrained: these are weights for tiny, of which 0% fit tiny; give them as model="
    ):
        transfer.transfer(DetectionModel(tiny, NAMES), replace(whole, weights={"other": torch.zeros(1)}))


# ---------------------------------------------------------------------------------------------------- ResNets


def on_resnet(tiny: Description, *args: object) -> Description:
    return replace(tiny, name="net", rows=((-1, 1, "ResNetFPN", list(args)), (-1, 1, "SharedHead", [2])))


def test_the_file_in_torch_s_cache_and_never_one_from_the_network(
    tiny: Description, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DetectionModel(on_resnet(tiny, "resnet18", 64))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no resnet18-\*.pth in .*, and gfldet downloads nothing"):
        transfer.imagenet_file(model)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-0123.pth").touch()
    assert transfer.imagenet_file(model) == folder / "resnet18-0123.pth"
    with pytest.raises(
        ConfigError, match=r"pretrained=imagenet: .* models on a ResNet alone, .*, not tiny; give a file"
    ):
        transfer.imagenet_file(DetectionModel(tiny))


@pytest.mark.long
def test_resnets_of_another_depth_are_not_taken_in_part(tiny: Description) -> None:
    """The first blocks of a resnet34 have the names and shapes of a resnet18's."""
    deep, model = on_resnet(tiny, "resnet34", 64), DetectionModel(on_resnet(tiny, "resnet18", 64))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"^pretrained: these are weights of a resnet34; net is on a resnet18; give weights of a"
    ):
        transfer.transfer(model, Checkpoint(deep, NAMES, (0, 1), DetectionModel(deep).state_dict()))
    assert all(torch.equal(value, fresh[name]) for name, value in model.state_dict().items())


@pytest.mark.long
def test_a_resnet_alone_makes_a_model_with_a_fresh_pyramid_and_head(tiny: Description) -> None:
    description = on_resnet(tiny, "resnet18", 64)
    body = {n: v for n, v in DetectionModel(description).state_dict().items() if n.startswith("graph.layers.0.body.")}
    checkpoint = Checkpoint(description, NAMES, (0, 1), body)
    state = checkpoint.model().state_dict()
    assert checkpoint.body_only
    assert all(torch.equal(state[name], value) for name, value in body.items())
    del body["graph.layers.0.body.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"^checkpoint: the weights do not fit the model they name"):
        checkpoint.model()


def test_transfer_between_end_to_end_heads_goes_by_name(tiny: Description) -> None:
    both = replace(tiny, end2end=True)
    source, model = DetectionModel(both, ("red", "blue")), DetectionModel(both, ("blue", "green"))
    checkpoint = Checkpoint(both, ("red", "blue"), (0, 1), source.state_dict())
    told = transfer.transfer(model, checkpoint)
    assert told.classes == ("blue",)
    for name in model.head.class_rows():
        key = f"graph.layers.4.{name}"
        assert torch.equal(model.state_dict()[key][0], source.state_dict()[key][1])
