"""The detection YAMLs of the YOLOv8 family, as users have them: they read here, with the family's parameter counts.

The graphs are written by their rule, with the block and the downsampling that a variant uses, and not as files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gfldet.nn import blocks
from gfldet.nn.build import read_description
from gfldet.nn.ghost_blocks import C3Ghost, GhostBottleneck, GhostConv
from gfldet.nn.tasks import DetectionModel

SCALES = {
    "n": [0.33, 0.25, 1024],
    "s": [0.33, 0.50, 1024],
    "m": [0.67, 0.75, 768],
    "l": [1.00, 1.00, 512],
    "x": [1.00, 1.25, 512],
}
# Parameters with 80 classes at the scales n, s, m, l, x.
COUNTS = {
    "yolov8": (3_157_200, 11_166_560, 25_902_640, 43_691_520, 68_229_648),
    "yolov8-p2": (3_354_144, 10_884_336, 25_082_496, 42_888_080, 66_637_536),
    "yolov8-p6": (4_984_352, 17_911_792, 44_887_488, 62_384_016, 97_423_072),
    "yolov8-ghost": (1_865_316, 5_960_072, 10_336_312, 14_277_872, 22_229_308),
    "yolov8-ghost-p2": (2_033_944, 5_562_080, 9_031_728, 12_214_448, 18_664_776),
    "yolov8-ghost-p6": (2_901_100, 9_520_008, 18_002_904, 21_227_584, 33_057_852),
}
STRIDES = {"p2": (4, 8, 16, 32), "p6": (8, 16, 32, 64)}


def family(name: str) -> str:
    """The YAML of a variant: a backbone, a way up to the finest level and a way down to the coarsest."""
    ghost, six, two = ("ghost" in name, name.endswith("p6"), name.endswith("p2"))
    down, stage = ("GhostConv", "C3Ghost") if ghost else ("Conv", "C2f")
    mixer, more = ("C2", [False]) if six and not ghost else (stage, [])
    widths = [128, 256, 512, *([768] if six else []), 1024]
    backbone: list[Any] = [[-1, 1, "Conv", [64, 3, 2]]]
    ends = []  # the last layer of each stage, finest first
    for number, width in enumerate(widths):
        backbone += [[-1, 1, down, [width, 3, 2]], [-1, 6 if 0 < number < 3 else 3, stage, [width, True]]]
        ends.append(len(backbone) - 1)
    backbone.append([-1, 1, "SPPF", [1024, 5]])
    ends[-1] = len(backbone) - 1
    finest = 0 if two else 1
    head: list[Any] = []
    levels = {len(widths) - 1: ends[-1]}
    for level in range(len(widths) - 2, finest - 1, -1):
        head += [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, ends[level]], 1, "Concat", [1]]]
        head.append([-1, 3, mixer, [widths[level], *more]])
        levels[level] = len(backbone) + len(head) - 1
    for level in range(finest + 1, len(widths)):
        head += [[-1, 1, down, [widths[level - 1], 3, 2]], [[-1, levels[level]], 1, "Concat", [1]]]
        head.append([-1, 3, mixer, [widths[level], *more]])
        levels[level] = len(backbone) + len(head) - 1
    head.append([[levels[level] for level in range(finest, len(widths))], 1, "Detect", ["nc"]])
    return yaml.safe_dump({"nc": 80, "scales": SCALES, "backbone": backbone, "head": head})


@pytest.fixture(params=COUNTS)
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.yaml"
    path.write_text(family(request.param), encoding="utf-8")
    return path


@pytest.mark.parametrize("scale", ["n", *(pytest.param(scale, marks=pytest.mark.long) for scale in "smlx")])
def test_parameters_are_those_of_the_family(variant: Path, scale: str) -> None:
    with torch.device("meta"):
        model = DetectionModel(read_description(variant, scale))
    assert model.parameter_count() == COUNTS[variant.stem]["nsmlx".index(scale)]
    assert model.strides == STRIDES.get(variant.stem[-2:], (8, 16, 32))


@pytest.mark.parametrize("name", ["yolov8-p6", "yolov8-ghost-p2"])
def test_the_new_blocks_run_fused_and_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(family(name), encoding="utf-8")
    model = DetectionModel(read_description(path, "n", nc=2)).eval()
    x = torch.rand(1, 3, 128, 64)
    with torch.no_grad():
        maps = model.graph(x)
        assert [tuple(m.shape[1:]) for m in maps] == [(66, 128 // s, 64 // s) for s in model.strides]
        model.fuse()
        for fused, plain in zip(model.graph(x), maps, strict=True):
            torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-4)


def test_c2_by_its_parts() -> None:
    """Half of the channels pass the bottlenecks, the other half goes by."""
    block = blocks.C2(8, 16, repeats=2).eval()
    x = torch.rand(1, 8, 5, 6)
    first, second = block.cv1(x).split(8, 1)
    torch.testing.assert_close(block(x), block.cv2(torch.cat((block.m[1](block.m[0](first)), second), 1)))
    assert block.m[0].add
    assert not blocks.C2(8, 16, 1, False).m[0].add


def test_ghost_blocks_by_their_parts() -> None:
    x = torch.rand(1, 8, 6, 10)
    conv = GhostConv(8, 16, 3, 2).eval()
    half = conv.cv1(x)
    torch.testing.assert_close(conv(x), torch.cat((half, conv.cv2(half)), 1))
    assert conv.cv2.conv.groups == 8
    assert conv(x).shape == (1, 16, 3, 5)
    narrow = GhostBottleneck(8, 8).eval()
    torch.testing.assert_close(narrow(x), x + narrow.conv(x))
    assert GhostBottleneck(8, 12, 3, 2)(x).shape == (1, 12, 3, 5)
    with pytest.raises(ValueError, match="8 to 12 channels and stride 1"):
        GhostBottleneck(8, 12)
    assert [type(block) for block in C3Ghost(8, 16, 2).m] == [GhostBottleneck] * 2
