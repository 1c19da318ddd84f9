"""Trees of modules that are no YOLOv8 detector are refused by what differs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gfldet.errors import CheckpointError
from gfldet.imports.registry import allowed, read_foreign
from gfldet.imports.yolov8 import tree as trees
from gfldet.store import unpickle
from gfldet.store.archive import Refusal

NAMES = ("red", "blue", "green hat")
Classes = dict[str, type[nn.Module]]


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
    with pytest.raises(CheckpointError, match=rf"other\.pt: (refused( as YOLOv8)?: )?.*({told}).*; give a YOLOv8"):
        read_foreign(tmp_path / "other.pt")


def test_the_same_numbers_many_times_over(file: Path) -> None:
    """Layers may share a record, so that a small file could ask for any amount of memory."""
    with (
        unpickle.opened(file, allowed()) as archive,
        pytest.raises(Refusal, match="more weights than the file has bytes"),
    ):
        trees.read(replace(archive, size=10_000), "small")


def test_bins_and_names_have_to_fit(tmp_path: Path, tree: Any) -> None:
    path = tmp_path / "other.pt"
    tree.names = {0: "one"}
    torch.save({"model": tree}, path)
    with pytest.raises(CheckpointError, match="the names of its 3 classes are missing or of another number"):
        read_foreign(path)
    tree.names = list(NAMES)
    torch.save({"model": tree}, path)
    assert read_foreign(path).names == NAMES
    tree.model[-1].dfl.conv.weight.data += 0.5
    torch.save({"model": tree}, path)
    with pytest.raises(CheckpointError, match="the values of its box bins"):
        read_foreign(path)


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ([1, 2], ": it holds a list, which no detector that can be read has"),
        (
            {"weights": torch.zeros(2)},
            ": it holds 1 tensors, such as 'weights', which no detector that can be read has",
        ),
        ({"model": {"a": torch.zeros(2)}}, ": it holds 1 tensors, such as 'a', which no detector"),
        (
            {"epoch": 3, "net": nn.Conv2d(1, 1, 1)},
            r": it holds the entries \['epoch', 'net'\], a torch.nn.* among them",
        ),
        (
            {"model": nn.Conv2d(1, 1, 1)},
            " as YOLOv8: its model is a torch.nn.modules.conv.Conv2d; only YOLOv8 detection",
        ),
        ({}, r": it holds the entries \[\], and no tensors by name"),
    ],
)
def test_torch_files_of_other_kinds(tmp_path: Path, saved: Any, told: str) -> None:
    torch.save(saved, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"other\.pt: refused{told}"):
        read_foreign(tmp_path / "other.pt")


def test_a_small_file_that_tells_of_a_large_model_takes_no_memory(tmp_path: Path, tree: Any) -> None:
    """Shapes are only told: weights of one number, repeated, seem to be those of 144 million."""
    for number in range(2):
        tree.model[number].conv.weight = nn.Parameter(torch.zeros(1).expand(4000, 4000, 3, 3))
    path = tmp_path / "large.pt"
    torch.save({"model": tree}, path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=r"do not make a detector .*takes more than 33,\d{3},\d{3} numbers"):
        read_foreign(path)


@pytest.mark.long
def test_reading_imports_nothing_of_torch_s_compiler(file: Path) -> None:
    """That takes as long as torch itself; a model on the device "meta" would."""
    script = (
        "import sys\nfrom gfldet.imports.start import read_start\n"
        "read_start(sys.argv[1])\nprint('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
