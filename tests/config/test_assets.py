"""Names of models -> files; scales; what is said of a name that leads nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gfldet.config.assets import cfg_folder, resolve_model_yaml, scales_of
from gfldet.errors import ConfigError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_cfg_folder_holds_what_ships() -> None:
    assert (cfg_folder() / "default.yaml").is_file()
    assert (cfg_folder() / "models" / "gfldet.yaml").is_file()


@pytest.mark.parametrize("scale", "nsmlx")
@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_shipped_scales(scale: str, suffix: str) -> None:
    for stem in ("gfldet", "gfldet-e2e"):
        assert resolve_model_yaml(f"{stem}-{scale}{suffix}") == (cfg_folder() / "models" / f"{stem}.yaml", scale)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("name", ["retinanet", "atss", "gfl", "gflv2"])
def test_shipped_models_without_scales(name: str, depth: int) -> None:
    assert resolve_model_yaml(f"{name}-r{depth}") == (cfg_folder() / "models" / f"{name}-r{depth}.yaml", None)


def test_a_users_file_comes_first(tmp_path: Path) -> None:
    mine = tmp_path / "gfldet-n.yaml"
    mine.write_text("backbone: []\n")
    assert resolve_model_yaml("gfldet-n.yaml") == (Path("gfldet-n.yaml"), None)
    assert resolve_model_yaml(str(mine)) == (mine, None)


def test_scales_of_a_users_file(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("scales: {a: [1, 1, 512], b: [1, 1, 512]}\n")
    assert resolve_model_yaml(f"{tmp_path}/net-b.yaml") == (tmp_path / "net.yaml", "b")
    assert resolve_model_yaml("net-a") == (Path("net.yaml"), "a")
    assert resolve_model_yaml("neta.yaml") == (Path("net.yaml"), "a")
    with pytest.raises(ConfigError, match=r"^net-c: no such model: .*, nor one of net-a, net-b, gfldet-n"):
        resolve_model_yaml("net-c")


@pytest.mark.parametrize("name", ["netb-p6", "netb-p6.yaml", "net-b-p6", "net-p6-b", "net-p6b"])
def test_the_scale_in_the_middle_of_a_name(tmp_path: Path, name: str) -> None:
    """As users of the YOLOv8 family write it: yolov8s-p6.yaml for scale s of yolov8-p6.yaml."""
    (tmp_path / "net-p6.yaml").write_text("scales: {a: [1, 1, 512], b: [1, 1, 512]}\n")
    assert resolve_model_yaml(f"{tmp_path}/{name}") == (tmp_path / "net-p6.yaml", "b")
    with pytest.raises(ConfigError, match="no such model"):
        resolve_model_yaml(f"{tmp_path}/{name.replace('b', 'c')}")


@pytest.mark.parametrize(
    ("name", "hint"), [("gfldt-n", "gfldet-n"), ("gfldet_s.yaml", "gfldet-s"), ("missing/gfldet-m.yaml", "gfldet-m")]
)
def test_unknown_model_lists_what_exists(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_model_yaml(name)
    known = "neither a file, nor public weights (gfldet weights lists them), nor one of gfldet-n, gfldet-s"
    assert str(caught.value).startswith(f"{name}: no such model: {known}")
    assert str(caught.value).endswith(f"did you mean {hint}?")


@pytest.mark.parametrize("name", ["", ".", "-", "-n", "/"])
def test_odd_names_are_unknown_models(name: str) -> None:
    with pytest.raises(ConfigError, match="no such model"):
        resolve_model_yaml(name)


def test_model_file_that_is_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("scales: [1")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        scales_of(tmp_path / "net.yaml")


@pytest.mark.parametrize(
    "name", ["x" * 300, "a\0b", "\ud800", "~nobody-here/net", "~nobody-here", "pipe.yaml", "loop/net"]
)
def test_names_that_no_file_can_have_are_unknown_models(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    Path("loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="no such model"):
        resolve_model_yaml(name)
