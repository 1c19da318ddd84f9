"""One way in: `pretrained=FILE` and `model=FILE` take checkpoints of ours and files of any family alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet import cli
from gfldet.errors import CheckpointError, ConfigError
from gfldet.imports import files, registry
from gfldet.imports.files import ForeignFile
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import Family, read_foreign
from gfldet.imports.start import read_start
from gfldet.model import Model, import_weights
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import checkpoint as checkpoints

SHORT = ["imgsz=64", "batch=2", "epochs=1", "device=cpu", "threads=1", "workers=0", "plots=false", "cache=none"]


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch, tiny: Description) -> None:
    """A family whose files hold a body alone, under the names of ours."""
    head = f"graph.layers.{len(tiny.rows) - 1}."

    def recognises(file: ForeignFile) -> bool:
        return file.state is not None and "graph.layers.0.conv.weight" in file.state.shapes

    def read(file: ForeignFile) -> ForeignModel:
        assert file.state is not None
        weights = {name: file.state.tensor(name) for name in file.state.shapes if not name.startswith(head)}
        names = tuple(f"class{i}" for i in range(tiny.nc))
        left = ("its head (3 tensors), which is none of ours",)
        return ForeignModel(tiny, names, weights, None, None, "MIT", "Bodies", body_only=True, left=left)

    family = Family("Bodies", "a body (.pt)", recognises, read)
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, family))


@pytest.fixture
def body_file(tmp_path: Path, tiny: Description, bodies: None) -> Path:
    model = DetectionModel(tiny)
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{n}": v for n, v in model.state_dict().items()}}, tmp_path / "b.pth"
    )
    return tmp_path / "b.pth"


def test_a_foreign_file_is_a_model(file: Path, dataset: Callable[..., Any], tmp_path: Path) -> None:
    """The same as by way of `import`."""
    source = str(dataset().images / "val")
    direct, imported = Model(file), Model(import_weights(file, tmp_path / "in.pt", verbose=False))
    assert direct.names == imported.names
    found = [m.predict(source, conf=0.0, max_det=5, verbose=False, device="cpu", threads=1) for m in (direct, imported)]
    for one, other in zip(*found, strict=True):
        assert (one.boxes.data == other.boxes.data).all()


def test_training_starts_from_a_foreign_file(
    file: Path, dataset: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a model the model is that of the weights; their licence travels with what is trained."""
    words = [f"data={dataset().yaml}", f"pretrained={file}", f"project={tmp_path / 'runs'}", "lr0=1e-9", *SHORT]
    assert cli.main(["train", *words]) == 0
    out = capsys.readouterr().out
    assert f"weights: {file}, weights of YOLOv8 for yolov8t" in out
    assert "\n  licence: These weights were brought in: their licence is AGPL-3.0" in out
    best = checkpoints.load(tmp_path / "runs" / "train" / "weights" / "best.pt")
    assert "AGPL-3.0" in best.licence
    theirs = read_foreign(file)
    assert best.description.rows == theirs.description.rows
    assert torch.allclose(best.weights["graph.layers.0.conv.weight"], theirs.weights["graph.layers.0.conv.weight"])


