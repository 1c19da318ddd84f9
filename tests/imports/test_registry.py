"""Families of foreign files: the next one is a `read` and one entry, with an allow-list of its own."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet.errors import CheckpointError
from gfldet.imports import registry, unpickle
from gfldet.imports.foreign import ForeignModel, Refusal
from gfldet.imports.registry import Family, read_foreign
from gfldet.imports.unpickle import Allowed
from gfldet.model import Model, import_weights
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel

NAMES = ("red", "blue", "green hat")


class Net:
    """What files of the made-up family hold: an object of the program's own, whose class is not here to read them."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.weights = weights


@pytest.fixture
def dots_file(tmp_path: Path, tiny: Description, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = types.ModuleType("dots.net")
    monkeypatch.setitem(sys.modules, "dots", types.ModuleType("dots"))
    monkeypatch.setitem(sys.modules, "dots.net", module)
    made: Any = type("Net", (Net,), {"__module__": "dots.net"})
    setattr(module, "Net", made)  # noqa: B010
    path = tmp_path / "dots.pt"
    torch.save({"dots": made(dict(DetectionModel(tiny, NAMES[:2]).state_dict()))}, path)
    monkeypatch.delitem(sys.modules, "dots.net")
    return path


@pytest.fixture
def family(tiny: Description) -> Family:
    """All of a reader: a few lines."""

    def read(path: Path) -> ForeignModel:
        with unpickle.opened(path, Allowed("Dots", packages=("dots.",))) as archive:
            if "dots" not in archive.tree:
                raise Refusal("it has no dots")
            weights = archive.tree["dots"].state["weights"]
            return ForeignModel(tiny, NAMES[:2], {name: archive.tensor(value) for name, value in weights.items()})

    return Family("Dots", "a Dots model (.pt)", read)


@pytest.mark.parametrize("first", [False, True])
def test_a_new_family_is_one_entry(
    dots_file: Path, file: Path, family: Family, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is read by its own family, whatever their order."""
    with pytest.raises(CheckpointError, match=r"refused: it asks for dots\.net\.Net, which no YOLOv8 checkpoint needs"):
        read_foreign(dots_file)
    known = registry.FAMILIES
    monkeypatch.setattr(registry, "FAMILIES", (family, *known) if first else (*known, family))
    assert read_foreign(dots_file).names == NAMES[:2]
    assert read_foreign(file).names == NAMES
    out = import_weights(dots_file, verbose=False)
    assert Model(out).names == {0: "red", 1: "blue"}


def test_a_file_of_no_family_is_told_by_each(
    tmp_path: Path, file: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> ForeignModel:
        raise ZeroDivisionError("oh")

    known = registry.FAMILIES
    monkeypatch.setattr(registry, "FAMILIES", (*known, family, Family("Broken", "a file", broken)))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError) as caught:
        read_foreign(tmp_path / "other.pt")
    graph = "(weights alone do not tell the graph)"
    reads = "a YOLOv8 detection checkpoint (.pt) or its ONNX export (.onnx), or a Dots model (.pt), or a file"
    assert str(caught.value) == (
        f"{tmp_path / 'other.pt'}: "
        f"as YOLOv8: refused: it has no entry 'ema' or 'model' with a whole model in it {graph}; "
        "as Dots: refused: it has no dots; as Broken: not readable (ZeroDivisionError: oh); "
        f"give {reads}"
    )
    monkeypatch.setattr(registry, "FAMILIES", (*known, family))
    (tmp_path / "cut.pt").write_bytes(file.read_bytes()[:-400])
    with pytest.raises(CheckpointError, match=r"cut\.pt: refused: no archive as torch\.save writes them"):  # said once
        read_foreign(tmp_path / "cut.pt")


def test_allow_lists_are_apart() -> None:
    for name in ("ultralytics.nn.tasks.DetectionModel", "torch.nn.modules.conv.Conv2d", "builtins.set"):
        module, _, attribute = name.rpartition(".")
        program = f"c{module}\n{attribute}\n.".encode()
        assert unpickle.unpickled(program, registry.yolov8.ALLOWED) == unpickle.Name(name)
        with pytest.raises(Refusal, match=f"asks for {name}, which no Dots checkpoint needs"):
            unpickle.unpickled(program, Allowed("Dots", packages=("dots.",)))
    assert unpickle.unpickled(b"ctorch\nSize\n.", Allowed("Dots")) == unpickle.Name("torch.Size")
