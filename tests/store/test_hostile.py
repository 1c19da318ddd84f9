"""Checkpoints that were made to take all memory or all time, or that hold what none has: told, and at once."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet.errors import CheckpointError
from gfldet.imports.start import read_start
from gfldet.nn.build import Description, read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import checkpoint as checkpoints
from gfldet.store import unpickle
from gfldet.store.archive import Refusal
from gfldet.store.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def payload(tiny_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a checkpoint of a small model holds."""
    tiny = read_description(tiny_yaml)
    model = DetectionModel(tiny, ("cat", "dog"))
    training = {
        "weights": model.state_dict(),
        "optimizer": {"state": {}, "param_groups": []},
        "scaler": {},
        "updates": 1,
        "progress": {"epoch": 1, "share": 0.5},
        "random": torch.get_rng_state(),
    }
    path = tmp_path_factory.mktemp("whole") / "whole.pt"
    checkpoints.save(path, Checkpoint(tiny, ("cat", "dog"), (0, 1), model.state_dict(), {"imgsz": 64}, 0, {}, training))
    checkpoints.load_model(path)
    whole: dict[str, Any] = torch.load(path, weights_only=True)
    return whole


def shared(levels: int = 40) -> list[Any]:
    """Lists that hold each other four times over: a few hundred bytes, which repr would unfold without an end."""
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value] * 4
    return value


