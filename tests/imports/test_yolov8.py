"""Whole YOLOv8 checkpoints: what is taken over computes the same, and works as any checkpoint of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfldet.config.assets import resolve_model_yaml
from gfldet.errors import OutputError
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import read_foreign
from gfldet.imports.save import save_imported
from gfldet.model import Model
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import checkpoint as checkpoints
from gfldet.store import transfer

NAMES = ("red", "blue", "green hat")
Decoded = Callable[[DetectionModel], Tensor]
Outputs = Callable[[ForeignModel], Tensor]
Shaken = Callable[[DetectionModel], DetectionModel]
TreeOf = Callable[[DetectionModel], Any]


def test_a_checkpoint_computes_the_same(file: Path, ours: DetectionModel, outputs: Outputs, decoded: Decoded) -> None:
    foreign = read_foreign(file)
    assert torch.allclose(outputs(foreign), decoded(ours), rtol=1e-6, atol=1e-5)
    assert foreign.names == NAMES
    assert (foreign.description.name, foreign.description.nc, foreign.description.reg_max) == ("yolov8t", 3, 16)
    assert (foreign.imgsz, foreign.strides) == ((96, 96), ours.strides)
    assert foreign.licence == "AGPL-3.0 (https://example.org)"


def test_its_average_comes_first(
    tmp_path: Path,
    ours: DetectionModel,
    tree: Any,
    outputs: Outputs,
    decoded: Decoded,
    shaken: Shaken,
    tree_of: TreeOf,
) -> None:
    wanted = decoded(ours)
    shaken(ours)
    torch.save({"model": tree_of(ours), "ema": tree}, tmp_path / "both.pt")
    assert torch.allclose(outputs(read_foreign(tmp_path / "both.pt")), wanted, rtol=1e-6, atol=1e-5)


def test_half_precision(tmp_path: Path, ours: DetectionModel, tree: Any, outputs: Outputs, decoded: Decoded) -> None:
    torch.save({"model": tree.half()}, tmp_path / "half.pt")
    foreign = read_foreign(tmp_path / "half.pt")
    assert {value.dtype for value in foreign.weights.values()} == {torch.float32, torch.int64}
    assert torch.allclose(outputs(foreign), decoded(ours.half()), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("scale", ["n", *(pytest.param(scale, marks=pytest.mark.long) for scale in "mx")])
def test_every_scale_and_number_of_classes(tmp_path: Path, scale: str, tree_of: TreeOf) -> None:
    """The published graph at its true depth, made thin."""
    path, letter = resolve_model_yaml(f"gfldet-{scale}")
    model = DetectionModel(replace(read_description(path, letter, 7), width=0.05))
    torch.save({"model": tree_of(model)}, tmp_path / "thin.pt")
    foreign = read_foreign(tmp_path / "thin.pt")
    assert foreign.description.nc == 7
    own = model.state_dict()
    assert list(foreign.weights) == list(own)
    assert all(torch.equal(value, own[name]) for name, value in foreign.weights.items())


@pytest.mark.long
def test_what_is_written_works_as_any_checkpoint(
    tmp_path: Path, file: Path, ours: DetectionModel, dataset: Callable[..., Any], outputs: Outputs, decoded: Decoded
) -> None:
    out = save_imported(read_foreign(file), tmp_path / "imported.pt")
    model = Model(out)
    assert model.names == dict(enumerate(NAMES))
    assert torch.equal(decoded(model.model), outputs(read_foreign(file)))
    drawn = dataset()
    found = model.predict(source=str(drawn.images / "val"), conf=0.0, max_det=5, verbose=False, device="cpu")
    assert len(found) == 4
    assert len(found[0].boxes) == 5
    drawn.yaml.write_text(drawn.yaml.read_text("utf-8").replace("blue", "blue, green hat"), encoding="utf-8")
    metrics = model.val(data=str(drawn.yaml), verbose=False, plots=False, device="cpu", project=str(tmp_path / "runs"))
    assert 0 <= metrics.map <= 1
    fresh = DetectionModel(ours.description, NAMES)
    assert transfer.transfer(fresh, checkpoints.load(out)).left == ()
    saved = checkpoints.load(out)
    assert saved.category_ids == (0, 1, 2)
    assert saved.settings == {"imgsz": [96, 96]}
    assert "AGPL-3.0 (https://example.org)" in saved.licence


def test_nothing_is_overwritten_and_nothing_is_left_half(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = read_foreign(file)
    (tmp_path / "there.pt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"there\.pt: exists; choose another out=, or exist_ok=true"):
        save_imported(foreign, tmp_path / "there.pt")
    assert (tmp_path / "there.pt").read_text("utf-8") == "mine"
    with pytest.raises(OutputError, match=r"name ends with \.pt"):
        save_imported(foreign, tmp_path / "there.onnx")
    with pytest.raises(OutputError, match="no folder that can be written to"):
        save_imported(foreign, tmp_path / "none" / "there.pt")
    before = sorted(tmp_path.iterdir())

    def full(payload: Any, into: Any) -> None:
        into.write(b"a few bytes")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_imported(foreign, tmp_path / "new.pt")
    assert sorted(tmp_path.iterdir()) == before
