"""Model YAMLs: published parameter counts, YAMLs that users have, and every mistake told with its row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gfldet.config.assets import cfg_folder
from gfldet.errors import ConfigError
from gfldet.nn.blocks import Upsample
from gfldet.nn.build import Description, read_description
from gfldet.nn.tasks import DetectionModel

OURS = cfg_folder() / "models" / "gfldet.yaml"
PUBLISHED = {"n": 3_157_200, "s": 11_166_560, "m": 25_902_640, "l": 43_691_520, "x": 68_229_648}


@pytest.mark.parametrize("scale", "nsmlx")
def test_parameter_counts_are_the_published_ones(scale: str) -> None:
    description = read_description(OURS, scale)
    with torch.device("meta"):  # shapes without numbers: the largest would take seconds
        model = DetectionModel(description)
    assert model.parameter_count() == PUBLISHED[scale]
    assert model.strides == (8, 16, 32)
    assert description.name == f"gfldet-{scale}"


def test_a_yaml_as_users_of_this_family_have_it(tmp_path: Path) -> None:
    """Old names (`nn.Upsample`, a bare None, `Detect`) and depth_multiple in place of scales."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
nc: 5
depth_multiple: 0.33
width_multiple: 0.25
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 3, C3, [256]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 3, C2f, [512, True]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 3], 1, Concat, [1]]
  - [-1, 3, C2f, [256]]
  - [[8, 5], 1, Detect, [nc]]
""",
        encoding="utf-8",
    )
    model = DetectionModel(read_description(path))
    assert model.nc == 5
    assert model.strides == (8, 16)
    maps = model(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 69, 8, 12), (1, 69, 4, 6)]


def test_description_survives_a_checkpoint() -> None:
    description = read_description(OURS, "n", nc=7)
    assert Description.from_dict(description.to_dict()).to_dict() == description.to_dict()
    assert description.nc == 7


MISTAKES = """
nc: 0
reg_max: sixteen
scalse: {n: [1, 1, 1]}
anchors: 3
backbone:
  - [-1, 1, Convv, [8, 3, 2]]
  - [5, 1, Conv, [8, 3, 2]]
  - [-1, 0, Conv, [8]]
  - [-1, 1, Conv]
head:
  - [-1, 1, Conv, [8]]
"""


def test_every_mistake_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(MISTAKES, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_description(path)
    message = str(caught.value)
    for part in (
        str(path),
        "nc: 0; a whole number from 1",
        "reg_max: 'sixteen'",
        "unknown key 'scalse'; did you mean 'scale",
        "anchor-free",
        "row 0 [-1, 1, 'Convv', [8, 3, 2]]: unknown module 'Convv'; did you mean 'Conv'?",
        "row 1 [5, 1, 'Conv', [8, 3, 2]]: from 5",
        "row 2 [-1, 0, 'Conv', [8]]: repeats 0",
        "row 3 [-1, 1, 'Conv']: expected [from, repeats, module, args]",
        "the last row must be a detection head",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "not valid YAML"),
        ("just text", "expected keys such as backbone"),
        ("backbone: []\nhead: []", "a list of rows"),
        ("backbone: 3\nhead: 4", "a list of rows"),
    ],
)
def test_unusable_files(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=part):
        read_description(path)


def test_missing_file_and_unknown_scale(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_description(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="scale 'q' is not there; the file has n, s, m, l, x"):
        read_description(OURS, "q")


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("[-1, 1, Conv, []]", "row 1"),
        ("[-1, 1, Conv, [16, 3, 1, 0]]", "do not fit together"),
        ("[-1, 1, Conv, [16, three]]", "row 1"),
    ],
)
def test_rows_whose_arguments_do_not_work(tmp_path: Path, row: str, part: str) -> None:
    path = tmp_path / "m.yaml"
    head = "[[0, 1], 1, Concat, [1]], [-1, 1, GFLHead, [nc]]"
    path.write_text(f"backbone: [[-1, 1, Conv, [16, 3, 8]], {row}]\nhead: [{head}]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=part):
        DetectionModel(read_description(path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("Conv,", "[Conv],"), r"unknown module \['Conv'\]"),
        (("Conv,", "3,"), "unknown module 3"),
        (("Conv,", "{a: 1},"), r"unknown module {'a': 1}"),
        (("nc: 2", "nc: 2\ndepth_multiple: x"), "depth_multiple: 'x'; a number above 0 is expected"),
        (("nc: 2", "nc: 2\nwidth_multiple: .nan"), "width_multiple: nan; a number above 0"),
        (("nc: 2", "nc: 2\nmax_channels: -3"), "max_channels: -3; a number above 0"),
        (("nc: 2", "nc: 2\nscales: {n: [.nan, 1, 64]}"), r"scales.n: \[nan, 1, 64\]; expected three numbers"),
        (("nc: 2", "nc: 2\nscales: {n: [1, 0, 64]}"), r"scales.n: \[1, 0, 64\]; expected three numbers"),
        (("nc: 2", "nc: 2\nscales: {n: [1, yes, 64]}"), r"scales.n: \[1, True, 64\]; expected three numbers"),
        (("nc: 2", "nc: 2\nscales: {n: [1, 1, 64]}\nscale: [n]"), r"scale \['n'\] is not there; the file has n"),
        (("nc: 2", f"nc: {'9' * 190}"), "nc: 9+...; a whole number from 1 to 100000"),
        (("nc: 2", f"nc: {'9' * 5000}"), ":1: is not valid YAML: a number of 5000 digits"),
        (("nc: 2", "nc: 2001-99-99"), ":1: is not valid YAML: '2001-99-99' cannot be read as timestamp"),
        (("nc: 2", "nc: 2\n? [a]\n: b"), "is not valid YAML: found unhashable key"),
        (("nc: 2", "nc: 2\n2001-01-01: b"), "unknown key a date"),
        (("8, 3, 2", "8, 3, 1.5"), "row 0|do not fit together"),
        (("8, 3, 2", "8, 3, 0"), "row 0|do not fit together"),
        (("8, 3, 2", "8, x, 2"), "row 0"),
        (("8, 3, 2", "8, [3, [3]], 2"), "row 0"),
        (("8, 3, 2", "8, 3, 2, 1, 0"), "row 0"),
        (("8, 3, 2", "{a: 1}, 3, 2"), "row 0"),
    ],
)
def test_values_of_every_kind_are_told_with_the_file(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    text = "nc: 2\nreg_max: 4\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, GFLHead, [nc]]\n"
    assert change[0] in text
    path = tmp_path / "net.yaml"
    path.write_text(text.replace(change[0], change[1], 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=told) as caught:
        DetectionModel(read_description(path))
    assert "net" in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(b"nc: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"net\.yaml: is not a UTF-8 text file \(byte 4\)"):
        read_description(path)


def test_an_upsampling_before_a_concat_has_torch_s_gradient() -> None:
    torch.manual_seed(0)
    towards = torch.randn(2, 5, 8, 6).to(memory_format=torch.channels_last)
    found = []
    for kind in (Upsample, nn.Upsample):
        x = torch.linspace(-1, 1, 2 * 3 * 4 * 3).view(2, 3, 4, 3).to(memory_format=torch.channels_last).requires_grad_()
        out = torch.cat((kind(scale_factor=2.0, mode="nearest")(x), torch.ones(2, 2, 8, 6)), dim=1)
        out.backward(towards)
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1])
