"""Files that nobody means to give, for every family: one line that says which file, what was recognised and what to do,
exit code 2, and never a traceback.

Each family has a file that it recognises by its names (MARKS) and that lacks everything else; what is done to it is the
same for all.  A family that is added has to be entered here.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfldet import cli
from gfldet.imports.registry import FAMILIES

MARKS: dict[str, tuple[str, ...]] = {  # family -> names of tensors by which it recognises a file
    "YOLOv8": (),  # by a class in the pickle: its file is the whole one of conftest
    "YOLOv9": ("22.heads.0.anchor_conv.0.conv.weight",),
    "YOLOX": ("backbone.C3_p4.conv1.conv.weight",),
    "NanoDet": ("backbone.stage2.0.branch2.0.weight", "head.gfl_cls.0.weight"),
    "torchvision": ("backbone.body.conv1.weight", "head.regression_head.bbox_ctrness.weight"),
}
ALL = [family.name for family in FAMILIES]
NAMED = [family.name for family in FAMILIES if MARKS[family.name]]
PAGE = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"
State = dict[str, Tensor]
Told = Callable[[Path], str]


class Trap:
    def __reduce__(self) -> Any:
        return print, ("ran",)


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """file -> the line that the commands say of it"""

    def tell(file: Path) -> str:
        before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        said = []
        for words in (["import", f"weights={file}", f"out={tmp_path / 'out.pt'}"], ["val", f"model={file}"]):
            assert cli.main(words) == 2, words
            got = capsys.readouterr()
            assert got.out == ""
            assert got.err.startswith(f"gfldet: {file}: ")
            assert got.err.count("\n") == 1
            assert got.err.endswith("\n")
            assert got.err[:-1].isprintable()
            assert len(got.err) < 2500
            assert any(f"; {verb} " in got.err for verb in ("give", "copy", "expected", "gfldet export")), got.err
            said.append(got.err)
        assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
        return said[0]

    return tell


# ----------------------------------------------------------------------------------- tensors that are not as expected

CHANGES: dict[str, Callable[[State], Any]] = {
    "alone": lambda state: state,
    "int8": lambda state: {name: value.to(torch.int8) for name, value in state.items()},
    "bool": lambda state: {name: value.bool() for name, value in state.items()},
    "bfloat16": lambda state: {name: value.bfloat16() for name, value in state.items()},
    "float64": lambda state: {name: value.double() for name, value in state.items()},
    "nan": lambda state: {name: value + torch.nan for name, value in state.items()},
    "infinite": lambda state: {name: value + torch.inf for name, value in state.items()},
    "no sides": lambda state: {name: value.sum() for name, value in state.items()},
    "nothing in them": lambda state: {name: value[:0] for name, value in state.items()},
    "six sides": lambda state: {name: value[None, None] for name, value in state.items()},
    "far larger than the file": lambda state: {n: v[0, 0, 0, 0].expand(1 << 19, 1 << 19) for n, v in state.items()},
    "shared": lambda state: dict.fromkeys(state, torch.zeros(4, 4, 3, 3)),
    "no tensors beside": lambda state: {**state, "lr": 0.1, "names": ["a", {"b": None}], 3: "x", None: (1, 2)},
    "a list of classes": lambda state: {"state_dict": state, "names": "person", "epoch": "three"},
    "a long name": lambda state: {**state, "x" * 10_000: torch.zeros(1)},
    "a name of many lines": lambda state: {**state, "a\nb\x1b[31mc\u202e": torch.zeros(1)},
    "an empty name": lambda state: {**state, "": torch.zeros(1)},
    "many": lambda state: {**state, **{f"{name}.{i}": state[name] for name in state for i in range(3000)}},
    "wrapped": lambda state: {"model": {f"module.model.{name}": value for name, value in state.items()}},
}
UNKNOWN: dict[str, Callable[[State], Any]] = {
    "complex": lambda state: {name: value.to(torch.complex64) for name, value in state.items()},
    "sparse": lambda state: {name: value.to_sparse() for name, value in state.items()},
    "empty": lambda state: {},
    "a list": lambda state: list(state.values()),
    "a tensor": lambda state: torch.zeros(3),
    "nothing": lambda state: None,
    "nested": lambda state: {"net": {"weights": state}},
    "numbers for names": lambda state: dict(enumerate(state.values())),
    "code": lambda state: {**state, "x": Trap()},
    "deep": lambda state: _nested(state, 300),
}


def _nested(state: Any, depth: int) -> Any:
    for _ in range(depth):
        state = {"model": state}
    return state


def _state(family: str) -> State:
    return {name: torch.rand(4, 4, 3, 3) for name in MARKS[family]}


@pytest.mark.parametrize("family", NAMED)
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_of_a_family(family: str, change: str, told: Told, tmp_path: Path) -> None:
    torch.save(CHANGES[change](_state(family)), tmp_path / "bad.pth")
    line = told(tmp_path / "bad.pth")
    assert f": refused as {family}: it" in line
    assert "; give " in line


@pytest.mark.parametrize("family", NAMED)
@pytest.mark.parametrize("change", UNKNOWN)
def test_a_file_of_no_family(family: str, change: str, told: Told, tmp_path: Path) -> None:
    torch.save(UNKNOWN[change](_state(family)), tmp_path / "bad.pth")
    line = told(tmp_path / "bad.pth")
    assert ": refused: " in line
    assert "; give " in line


@pytest.mark.parametrize("family", NAMED)
@pytest.mark.parametrize("change", ["alone", "int8", "nan", "a long name", "empty", "code", "deep", "sparse"])
def test_the_same_in_torch_s_older_form(family: str, change: str, told: Told, tmp_path: Path) -> None:
    made = {**CHANGES, **UNKNOWN}[change](_state(family))
    torch.save(made, tmp_path / "bad.pth", _use_new_zipfile_serialization=False)
    assert ": refused" in told(tmp_path / "bad.pth")


# ------------------------------------------------------------------------------------------------- damaged archives


def _records(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def _archive(records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in records.items():
            file.writestr(name, data)
    return out.getvalue()


def _changed(data: bytes, ending: str, new: bytes | None) -> bytes:
    """An archive with another record of that name, or with none."""
    records = {name: new if name.endswith(ending) else held for name, held in _records(data).items()}
    return _archive({name: held for name, held in records.items() if held is not None})


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: b"P",
    "text": lambda data: b"These are my weights.\n" * 50,
    "a page": lambda data: PAGE,
    "a half": lambda data: data[: len(data) // 2],
    "its last byte missing": lambda data: data[:-1],
    "its first byte missing": lambda data: data[1:],
    "its end alone": lambda data: data[-200:],
    "zeros": lambda data: bytes(5000),
    "no pickle": lambda data: _changed(data, "data.pkl", None),
    "a pickle of noise": lambda data: _changed(data, "data.pkl", b"\x80\x02}q\x00garbage"),
    "a pickle without an end": lambda data: _changed(data, "data.pkl", b"\x80\x02}q\x00"),
    "an empty pickle": lambda data: _changed(data, "data.pkl", b""),
    "two pickles": lambda data: _archive({**_records(data), "more/data.pkl": b"\x80\x02}."}),
    "another version": lambda data: _changed(data, "/version", b"4\n"),
    "compressed": lambda data: _archive(_records(data), zipfile.ZIP_DEFLATED),
    "a pickle alone": lambda data: pickle.dumps({"a": [1, 2]}),
    "an older torch, cut short": lambda data: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
    "an archive of pictures": lambda data: _archive({"holiday.jpg": b"\xff\xd8\xff"}),
}


CUT = "refused: no archive as torch.save writes them, or one that was cut short; copy or download it again; give "
REASONS = {
    **dict.fromkeys(("empty", "text", "a half", "its last byte missing", "its end alone"), CUT),
    "a page": "refused: it is a web page, as downloads give that went wrong; download the file itself; give ",
    "an archive of pictures": "refused: 0 records data.pkl in it instead of one, so torch.save did not write it; give ",
}


@pytest.fixture
def good(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of the family that is as torch writes it."""
    if MARKS[family]:
        torch.save(_state(family), tmp_path / "good.pt")
        return tmp_path / "good.pt"
    made: Path = request.getfixturevalue("file")
    return made


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file(family: str, damage: str, good: Path, told: Told, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(DAMAGES[damage](good.read_bytes()))
    line = told(tmp_path / "bad.pt")
    assert REASONS.get(damage, "refused: ") in line


@pytest.mark.parametrize("family", NAMED)
def test_records_that_nobody_asked_for_change_nothing(family: str, good: Path, told: Told, tmp_path: Path) -> None:
    before = told(good)
    good.write_bytes(_archive({**_records(good.read_bytes()), "../../evil.py": b"import os", "good/data/9": b"1"}))
    assert told(good) == before


def test_what_is_no_file(told: Told, tmp_path: Path) -> None:
    for suffix in (".pt", ".pth", ".ckpt", ".onnx"):
        (tmp_path / f"folder{suffix}").mkdir()
        assert "no such file" in told(tmp_path / f"folder{suffix}")
        assert "no such file" in told(tmp_path / f"none{suffix}")


# ------------------------------------------------------------------------------------------------------------ ONNX


def _graphs() -> dict[str, Callable[[Any, Any], bytes]]:
    """name -> onnx, its helper -> the bytes of a file"""

    def graph(helper: Any, *nodes: Any, tensors: Any = ()) -> bytes:
        image = helper.make_tensor_value_info("images", 1, [1, 3, 64, 64])
        out = helper.make_tensor_value_info("out", 1, None)
        made: bytes = helper.make_model(
            helper.make_graph(list(nodes), "g", [image], [out], list(tensors))
        ).SerializeToString()
        return made

    def external(onnx: Any, helper: Any) -> bytes:
        weight = helper.make_tensor("w", 1, [1, 16, 1, 1], [0.0] * 16)
        weight.ClearField("float_data")
        weight.data_location = 1
        weight.external_data.add(key="location", value="../../etc/passwd")
        return graph(helper, helper.make_node("Conv", ["images", "w"], ["out"]), tensors=[weight])

    def conv(*inputs: str, tensors: Any = ()) -> Callable[[Any, Any], bytes]:
        return lambda onnx, helper: graph(helper, helper.make_node("Conv", [*inputs], ["out"]), tensors=tensors)

    return {
        "empty": lambda onnx, helper: b"",
        "text": lambda onnx, helper: b"These are my weights.\n",
        "a page": lambda onnx, helper: PAGE,
        "no graph": lambda onnx, helper: onnx.ModelProto().SerializeToString(),
        "no nodes": lambda onnx, helper: graph(helper),
        "no tensors": conv("images", "w"),
        "a node without inputs": conv(),
        "a node with an image alone": conv("images"),
        "weights elsewhere": external,
        "a loop": conv("out", "out"),
        "cut short": lambda onnx, helper: external(onnx, helper)[:-40],
        "a checkpoint": lambda onnx, helper: _archive({"x/data.pkl": b"\x80\x02}."}),
    }


@pytest.mark.parametrize("what", _graphs())
def test_graphs(what: str, told: Told, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "bad.onnx").write_bytes(_graphs()[what](onnx, onnx.helper))
    line = told(tmp_path / "bad.onnx")
    assert "; give " in line
    assert ": refused" in line
    if what in ("text", "cut short", "a checkpoint"):
        assert "no ONNX graph, or one that was cut short; copy or download it again" in line