def _model(change: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda p: {**p, "model": {**p["model"], **change}}


def _row(number: int, row: list[Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda p: _model({"rows": [row if i == number else r for i, r in enumerate(p["model"]["rows"])]})(p)


def _training(change: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda p: {**p, "training": {**p["training"], **change}}


DAMAGED = "a part of the checkpoint is damaged"
NONE = "the model it describes is none"
FITS = "the weights do not fit the model they name"
ODD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda p: {**p, "format": torch.zeros(3)}, "no gfldet checkpoint"),
    "version a tensor": (lambda p: {**p, "version": torch.zeros(3)}, "checkpoint version a Tensor; this gfldet"),
    "version shared lists": (lambda p: {**p, "version": shared()}, r"checkpoint version \[\[\["),
    "writer shared lists": (lambda p: {**p, "version": 9, "gfldet": shared()}, "checkpoint version 9"),
    "settings a list": (lambda p: {**p, "settings": [1]}, rf"{DAMAGED} \(settings \[1\]; settings by name expected"),
    "settings by number": (lambda p: {**p, "settings": {1: 2}}, DAMAGED),
    "a setting of shared lists": (lambda p: {**p, "settings": {"imgsz": shared()}}, DAMAGED),
    "a setting a tensor": (lambda p: {**p, "settings": {"imgsz": torch.zeros(2)}}, DAMAGED),
    "a setting of a long number": (lambda p: {**p, "settings": {"imgsz": 10**500}}, DAMAGED),
    "names lists": (lambda p: {**p, "names": [["a"], ["b"]]}, rf"{DAMAGED} \(names \[\['a'\], \['b'\]\]; a list of te"),
    "names shared lists": (lambda p: {**p, "names": shared()}, DAMAGED),
    "names text": (lambda p: {**p, "names": "ab"}, DAMAGED),
    "no names": (lambda p: {**p, "names": [], "category_ids": []}, DAMAGED),
    "one id": (lambda p: {**p, "category_ids": [1]}, "2 names and 1 category id"),
    "ids text": (lambda p: {**p, "category_ids": ["a", "b"]}, DAMAGED),
    "ids of a tensor": (lambda p: {**p, "category_ids": torch.zeros(2)}, DAMAGED),
    "weights a list": (lambda p: {**p, "weights": list(p["weights"].values())}, DAMAGED),
    "weights numbers": (lambda p: {**p, "weights": {"a": 1}}, DAMAGED),
    "epoch": (lambda p: {**p, "epoch": torch.zeros(2)}, DAMAGED),
    "metrics": (lambda p: {**p, "metrics": {"map": "high"}}, DAMAGED),
    "licence": (lambda p: {**p, "licence": shared()}, DAMAGED),
    "training a list": (lambda p: {**p, "training": [1]}, "parts of the checkpoint are missing"),
    "training's weights": (_training({"weights": {"a": 1}}), DAMAGED),
    "training's progress": (_training({"progress": {"epoch": shared()}}), DAMAGED),
    "training's updates": (_training({"updates": "many"}), DAMAGED),
    "training's random numbers": (_training({"random": 3}), DAMAGED),
    "an old one's epochs": (
        lambda p: {**p, "version": 1, "settings": {"epochs": torch.zeros(3)}},
        "parts of the checkpoint are missing",
    ),
    "model a list": (lambda p: {**p, "model": [1]}, "parts of the checkpoint are missing"),
    "model's classes": (
        _model({"nc": 10**9}),
        rf"{NONE} \(model tiny: nc 1000000000: a whole number from 1 to 100000 ",
    ),
    "model's classes shared lists": (_model({"nc": shared()}), NONE),
    "model's bins": (_model({"reg_max": 10**9}), NONE),
    "model's depth": (_model({"depth": float("nan")}), NONE),
    "model's width": (_model({"width": 1e6}), NONE),
    "model's width, less large": (
        _model({"width": 99.0}),
        rf"{FITS} \(model tiny, row 2 .*: the model takes more than",
    ),
    "model's channels": (_model({"max_channels": "many"}), NONE),
    "model's name": (_model({"name": shared()}), NONE),
    "model's quality": (_model({"dgqp": torch.ones(2)}), NONE),
    "model's settings": (_model({"preferred": {"lr0": shared()}}), NONE),
    "model's unknown settings": (_model({"preferred": {"lr": 1}}), NONE),
    "model's rows": (_model({"rows": 5}), "parts of the checkpoint are missing"),
    "many rows": (lambda p: _model({"rows": p["model"]["rows"][:1] * 2000})(p), rf"{NONE} .*2000 rows: 1 to 1000"),
    "a row of shared lists": (_row(1, shared()), NONE),
    "a row of three": (_row(1, [-1, 1, "Conv"]), rf"{NONE} .*expected \[from, repeats, module, args\]"),
    "a module that is a list": (_row(1, [-1, 1, ["Conv"], [8]]), NONE),
    "an argument of shared lists": (_row(1, [-1, 1, "Conv", [shared()]]), NONE),
    "repeats": (_row(1, [-1, 10**8, "Conv", [8]]), rf"{NONE} .*repeats 100000000: a whole number from 1 to 2000"),
    "repeats of no number": (_row(1, [-1, "two", "Conv", [8]]), NONE),
    "channels": (_row(1, [-1, 1, "Conv", [10**7, 3, 2]]), rf"{FITS} .*the model takes more than"),
    "a kernel": (_row(1, [-1, 1, "Conv", [8, 10**5, 2]]), rf"{FITS} .*the model takes more than"),
    "padding": (_row(1, [-1, 1, "Conv", [8, 3, 2, 10**6]]), rf"{FITS} .*the model takes more than"),
    "a pool": (_row(1, [-1, 1, "SPPF", [64, 10**6]]), rf"{FITS} .*the model takes more than"),
    "an upsampling": (_row(1, [-1, 1, "Upsample", [None, 10**6, "nearest"]]), rf"{FITS} .*the model takes more than"),
    "all sources": (_row(1, [[0] * 10**5, 1, "Concat", [1]]), rf"{NONE} .*from: 1 to 64 layers"),
}


@pytest.mark.parametrize("what", ODD)
def test_what_no_checkpoint_holds_is_told(tmp_path: Path, payload: dict[str, Any], what: str) -> None:
    change, told = ODD[what]
    path = tmp_path / "odd.pt"
    torch.save(change(payload), path)
    with pytest.raises(CheckpointError, match=rf"odd\.pt: .*{told}") as caught:
        checkpoints.load_model(path)
    assert len(str(caught.value)) < len(str(path)) + 500


# ---------------------------------------------------------------------------------------------------- archives


def _archive(path: Path, data: bytes, packing: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/version", "3\n")


def _packed(path: Path) -> None:
    _archive(path, b"\x80\x02}X\x11\x00\x00\x00gfldet-checkpoint" + bytes(10 << 20), zipfile.ZIP_DEFLATED)


def _overlapping(path: Path) -> None:
    """Records that share their bytes: the directory names one place many times over."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(1000))
        for number in range(1, 50):
            record = zipfile.ZipInfo(f"a/data/{number}")
            first = archive.getinfo("a/data/0")
            record.header_offset, record.CRC = first.header_offset, first.CRC
            record.file_size = record.compress_size = first.file_size
            archive.filelist.append(record)
            archive.NameToInfo[record.filename] = record


def _larger(path: Path) -> None:
    """A record that tells another size than it has."""
    _archive(path, b"\x80\x02}.")
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"PK\x01\x02"))
    data[at + 24 : at + 28] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)


def _many_records(path: Path) -> None:
    _archive(path, b"\x80\x02}.")
    data = bytearray(path.read_bytes())
    data[-10:-6] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)


ARCHIVES: dict[str, tuple[Callable[[Path], None], str]] = {
    "packed": (_packed, r"the record a/data\.pkl is compressed"),
    "overlapping": (_overlapping, "its records are larger than the file"),
    "larger than told": (_larger, r"the record a/data\.pkl is compressed"),
    "many records": (_many_records, "more records in it than any detector has"),
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_archives_that_grow(tmp_path: Path, what: str) -> None:
    make, told = ARCHIVES[what]
    path = tmp_path / "grows.pt"
    make(path)
    assert not checkpoints.is_ours(path)
    with pytest.raises(CheckpointError, match=rf"grows\.pt: not a readable checkpoint \({told}"):
        checkpoints.load(path)
    with pytest.raises(CheckpointError, match=rf"grows\.pt: refused: {told}"):
        read_start(path)


def _word(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def _storage(numel: int) -> bytes:
    return (
        b"("
        + _word("storage")
        + b"ctorch\nFloatStorage\n"
        + _word("0")
        + _word("cpu")
        + b"J"
        + numel.to_bytes(4, "little")
        + b"tQ"
    )


COPIES = b"ccollections\nOrderedDict\nq\x01]q\x02(" + b"K\x01K\x02\x86" * 1000 + b"e" + b"0h\x01h\x02\x85R" * 30
PICKLES: dict[str, tuple[bytes, str]] = {
    "a call that fills memory": (
        b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        "it asks for __builtin__.bytearray",
    ),
    "a sparse tensor": (b"ctorch._utils\n_rebuild_sparse_tensor\n.", "it asks for torch._utils._rebuild_sparse_tensor"),
    "a name alone": (b"ctorch\nFloatStorage\n.", "it holds torch.FloatStorage"),
    "bytes": (b"C\x03abc.", "it holds bytes"),
    "lists nested deep": (b"]" * 3000 + b"a" * 2999 + b".", "its lists are nested too deep"),
    "one list copied often": (COPIES.replace(b"0h\x01", b"h\x01") + b".", "its pickle copies more than 10000 values"),
    "a tensor of many sides": (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + _storage(4)
        + b"K\x00("
        + b"K\x01" * 70
        + b"t("
        + b"K\x01" * 70
        + b"ttR.",
        "a tensor whose sizes",
    ),
    "one number shown often": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + _storage(4) + b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85tR.",
        "reaches outside of the 4 numbers",
    ),
    "numbers that are not there": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + _storage(1 << 30) + b"K\x00K\x04\x85K\x01\x85tR.",
        "has 16 bytes, not 1073741824 numbers",
    ),
}


@pytest.mark.parametrize("what", PICKLES)
def test_pickles_that_grow(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "MAX_COPIED", 10_000)
    program, told = PICKLES[what]
    path = tmp_path / "odd.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + program)
        archive.writestr("a/data/0", bytes(16))
    with pytest.raises(Refusal, match=told), unpickle.opened(path, unpickle.Allowed()) as found:
        found.plain()
    with pytest.raises(CheckpointError, match=r"odd\.pt: (not a readable checkpoint|refused)"):
        checkpoints.load(path)


def test_files_of_an_older_torch_fill_no_memory(tmp_path: Path) -> None:
    """Torch's own reader of tensors and plain data would carry out the call."""
    path = tmp_path / "old.pth"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    tree = pickle.dumps({"a": bytearray(3)}, protocol=2)
    path.write_bytes(whole[: whole.index(b"\x80\x02", 40)] + tree)
    with pytest.raises(CheckpointError, match=r"old\.pth: refused: it asks for __builtin__\.bytearray"):
        read_start(path)


def test_tensors_and_plain_data_come_as_they_were(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.float32)
    cyclic: list[Any] = [1]
    cyclic.append(cyclic)
    given: dict[str, Any] = {
        "views": [base.view(3, 4).T, base[2:5], base[:0], base[3]],
        "kinds": [torch.tensor([1], dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.int64, torch.bool)],
        "plain": OrderedDict(a=None, b=True, c=-(2**40), d=math.inf, e="ä", f=(1, (2, [3])), g={4: 5}),
        "cyclic": cyclic,
    }
    torch.save(given, tmp_path / "a.pt")
    with unpickle.opened(tmp_path / "a.pt", unpickle.Allowed()) as found:
        back = found.plain()
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(back["views"], given["views"], strict=True))
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(back["kinds"], given["kinds"], strict=True))
    assert back["plain"] == given["plain"]
    assert back["cyclic"][1] is back["cyclic"]
    back["views"][0][0, 0] = 7  # views share their numbers, as in the file
    assert back["views"][3].data_ptr() == back["views"][0].data_ptr() + 3 * 4


def test_a_large_description_beside_small_weights(tiny: Description, tmp_path: Path) -> None:
    """It is refused before such a model is made."""
    model = DetectionModel(tiny, ("cat", "dog"))
    wide = replace(tiny, width=20.0)
    checkpoint = Checkpoint(wide, ("cat", "dog"), (0, 1), model.state_dict())
    with pytest.raises(CheckpointError, match=r"^a\.pt: the weights do not fit the model they name"):
        checkpoint.model("a.pt")
