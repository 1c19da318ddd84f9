"""What is built from this checkout: a wheel that brings cfg/ along and works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gfldet

ROOT = Path(gfldet.__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel, as an installer would lay them down."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("gfldet-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_package_and_cfg_alone(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == {"gfldet", f"gfldet-{gfldet.__version__}.dist-info"}
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cfg").rglob("*.yaml")}
    assert shipped == {path.relative_to(unpacked / "gfldet").as_posix() for path in unpacked.rglob("cfg/**/*.yaml")}
    assert (unpacked / "gfldet" / "py.typed").is_file()
    page = {path.name for path in (ROOT / "gfldet" / "export" / "page").iterdir()}
    assert "index.html" in page
    assert page == {path.name for path in (unpacked / "gfldet" / "export" / "page").iterdir()}
    assert list(unpacked.glob("*.dist-info/licenses/LICENSE"))


def test_the_installed_package_finds_cfg(unpacked: Path, tmp_path: Path) -> None:
    script = (
        "import gfldet; from gfldet.config.assets import resolve_model_yaml;"
        "print(gfldet.__file__); print(*resolve_model_yaml('gfldet-s'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    where, found = done.stdout.splitlines()
    assert where == str(unpacked / "gfldet" / "__init__.py")
    assert found == f"{unpacked / 'gfldet' / 'cfg' / 'models' / 'gfldet.yaml'} s"
