"""Public weights, fetched: the readers of this room say whether a download is what was listed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gfldet.config.assets import resolve_model_yaml
from gfldet.errors import CheckpointError, ConfigError
from gfldet.imports import fetch as fetching
from gfldet.imports import registry
from gfldet.imports.fetch import fetch
from gfldet.weights.table import WEIGHTS, PublicWeights


@pytest.fixture
def arriving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """A download that works, of a file which is read as (family, name of its model)."""

    def will_be(family: str, model: str) -> None:
        def download(weights: PublicWeights, prove: Callable[[Path], None], **more: Any) -> Path:
            prove(tmp_path / "part.pt")
            return tmp_path / weights.file

        foreign = SimpleNamespace(family=family, description=SimpleNamespace(name=model))
        monkeypatch.setattr(fetching, "download", download)
        monkeypatch.setattr(registry, "read_foreign", lambda path: foreign)

    return will_be


def test_the_licence_is_told(arriving: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arriving("YOLOv9", "gfldet-v9-t")
    assert fetch("v9-t") == tmp_path / "v9-t.pt"
    assert capsys.readouterr().out == (
        "licence: MIT, of its authors (https://github.com/MultimediaTechLab/YOLO); it holds for what is trained from "
        "them too\ngfldet train pretrained=v9-t starts from them\n"
    )
    fetch("v9-t", verbose=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("family", "model"), [("YOLOX", "gfldet-v9-t"), ("YOLOv9", "gfldet-v9-s")])
def test_another_family_or_size(arriving: Callable[..., None], family: str, model: str) -> None:
    arriving(family, model)
    with pytest.raises(CheckpointError) as caught:
        fetch("v9-t")
    assert str(caught.value) == (
        f"it holds weights of {family} for {model}, expected are those of YOLOv9 for gfldet-v9-t"
    )


def test_an_unknown_name_is_told_first(arriving: Callable[..., None]) -> None:
    with pytest.raises(ConfigError, match="did you mean v9-t"):
        fetch("v9t")


def test_without_torch_nothing_is_downloaded(arriving: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="v9-t: torch, which reads these weights, is not installed"):
        fetch("v9-t")


def test_what_is_listed_can_be_read() -> None:
    """A family is one of the registry's, and its models are ours: else every download would be refused."""
    readable = {family.name for family in registry.FAMILIES}
    for weights in WEIGHTS.values():
        assert weights.family.removesuffix("'s RetinaNet").removesuffix("'s FCOS") in readable
        for name in weights.fits:
            resolve_model_yaml(name)


@pytest.mark.long
@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fcos_resnet50_fpn"])
def test_torchvisions_own_files_are_what_is_listed(tmp_path: Path, name: str) -> None:
    from torchvision.models import get_model

    model = get_model(name, weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "it.pth")
    fetching._prove(tmp_path / "it.pth", WEIGHTS[name])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("v9-t-random-nc80.pt", "v9-t"),
        ("v9-s-random-nc5.pt", "v9-s"),
        ("yolox_nano-random.pth", "yolox_nano"),
        ("yolox_tiny-random.pth", "yolox_tiny"),
    ],
)
def test_a_file_in_the_public_form_is_what_is_listed(file: str, name: str) -> None:
    folder = os.environ.get("GFLDET_FOREIGN")
    if not folder:
        pytest.skip("GFLDET_FOREIGN names a folder of files in the public form")
    fetching._prove(Path(folder) / file, WEIGHTS[name])
    other = "yolox_s" if name.startswith("v9") else "v9-m"
    with pytest.raises(CheckpointError, match="it holds weights of "):
        fetching._prove(Path(folder) / file, WEIGHTS[other])
