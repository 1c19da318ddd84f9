"""Weights of other programs: what is taken over computes the same, and nothing in a file runs or gets in unknown.

The files are made here, without the program they are to come from: our own model's parts are renamed to the classes
that such files name, planted in modules of these names for as long as they are pickled.
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gfldet.config.assets import resolve_model_yaml
from gfldet.errors import CheckpointError, ConfigError, OutputError
from gfldet.imports import tree as trees
from gfldet.imports import unpickle
from gfldet.imports.foreign import Foreign, Refusal
from gfldet.imports.unpickle import Storage, Stored
from gfldet.imports.yolov8 import read_yolov8, save_imported
from gfldet.model import Model
from gfldet.nn import blocks
from gfldet.nn.build import read_description
from gfldet.nn.heads import GFLHead
from gfldet.nn.tasks import DetectionModel
from gfldet.store import checkpoint as checkpoints
from gfldet.store import transfer

SMALL = """\
nc: 3
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 2, C2f, [8, True]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, SPPF, [16, 5]]
head:
  - [-1, 1, Upsample, [None, 2, nearest]]
  - [[-1, 2], 1, Concat, [1]]
  - [-1, 1, C2f, [8]]
  - [[7, 4], 1, GFLHead, [nc]]
"""
NAMES = ("red", "blue", "green hat")
PACKAGE = "ultralytics.nn"
CLASSES = {
    "tasks": ("DetectionModel", "SegmentationModel"),
    "modules.conv": ("Conv", "Concat", "GhostConv"),
    "modules.block": ("C2f", "Bottleneck", "SPPF", "DFL", "C3k2"),
    "modules.head": ("Detect", "Segment"),
}

Classes = dict[str, type[nn.Module]]


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> Classes:
    """Empty classes of modules by name, importable as pickle wants them while it writes."""
    made: Classes = {}
    for package in ("ultralytics", PACKAGE, f"{PACKAGE}.modules"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    for module, names in CLASSES.items():
        place = types.ModuleType(f"{PACKAGE}.{module}")
        monkeypatch.setitem(sys.modules, place.__name__, place)
        for name in names:
            made[name] = type(name, (nn.Module,), {"__module__": place.__name__})
            setattr(place, name, made[name])
    return made


@torch.no_grad()
def _shaken(model: DetectionModel) -> DetectionModel:
    """Batch norms and biases that differ from their start, as weights do, so that one left out would show."""
    generator = torch.Generator().manual_seed(3)
    for name, value in model.state_dict().items():
        if value.ndim == 1 and not name.endswith("bins"):
            value += 0.2 * torch.rand(value.shape, generator=generator)
    return model.eval()


@pytest.fixture
def ours(tmp_path: Path) -> DetectionModel:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return _shaken(DetectionModel(read_description(path), NAMES))


def _renamed(module: nn.Module, classes: Classes) -> nn.Module:
    """A part of ours as the part of a YOLOv8 file."""
    if type(module) is blocks.Upsample:
        return nn.Upsample(module.size, module.scale_factor, module.mode)
    if not module._modules and not isinstance(module, blocks.Concat):
        return copy.deepcopy(module)
    kind = {"GFLHead": "Detect"}.get(type(module).__name__, type(module).__name__)
    made = classes[kind]() if kind in classes else copy.copy(module)
    made._modules = {name: _renamed(child, classes) for name, child in module.named_children()}
    if isinstance(module, blocks.Bottleneck):
        made.add = module.add
    if isinstance(module, blocks.Concat):
        made.d = module.dim
    if isinstance(module, GFLHead):
        made._modules = {"cv2": made._modules["box"], "cv3": made._modules["cls"], "dfl": classes["DFL"]()}
        made.dfl.conv = nn.Conv2d(module.reg_max, 1, 1, bias=False)
        made.dfl.conv.weight.data = module.bins.detach().view(1, -1, 1, 1)
        made.stride = torch.tensor([float(s) for s in module.strides])
    return made


def _tree(model: DetectionModel, classes: Classes) -> Any:
    """A model of ours as such a file has it."""
    root: Any = classes["DetectionModel"]()
    root.model = nn.Sequential(*(_renamed(layer, classes) for layer in model.graph.layers))
    for number, (layer, (origin, *_)) in enumerate(zip(root.model, model.description.rows, strict=True)):
        layer.i, layer.f = number, origin
    root.names = dict(model.names)
    root.yaml = {"yaml_file": "nets/yolov8t.yaml", "nc": 3}
    root.args = {"imgsz": 96, "model": "x"}
    return root


@pytest.fixture
def tree(ours: DetectionModel, classes: Classes) -> Any:
    return _tree(ours, classes)


@pytest.fixture
def file(tmp_path: Path, tree: Any) -> Path:
    path = tmp_path / "small.pt"
    torch.save({"ema": None, "model": tree, "license": "AGPL-3.0  (https://example.org)", "epoch": -1}, path)
    return path


@torch.no_grad()
def _outputs(foreign: Foreign) -> Tensor:
    model = DetectionModel(foreign.description, foreign.names)
    model.load_state_dict(dict(foreign.weights))
    return _decoded(model)


@torch.no_grad()
def _decoded(model: DetectionModel) -> Tensor:
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    found = torch.as_tensor(model.float().eval()(x)[0])
    assert found.isfinite().all()
    return found


# ------------------------------------------------------------------------------------------------ taken over as it is


def test_a_checkpoint_computes_the_same(file: Path, ours: DetectionModel) -> None:
    foreign = read_yolov8(file)
    assert torch.allclose(_outputs(foreign), _decoded(ours), rtol=1e-6, atol=1e-5)
    assert foreign.names == NAMES
    assert (foreign.description.name, foreign.description.nc, foreign.description.reg_max) == ("yolov8t", 3, 16)
    assert (foreign.imgsz, foreign.strides) == ((96, 96), ours.strides)
    assert foreign.licence == "AGPL-3.0 (https://example.org)"


def test_its_average_comes_first(tmp_path: Path, ours: DetectionModel, tree: Any, classes: Classes) -> None:
    wanted = _decoded(ours)
    _shaken(ours)
    torch.save({"model": _tree(ours, classes), "ema": tree}, tmp_path / "both.pt")
    assert torch.allclose(_outputs(read_yolov8(tmp_path / "both.pt")), wanted, rtol=1e-6, atol=1e-5)


def test_half_precision(tmp_path: Path, ours: DetectionModel, tree: Any) -> None:
    torch.save({"model": tree.half()}, tmp_path / "half.pt")
    foreign = read_yolov8(tmp_path / "half.pt")
    assert {value.dtype for value in foreign.weights.values()} == {torch.float32, torch.int64}
    assert torch.allclose(_outputs(foreign), _decoded(ours.half()), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("scale", ["n", "m", "x"])
def test_every_scale_and_number_of_classes(tmp_path: Path, scale: str, classes: Classes) -> None:
    """The published graph at its true depth, made thin."""
    path, letter = resolve_model_yaml(f"gfldet-{scale}")
    model = DetectionModel(replace(read_description(path, letter, 7), width=0.05))
    torch.save({"model": _tree(model, classes)}, tmp_path / "thin.pt")
    foreign = read_yolov8(tmp_path / "thin.pt")
    assert foreign.description.nc == 7
    own = model.state_dict()
    assert list(foreign.weights) == list(own)
    assert all(torch.equal(value, own[name]) for name, value in foreign.weights.items())


def test_what_is_written_works_as_any_checkpoint(
    tmp_path: Path, file: Path, ours: DetectionModel, dataset: Callable[..., Any]
) -> None:
    out = save_imported(read_yolov8(file), tmp_path / "imported.pt")
    model = Model(out)
    assert model.names == dict(enumerate(NAMES))
    assert torch.equal(_decoded(model.model), _outputs(read_yolov8(file)))
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
    foreign = read_yolov8(file)
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


# --------------------------------------------------------------------------------------------------- code in the file


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
    with pytest.raises(CheckpointError, match=rf"evil\.pt: refused: it asks for {named}, which no YOLOv8"):
        read_yolov8(path)
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
    "a storage that is none": (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))tR.", "a tensor that is none"),
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
    with pytest.raises(CheckpointError, match=rf"odd\.pt: refused: .*{told}.*; give a YOLOv8 detection"):
        read_yolov8(path)


# ------------------------------------------------------------------------------------------------- damaged, and bombs


@pytest.fixture
def numbers(tmp_path: Path) -> Iterator[unpickle.Archive]:
    """An archive of six numbers, 0 to 5."""
    torch.save({"a": torch.arange(6, dtype=torch.float32)}, tmp_path / "six.pt")
    with unpickle.opened(tmp_path / "six.pt") as archive:
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
    with pytest.raises(CheckpointError, match=rf"small\.pt: refused: .*{told}.*; give a YOLOv8 detection checkpoint"):
        read_yolov8(file)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_no_file(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file; give a YOLOv8"):
        read_yolov8(tmp_path / "none.pt")


# ------------------------------------------------------------------------------------------------ detectors, but others


def _other(name: str, attribute: str, value: Any) -> Callable[[Any, Classes], Any]:
    return lambda tree, classes: setattr(tree.get_submodule(name), attribute, value)


def _of_class(name: str, kind: str) -> Callable[[Any, Classes], Any]:
    return lambda tree, classes: setattr(tree.get_submodule(name) if name else tree, "__class__", classes[kind])


def _nested(tree: Any, classes: Classes) -> None:
    tree.model[0]._modules["again"] = tree.model[0]


def _extra(tree: Any, classes: Classes) -> None:
    tree.model[2].extra = nn.Conv2d(1, 1, 1)


def _doubled(times: int) -> Any:
    """A value that is small in a file, and as text 2 ** times as long."""
    value: Any = 1
    for _ in range(times):
        value = (value, value)
    return value


def _multiplied(tree: Any, classes: Classes) -> None:
    part: Any = nn.SiLU()
    for _ in range(4):
        part = nn.Sequential(*[part] * 30)
    tree.model[0].act = part


CHANGES: dict[str, tuple[Callable[[Any, Classes], Any], str]] = {
    "segmentation model": (_of_class("", "SegmentationModel"), "its model is a ultralytics.nn.tasks.SegmentationModel"),
    "segmentation head": (_of_class("model.8", "Segment"), "its layer 8 is a Segment; only YOLOv8 detection models"),
    "another block": (_of_class("model.2", "C3k2"), "its layer 2 is a C3k2; .*layers are Conv, C2f, SPPF"),
    "another convolution inside": (_of_class("model.2.cv1", "GhostConv"), "layer 2 .* has a GhostConv in it, as cv1"),
    "another activation": (_other("model.1", "act", nn.ReLU()), "layer 1 .* has a ReLU in it"),
    "no activation": (_other("model.1", "act", nn.Identity()), "layer 1 .* has a Identity in it"),
    "activation of another place": (_other("model.1", "act", nn.MaxPool2d(3)), "model.1.act is a MaxPool2d instead"),
    "batch norm's eps": (_other("model.1.bn", "eps", 1e-5), r"model\.1\.bn has eps=1e-05; 0\.001 is what can"),
    "padding": (_other("model.1.conv", "padding", (0, 0)), r"model\.1\.conv has padding=\(0, 0\)"),
    "dilation": (_other("model.1.conv", "dilation", (2, 2)), r"has dilation=\(2, 2\)"),
    "stride": (_other("model.1.conv", "stride", (3, 3)), r"a Conv of stride \(3, 3\)"),
    "upsampling": (_other("model.5", "mode", "bilinear"), "has mode='bilinear'; 'nearest' is what can"),
    "factor": (_other("model.5", "scale_factor", 2.5), r"an Upsample by 2\.5"),
    "pooling": (_other("model.4.m", "stride", 2), r"model\.4\.m has stride=2"),
    "window": (_other("model.4.m", "kernel_size", (5, 5)), r"an SPPF over \(5, 5\)"),
    "shortcut": (_other("model.2.m.1", "add", False), r"model\.2\.m\.1 has add=False; True is what can"),
    "joined elsewhere": (_other("model.6", "d", 2), r"model\.6 has dim=2"),
    "inputs": (_other("model.6", "f", [-1, 0]), "layers do not make a detector"),
    "no inputs": (_other("model.6", "f", "x"), r"layer 6 \(Concat\) does not tell from which layers"),
    "inputs ahead": (_other("model.6", "f", [-1, 99]), r"layer 6 \(Concat\) reads from \[-1, 99\], which is not above"),
    "inputs before the first": (_other("model.6", "f", [-1, -8]), r"layer 6 \(Concat\) reads from \[-1, -8\]"),
    "a setting without end": (_other("model.6", "d", _doubled(80)), "model.6 has dim=a tuple"),
    "modules without end": (_multiplied, "more than 5000 modules"),
    "strides": (_other("model.8", "stride", torch.tensor([8.0, 16.0])), r"its strides are \(8\.0, 16\.0\), those of"),
    "a tensor too many": (_extra, "it has 2 tensors that a YOLOv8 detector does not have, such as model.2.extra"),
    "itself inside": (_nested, "nested more deeply"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_detectors_are_refused_by_what_differs(tmp_path: Path, tree: Any, classes: Classes, what: str) -> None:
    change, told = CHANGES[what]
    change(tree, classes)
    torch.save({"model": tree}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"other\.pt: (refused: )?.*({told}).*; give a YOLOv8"):
        read_yolov8(tmp_path / "other.pt")


def test_the_same_numbers_many_times_over(file: Path) -> None:
    """Layers may share a record, so that a small file could ask for any amount of memory."""
    with unpickle.opened(file) as archive, pytest.raises(Refusal, match="more weights than the file has bytes"):
        trees.read(replace(archive, size=10_000), "small")


def test_bins_and_names_have_to_fit(tmp_path: Path, tree: Any) -> None:
    path = tmp_path / "other.pt"
    tree.names = {0: "one"}
    torch.save({"model": tree}, path)
    with pytest.raises(CheckpointError, match="the names of its 3 classes are missing or of another number"):
        read_yolov8(path)
    tree.names = list(NAMES)
    torch.save({"model": tree}, path)
    assert read_yolov8(path).names == NAMES
    tree.model[-1].dfl.conv.weight.data += 0.5
    torch.save({"model": tree}, path)
    with pytest.raises(CheckpointError, match="the values of its box bins"):
        read_yolov8(path)


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ([1, 2], "it holds a list instead of a checkpoint's entries"),
        ({"weights": torch.zeros(2)}, "it has no entry 'ema' or 'model' with a whole model in it"),
        ({"model": {"a": torch.zeros(2)}}, "it has no entry 'ema' or 'model' with a whole model in it"),
        ({"model": nn.Conv2d(1, 1, 1)}, "its model is a torch.nn.modules.conv.Conv2d; only YOLOv8 detection"),
        ({"format": "gfldet-checkpoint", "version": 1}, "it is a checkpoint of gfldet already"),
    ],
)
def test_torch_files_of_other_kinds(tmp_path: Path, saved: Any, told: str) -> None:
    torch.save(saved, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"other\.pt: refused: {told}"):
        read_yolov8(tmp_path / "other.pt")


# ----------------------------------------------------------------------------------------------------------------- ONNX


class Exported(nn.Module):
    """A model of ours as YOLOv8's export decodes: the bins' mean is a convolution with their values as its weight."""

    def __init__(self, model: DetectionModel, apart: bool) -> None:
        super().__init__()
        self.model, self.apart = model, apart
        self.dfl = nn.Conv2d(model.reg_max, 1, 1, bias=False)
        self.dfl.weight.data = model.head.bins.detach().view(1, -1, 1, 1)  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor) -> Tensor:
        maps = [m.flatten(2) for m in self.model.graph(x)]
        rows = (4 * self.model.reg_max, self.model.nc)
        if self.apart:
            bins, logits = (torch.cat([m.split(rows, 1)[i] for m in maps], 2) for i in (0, 1))
        else:
            bins, logits = torch.cat(maps, 2).split(rows, 1)
        sides = self.dfl(bins.view(1, 4, self.model.reg_max, -1).transpose(2, 1).softmax(1)).view(1, 4, -1)
        return torch.cat((sides, logits.sigmoid()), 1)


def _by_split(block: blocks.C2f, x: Tensor) -> Tensor:
    """C2f's forward with the one operation by which YOLOv8's export halves the channels."""
    parts = list(block.cv1(x).split((block.hidden, block.hidden), dim=1))
    for inner in block.m:
        parts.append(inner(parts[-1]))
    return torch.as_tensor(block.cv2(torch.cat(parts, dim=1)))


def _export(model: DetectionModel, path: Path, apart: bool = False, **settings: Any) -> Path:
    pytest.importorskip("onnx")
    folded = copy.deepcopy(model)
    folded.fuse()
    for module in folded.modules():
        if isinstance(module, blocks.C2f):
            module.forward = types.MethodType(_by_split, module)  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
        torch.onnx.export(Exported(folded, apart).eval(), torch.rand(1, 3, 64, 64), path, dynamo=False, **settings)
    return path


@pytest.fixture(scope="module")
def full() -> DetectionModel:
    """The smallest of the published graphs, whose class branches begin as its box branches do."""
    path, letter = resolve_model_yaml("gfldet-n")
    return _shaken(DetectionModel(read_description(path, letter, 3), NAMES))


@pytest.fixture(scope="module")
def exported(full: DetectionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(full, tmp_path_factory.mktemp("onnx") / "full.onnx")


def _proto(path: Path) -> Any:
    import onnx

    return onnx.load(path)


def _told(proto: Any, **entries: str) -> Any:
    for key, value in entries.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return proto


def _saved(proto: Any, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def test_an_onnx_file_computes_the_same(exported: Path, full: DetectionModel, tmp_path: Path) -> None:
    told = {"names": str(dict(enumerate(NAMES))), "imgsz": "[64, 96]", "license": "AGPL-3.0", "task": "detect"}
    foreign = read_yolov8(_saved(_told(_proto(exported), **told), tmp_path / "full.onnx"))
    assert torch.allclose(_outputs(foreign), _decoded(full), rtol=1e-5, atol=1e-4)
    assert (foreign.description.name, foreign.names, foreign.imgsz) == ("yolov8n", NAMES, (64, 96))
    assert (foreign.strides, foreign.licence) == ((8, 16, 32), "AGPL-3.0")
    assert save_imported(foreign, tmp_path / "imported.pt").is_file()
    assert torch.equal(_decoded(Model(tmp_path / "imported.pt").model), _outputs(foreign))


@pytest.mark.parametrize("shuffled", [False, True])
def test_names_and_order_of_an_onnx_file_do_not_matter(
    exported: Path, full: DetectionModel, tmp_path: Path, shuffled: bool
) -> None:
    proto = _proto(exported)
    names: dict[str, str] = {tensor.name: f"onnx::Conv_{i}" for i, tensor in enumerate(proto.graph.initializer)}
    for tensor in proto.graph.initializer:
        tensor.name = names[tensor.name]
    for i, node in enumerate(proto.graph.node):
        node.name = f"n{i}"
        node.input[:] = [names.get(name, name) for name in node.input]
    if shuffled:  # another order in which every node still comes after what it reads
        nodes, known = list(proto.graph.node), {proto.graph.input[0].name, "", *names.values()}
        del proto.graph.node[:]
        while nodes:
            last = next(node for node in reversed(nodes) if known.issuperset(node.input))
            nodes.remove(last)
            known.update(last.output)
            proto.graph.node.append(last)
    foreign = read_yolov8(_saved(proto, tmp_path / "bare.onnx"))
    assert foreign.names == ("class0", "class1", "class2")
    assert torch.allclose(_outputs(foreign), _decoded(full), rtol=1e-5, atol=1e-4)


def _attribute(kind: str, name: str, values: list[int]) -> Callable[[Any], Any]:
    def change(proto: Any) -> Any:
        node = next(node for node in proto.graph.node if node.op_type == kind)
        next(attribute for attribute in node.attribute if attribute.name == name).ints[:] = values
        return proto

    return change


def _swapped(kind: str) -> Callable[[Any], Any]:
    """The first operation of a kind, with what it reads the other way round."""

    def change(proto: Any) -> Any:
        node = next(node for node in proto.graph.node if node.op_type == kind)
        node.input[:] = list(node.input)[::-1]
        return proto

    return change


def _renamed_operation(old: str, new: str) -> Callable[[Any], Any]:
    def change(proto: Any) -> Any:
        next(node for node in proto.graph.node if node.op_type == old).op_type = new
        return proto

    return change


def _elsewhere(proto: Any) -> Any:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"
    return proto


def _larger(proto: Any) -> Any:
    """A weight that tells a side of a billion and has the numbers of before."""
    proto.graph.initializer[0].dims[0] = 1 << 40
    return proto


def _no_bias(proto: Any) -> Any:
    del next(node for node in proto.graph.node if node.op_type == "Conv").input[2:]
    return proto


ONNX_CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "task": (lambda proto: _told(proto, task="segment"), "it is a model for 'segment'"),
    "names": (lambda proto: _told(proto, names="{0: 'a'}"), "names of its 3 classes are missing"),
    "operation": (_renamed_operation("Sigmoid", "HardSigmoid"), "its graph has a HardSigmoid"),
    "quantised": (_renamed_operation("Add", "DequantizeLinear"), "its graph has a DequantizeLinear"),
    "stride": (_attribute("Conv", "strides", [1, 1]), r"its Conv .* \[16, 3, 3, 3\] is at no place known"),
    "dilation": (_attribute("Conv", "dilations", [2, 2]), "is at no place known"),
    "window": (_attribute("MaxPool", "kernel_shape", [3, 3]), "is at no place known"),
    "joined the other way round": (_swapped("Concat"), "is at no place known"),
    "no shortcut": (_renamed_operation("Add", "Sub"), "is at no place known"),
    "no activation": (_renamed_operation("Mul", "Add"), "is at no place known"),
    "no bias": (_no_bias, "has no bias in the file"),
    "weights elsewhere": (_elsewhere, "its weights are in another file"),
    "weights told larger": (_larger, "shapes of no known model"),
}


@pytest.mark.parametrize("what", ONNX_CHANGES)
def test_other_onnx_graphs_are_refused(exported: Path, tmp_path: Path, what: str) -> None:
    change, told = ONNX_CHANGES[what]
    path = _saved(change(_proto(exported)), tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match=rf"other\.onnx: refused: .*{told}.*; give a YOLOv8"):
        read_yolov8(path)


def test_an_onnx_file_of_another_model(tmp_path: Path, ours: DetectionModel) -> None:
    path = _export(ours, tmp_path / "small.onnx", apart=True)
    with pytest.raises(
        CheckpointError, match=r"small\.onnx: refused: its 27 convolutions have shapes of no known model"
    ):
        read_yolov8(path)


@pytest.mark.parametrize("content", [b"", b"no onnx", bytes(range(256)) * 9])
def test_an_onnx_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("onnx")
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.onnx: .*; give a YOLOv8"):
        read_yolov8(path)


def test_an_onnx_file_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r'a\.onnx: the package onnx.*is missing; pip install "gfldet\[onnx\]"'):
        read_yolov8(tmp_path / "a.onnx")
