"""Families of foreign files: the next one is a `read` and one entry, with an allow-list of its own."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet.errors import CheckpointError
from gfldet.imports import registry
from gfldet.imports.files import ForeignFile
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import Family, read_foreign
from gfldet.model import Model, import_weights
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import unpickle
from gfldet.store.archive import Refusal
from gfldet.store.unpickle import Allowed

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

    def recognises(file: ForeignFile) -> bool:
        return file.archive is not None and "dots" in file.archive.tree

    def read(file: ForeignFile) -> ForeignModel:
        assert file.archive is not None
        weights = file.archive.tree["dots"].state["weights"]
        if len(weights) == 1:
            raise Refusal("it has no dots")
        return ForeignModel(tiny, NAMES[:2], {name: file.archive.tensor(value) for name, value in weights.items()})

    return Family("Dots", "a Dots model (.pt)", recognises, read, Allowed(packages=("dots.",)))


@pytest.mark.parametrize("first", [False, True])
def test_a_new_family_is_one_entry(
    dots_file: Path, file: Path, family: Family, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is read by its own family, whatever their order."""
    with pytest.raises(
        CheckpointError, match=r"refused: it asks for dots\.net\.Net, which no detector's checkpoint needs"
    ):
        read_foreign(dots_file)
    known = registry.FAMILIES
    monkeypatch.setattr(registry, "FAMILIES", (family, *known) if first else (*known, family))
    assert read_foreign(dots_file).names == NAMES[:2]
    assert read_foreign(file).names == NAMES
    out = import_weights(dots_file, verbose=False)
    assert Model(out).names == Model(dots_file).names == {0: "red", 1: "blue"}


def test_what_is_wrong_is_told_once(
    tmp_path: Path, file: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, what it was recognised as, the reason, and all that can be read."""

    def broken(file: ForeignFile) -> ForeignModel:
        raise ZeroDivisionError("oh")

    reads = f"{'; give '}{', or '.join(f.reads for f in registry.FAMILIES)}, or a Dots model (.pt), or a file"
    breaks = Family("Broken", "a file", lambda file: file.state is not None and "a" in file.state.shapes, broken)
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, family, breaks))
    told = {
        "a": ({"a": torch.zeros(1)}, "not readable (ZeroDivisionError: oh)"),
        "b": (
            {"model.b": torch.zeros(1)},
            "refused: it holds 1 tensors, such as 'b', which no detector that can be read has",
        ),
    }
    for name, (saved, reason) in told.items():
        torch.save(saved, tmp_path / f"{name}.pt")
        with pytest.raises(CheckpointError) as caught:
            read_foreign(tmp_path / f"{name}.pt")
        assert str(caught.value) == f"{tmp_path / name}.pt: {reason}{reads}"
    (tmp_path / "cut.pt").write_bytes(file.read_bytes()[:-400])
    with pytest.raises(CheckpointError, match=r"cut\.pt: refused: no archive as torch\.save writes them"):
        read_foreign(tmp_path / "cut.pt")


def test_the_list_of_allowed_names_is_closed() -> None:
    for name in ("ultralytics.nn.tasks.DetectionModel", "torch.nn.modules.conv.Conv2d", "builtins.set"):
        module, _, attribute = name.rpartition(".")
        program = f"c{module}\n{attribute}\n.".encode()
        assert unpickle.unpickled(program, registry.allowed()) == unpickle.Name(name)
        with pytest.raises(Refusal, match=f"asks for {name}, which no detector's checkpoint needs"):
            unpickle.unpickled(program, Allowed(packages=("dots.",)))
    assert unpickle.unpickled(b"ctorch\nSize\n.", Allowed()) == unpickle.Name("torch.Size")
