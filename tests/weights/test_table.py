"""The list of public weights: its facts agree with themselves, and it is shown for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gfldet.errors import ConfigError
from gfldet.imports.fetch import addressed
from gfldet.weights.table import WEIGHTS, as_json, named, shown


def test_the_names_are_those_of_the_files() -> None:
    for name, weights in WEIGHTS.items():
        assert weights.name == name
        address = addressed(weights).address
        assert address.startswith("https://")
        assert address.rpartition("/")[2].startswith(name)
        assert weights.file.startswith(f"{name}.pt")
        assert weights.page.startswith("https://github.com/")


def test_only_licences_that_a_company_allows() -> None:
    assert {weights.licence for weights in WEIGHTS.values()} == {"MIT", "Apache-2.0", "BSD-3-Clause"}


def test_within_a_family_more_parameters_give_more_ap() -> None:
    for family in ("YOLOv9", "YOLOX"):
        members = [weights for weights in WEIGHTS.values() if weights.family == family]
        assert sorted(members, key=lambda w: w.parameters) == sorted(members, key=lambda w: w.ap) == members


def test_torchvisions_facts_are_torchvisions() -> None:
    detection = pytest.importorskip("torchvision.models.detection")
    published = {
        "retinanet_resnet50_fpn": detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
        "fcos_resnet50_fpn": detection.FCOS_ResNet50_FPN_Weights.COCO_V1,
    }
    for name, theirs in published.items():
        ours = WEIGHTS[name]
        assert ours.address == ""
        assert addressed(ours).address == theirs.url
        assert theirs.url.endswith(f"{ours.sha256}.pth")
        assert ours.ap == theirs.meta["_metrics"]["COCO-val2017"]["box_map"]
        assert ours.parameters == round(theirs.meta["num_params"] / 1e6, 1)
        assert ours.mebibytes == round(theirs.meta["_file_size"], 1)


@pytest.mark.parametrize(
    ("name", "near"), [("v9t", "v9-t"), ("yolox-nano", "yolox_nano"), ("YOLOX_S", "yolox_s"), ("quite else", "")]
)
def test_an_unknown_name(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named(name)
    first, second = str(caught.value).splitlines()
    assert first == f"{name}: no public weights of this name" + (f"; did you mean {near}?" if near else "")
    assert second.startswith("There are v9-t, v9-s, ")


def test_the_table(tmp_path: Path) -> None:
    (tmp_path / "v9-t.pt").write_bytes(b"x" * 3 * 1024**2)
    text = shown(tmp_path)
    for weights in WEIGHTS.values():
        lines = text.splitlines()
        row = next(i for i, line in enumerate(lines) if line.startswith(f"  {weights.name} "))
        assert lines[row + 1].strip() == (
            weights.address or "torchvision, which is installed beside, names the address"
        )
        assert lines[row].split()[1:4] == [str(weights.ap), str(weights.pixels), str(weights.parameters)]
        assert all(fits in lines[row] for fits in weights.fits)
    assert "  v9-t                    38.3  640       2.0 M    3 MiB   yes  gfldet-v9-t\n" in text
    assert text.count(" yes ") == 1
    assert str(tmp_path) in text
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 120


def test_as_json(tmp_path: Path) -> None:
    (tmp_path / "v9-t.pt").write_bytes(b"")
    rows = json.loads(as_json(tmp_path))
    assert [row["name"] for row in rows] == list(WEIGHTS)
    assert [row["path"] for row in rows[:2]] == [str(tmp_path / "v9-t.pt"), None]
    assert rows[0] | {"path": None} == {
        "name": "v9-t",
        "family": "YOLOv9",
        "licence": "MIT",
        "fits": ["gfldet-v9-t"],
        "body_only": False,
        "ap": 38.3,
        "pixels": 640,
        "parameters": 2.0,
        "address": "https://github.com/MultimediaTechLab/YOLO/releases/download/v1.0-alpha/v9-t.pt",
        "page": "https://github.com/MultimediaTechLab/YOLO",
        "mebibytes": None,
        "sha256": "",
        "path": None,
    }