def test_weights_of_another_model(
    file: Path, dataset: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data={dataset().yaml}", f"pretrained={file}", "model=gfldet-n", f"project={tmp_path / 'runs'}", *SHORT]
    assert cli.main(["train", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{file}: these are weights for yolov8t, of which 0% fit gfldet-n; give them as model=" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_a_body_alone(
    body_file: Path, tiny: Description, dataset: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds nothing before it is trained, says so, and gives its layers to a training."""
    data = dataset()
    for command in ("predict", "val", "export"):
        words = {"predict": f"source={data.images / 'val'}", "val": f"data={data.yaml}", "export": "format=onnx"}
        assert cli.main([command, f"model={body_file}", words[command]]) == 2
        assert "these are the weights of a body alone; the head that finds is to be learnt first" in (
            capsys.readouterr().err
        )
    body = read_start(body_file).checkpoint
    for first in (body_file, import_weights(body_file, tmp_path / "in.pt", verbose=False)):
        capsys.readouterr()
        words = [f"data={data.yaml}", f"model={first}", f"project={tmp_path / 'runs'}", "lr0=1e-9", "optimizer=sgd"]
        assert cli.main(["train", *words, *SHORT]) == 0
        out = capsys.readouterr().out
        assert "for tiny, its body alone\n" in out
        assert ("  left out: its head (3 tensors), which is none of ours\n" in out) == (first == body_file)
        saved = checkpoints.load(Path(out.rstrip().rpartition("Results are in ")[2]) / "weights" / "last.pt")
        assert not saved.body_only
        name = "graph.layers.0.conv.weight"
        assert torch.allclose(saved.weights[name], body.weights[name], atol=1e-6)


def test_names_are_without_their_wrappers(tmp_path: Path) -> None:
    torch.save({"model": {"module.model.a.b": torch.ones(2), "module.model.c": torch.zeros(1)}}, tmp_path / "w.pt")
    with files.opened(tmp_path / "w.pt", registry.allowed()) as file:
        assert file.state is not None
        assert dict(file.state.shapes) == {"a.b": (2,), "c": (1,)}
        assert file.state.tensor("a.b").tolist() == [1, 1]


def test_tensors_that_are_no_numbers(tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "n.pt")
    with files.opened(tmp_path / "n.pt", registry.allowed()) as file:
        assert file.state is not None
        with pytest.raises(files.Refusal, match="its a has values that are no finite numbers"):
            file.state.tensor("a")


class Trap:
    def __reduce__(self) -> Any:
        return print, ("ran",)


def test_files_of_torch_before_its_archives(
    tmp_path: Path, bodies: None, tiny: Description, capsys: pytest.CaptureFixture[str]
) -> None:
    """They hold a pickle too; torch's reader of tensors and plain data runs nothing of it."""
    model = DetectionModel(tiny)
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    read = read_foreign(tmp_path / "old.pth")
    assert torch.equal(read.weights["graph.layers.0.conv.weight"], model.state_dict()["graph.layers.0.conv.weight"])
    torch.save({"a": torch.zeros(1), "b": Trap()}, tmp_path / "evil.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"evil\.pth: refused: .*it holds more than tensors"):
        read_foreign(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""


def test_an_onnx_file_of_nobody(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "some.onnx").write_bytes(onnx.ModelProto().SerializeToString())
    with pytest.raises((CheckpointError, ConfigError), match=r"some\.onnx: refused: it holds an ONNX graph of 0 nodes"):
        Model(tmp_path / "some.onnx")


@pytest.mark.long
def test_a_name_is_that_of_downloaded_weights(
    tmp_path: Path, file: Path, dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """`pretrained=v9-t` finds the file where `gfldet weights get` puts it; a file of the user's own goes first."""
    monkeypatch.setenv("GFLDET_HOME", str(tmp_path / "home"))
    data = dataset().yaml
    for words in (["predict", "model=v9-t", "source=x"], ["train", "pretrained=v9-t", f"data={data}"]):
        assert cli.main(words) == 2
        assert "`gfldet weights get v9-t` downloads them once\n" in capsys.readouterr().err
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "v9-t.pt").write_bytes(file.read_bytes())
    theirs = read_foreign(file)
    assert Model("v9-t").names == dict(enumerate(theirs.names))
    words = [f"data={data}", "pretrained=v9-t", f"project={tmp_path / 'runs'}", *SHORT]
    assert cli.main(["train", *words]) == 0
    assert "weights: v9-t, weights of YOLOv8 for " in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v9-t").write_text("no weights")
    with pytest.raises(CheckpointError, match="no archive"):
        read_start("v9-t")
