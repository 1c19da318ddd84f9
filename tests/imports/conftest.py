"""A small model of ours, and the files that a YOLOv8 trainer would have written of it.

The files are made here, without that program: our own model's parts are renamed to the classes that such files name,
planted in modules of these names for as long as they are pickled.
"""

from __future__ import annotations

import copy
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gfldet.imports.foreign import ForeignModel
from gfldet.nn import blocks
from gfldet.nn.build import read_description
from gfldet.nn.heads import GFLHead
from gfldet.nn.tasks import DetectionModel

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


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> DetectionModel:
    path = tmp_path_factory.mktemp("small") / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return _shaken(DetectionModel(read_description(path), NAMES))


@pytest.fixture
def ours(pristine: DetectionModel) -> DetectionModel:
    return copy.deepcopy(pristine)


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
def _decoded(model: DetectionModel) -> Tensor:
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    found = torch.as_tensor(model.float().eval()(x)[0])
    assert found.isfinite().all()
    return found


@torch.no_grad()
def _outputs(foreign: ForeignModel) -> Tensor:
    model = DetectionModel(foreign.description, foreign.names)
    model.load_state_dict(dict(foreign.weights))
    return _decoded(model)


@pytest.fixture(scope="session")
def shaken() -> Callable[[DetectionModel], DetectionModel]:
    """model -> the same, with batch norms and biases that differ from their start"""
    return _shaken


@pytest.fixture
def tree_of(classes: Classes) -> Callable[[DetectionModel], Any]:
    """model of ours -> the tree of modules in a YOLOv8 file"""
    return lambda model: _tree(model, classes)


@pytest.fixture
def decoded() -> Callable[[DetectionModel], Tensor]:
    """model -> what it gives for two images of noise"""
    return _decoded


@pytest.fixture
def outputs() -> Callable[[ForeignModel], Tensor]:
    """what was read -> what it gives for the same"""
    return _outputs


@pytest.fixture
def public() -> Callable[[str], Path]:
    """name of an environment variable -> the folder that it names; the test is skipped where it names none"""

    def folder(variable: str) -> Path:
        if not os.environ.get(variable):
            pytest.skip(f"{variable} names no folder with public files")
        return Path(os.environ[variable])

    return folder
