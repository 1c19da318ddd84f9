"""Archives of torch: nothing in a file runs, gets in unknown or reaches outside of its own numbers."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet.errors import CheckpointError
from gfldet.imports.registry import allowed, read_foreign
from gfldet.store import unpickle
from gfldet.store.archive import Refusal
from gfldet.store.unpickle import Storage, Stored


class Call:
    """Calls something when it is unpickled."""

    def __init__(self, called: Any, *args: Any) -> None:
        self.call = called, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(("place", "protocol"), [("entry", 2), ("entry", 4), ("attribute", 2), ("ema", 2)])
@pytest.mark.parametrize("what", ["os.mkdir", "eval", "getattr", "import"])
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, tree: Any, what: str, place: str, protocol: int) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "ran"
    command = f"__import__('os').mkdir({str(mark)!r})"
    trap, named = {
        "os.mkdir": (Call(os.mkdir, str(mark)), r"(posix|nt)\.mkdir"),
        "eval": (Call(eval, command), r"(__builtin__|builtins)\.eval"),
        "getattr": (Call(getattr, Call(__import__, "os"), "sep"), r"(__builtin__|builtins)\.getattr"),
        "import": (Call(__import__, "os"), r"(__builtin__|builtins)\.__import__"),
    }[what]
    saved = {"epoch": 1, "model": tree}
    if place == "attribute":
        tree.model[0].conv.padding_mode = trap
    else:
        saved = {place: trap, **saved}
    torch.save(saved, path, pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match=rf"evil\.pt: refused: it asks for {named}, which no detector"):
        read_foreign(path)
    assert not mark.exists()


def test_the_traps_would_have_worked(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Call(eval, f"__import__('os').mkdir({str(mark)!r})")))  # noqa: S301  ours, to see it run
    assert mark.exists()


def _word(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


STUB = b"cultralytics.any\nThing\n"
FLOATS = b"ctorch\nFloatStorage\n"
PROGRAMS: dict[str, tuple[bytes, str]] = {
    "a call of what a call returned": (STUB + b")R)R.", "calls a Record instead of a class or function by its name"),
    "a call of data": (b"})R.", "calls a dict"),
    "a call with no tuple": (STUB + b"]R.", "calls a Name"),
    "an attribute set on a class": (STUB + b"}b.", "gives a state to a Name"),
    "an attribute set on a list": (b"]}b.", "gives a state to a list"),
    "an item set on a class": (STUB + b"K\x01K\x02s.", "puts items into a Name"),
    "an append to an object": (STUB + b")RK\x01a.", "appends to a Record"),
    "a reference to something else": (_word("file:secret") + b"Q.", "a reference to something else than the numbers"),
    "a storage of something else": (
        b"(" + _word("storage") + STUB + _word("0") + _word("cpu") + b"K\x04tQ.",
        r"numbers of an unknown type \(ultralytics\.any\.Thing\)",
    ),
    "a storage elsewhere": (
        b"(" + _word("storage") + FLOATS + _word("../../x") + _word("cpu") + b"K\x04tQ.",
        "numbers of an unknown type",
    ),
    "a negative storage": (
        b"(" + _word("storage") + FLOATS + _word("0") + _word("cpu") + b"J\xff\xff\xff\xfftQ.",
        "no whole numbers from 0 on",
    ),
    "a storage that is none": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))tR.",
        "an object that stands for a tensor and is none",
    ),
    "an instruction of old": (b"(ios\nsystem\n.", "asks for os.system"),
    "an instruction of old, of a known class": (b"(iultralytics.any\nThing\n.", "instruction INST for ultralytics.any"),
    "a call by an extension's number": (b"\x82\x01)R.", "the pickle instruction EXT1"),
    "a tuple as a key": (b"}K\x01\x85K\x02s.", "has a tuple as a key"),
    "too little on the stack": (STUB + b"R.", "takes more values than it has"),
    "no end": (b"}", "pickle (is damaged|has no end)"),
    "noise": (b"\xff\xfe\xfd", "its pickle is damaged"),
    "a value that was never kept": (b"h\x07.", "its pickle is damaged"),
    "a class's own innards": (b"c__builtin__\nobject\n.", "asks for __builtin__.object"),
    "a name behind a known one": (b"ctorch.nn\nmodules.x\n.", "it holds a Name"),
    "another trainer's model": (b"cmodels.yolo\nDetectionModel\n.", "asks for models.yolo.DetectionModel"),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_pickles_that_build_no_data(tmp_path: Path, what: str) -> None:
    program, told = PROGRAMS[what]
    path = tmp_path / "odd.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("odd/data.pkl", b"\x80\x02" + program)
        archive.writestr("odd/version", "3\n")
    with pytest.raises(CheckpointError, match=rf"odd\.pt: refused( as YOLOv8)?: .*{told}.*; give a YOLOv8 detection"):
        read_foreign(path)


@pytest.fixture
def numbers(tmp_path: Path) -> Iterator[unpickle.Archive]:
    """An archive of six numbers, 0 to 5."""
    torch.save({"a": torch.arange(6, dtype=torch.float32)}, tmp_path / "six.pt")
    with unpickle.opened(tmp_path / "six.pt", allowed()) as archive:
        yield archive


def test_tensors_come_as_they_were(numbers: unpickle.Archive) -> None:
    six = Storage("0", torch.float32, 6)
    assert numbers.tree["a"] == Stored(six, 0, (6,), (1,))
    assert numbers.tensor(Stored(six, 1, (2, 2), (1, 2))).tolist() == [[1, 3], [2, 4]]
    assert numbers.tensor(Stored(six, 0, (0, 3), (3, 1))).shape == (0, 3)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (Stored(Storage("0", torch.float32, 1 << 39), 0, (1 << 39,), (1,)), "has 24 bytes, not 549755813888 numbers"),
        (Stored(Storage("0", torch.float16, 6), 0, (6,), (1,)), "has 24 bytes, not 6 numbers of torch.float16"),
        (Stored(Storage("0", torch.float32, 6), 0, (1 << 30,), (0,)), "reaches outside"),  # one number, shown often
        (Stored(Storage("0", torch.float32, 6), 1 << 39, (1,), (1,)), "reaches outside"),
        (Stored(Storage("0", torch.float32, 6), 0, (2,), (1 << 39,)), "reaches outside"),
        (Stored(Storage("0", torch.float32, 6), 1, (6,), (1,)), "reaches outside"),
        (Stored(Storage("7", torch.float32, 6), 0, (6,), (1,)), "the record six/data/7 is missing"),
    ],
)
def test_views_stay_inside_of_their_numbers(numbers: unpickle.Archive, stored: Stored, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        numbers.tensor(stored)


def _rewritten(path: Path, change: Callable[[str, bytes], bytes | None], packing: int = zipfile.ZIP_STORED) -> None:
    """The archive with every record changed; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in parts.items():
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-400]), "no archive as torch.save writes them"),
    "empty": (lambda path: path.write_bytes(b""), "no archive as torch.save writes them"),
    "noise": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(range(256))), "no archive as torch.save"),
    "no pickle": (
        lambda path: _rewritten(path, lambda name, data: None if name.endswith(".pkl") else data),
        r"0 records data\.pkl in it",
    ),
    "no numbers": (
        lambda path: _rewritten(path, lambda name, data: None if name.endswith("/data/4") else data),
        "the record small/data/4 is missing",
    ),
    "too few numbers": (
        lambda path: _rewritten(path, lambda name, data: data[:-4] if name.endswith("/data/0") else data),
        r"small/data/0 has \d+ bytes, not \d+ numbers of torch\.float32",
    ),
    "version": (
        lambda path: _rewritten(path, lambda name, data: b"9\n" if name.endswith("version") else data),
        "an archive of version '9'; '3' is what can be read",
    ),
    "byte order": (
        lambda path: _rewritten(path, lambda name, data: b"big" if name.endswith("byteorder") else data),
        "an archive of byteorder 'big'",
    ),
    "packed": (lambda path: _rewritten(path, lambda _, data: data, zipfile.ZIP_DEFLATED), "is compressed"),
    "cut pickle": (
        lambda path: _rewritten(path, lambda name, data: data[:900] if name.endswith(".pkl") else data),
        "its pickle is damaged",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_files(file: Path, what: str) -> None:
    damage, told = DAMAGES[what]
    damage(file)
    with pytest.raises(
        CheckpointError, match=rf"small\.pt: refused( as YOLOv8)?: .*{told}.*; give a YOLOv8 detection checkpoint"
    ):
        read_foreign(file)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_no_file(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file; give a YOLOv8"):
        read_foreign(tmp_path / "none.pt")
