"""The commands that people type: they parse, name no host, and tell what is missing instead of failing midway."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import gfldet

ROOT = Path(gfldet.__file__).parents[1]
PYTHON_SCRIPTS = [
    *("tools/check", "tools/test", "tools/demo", "tools/bench", "tools/compare", "tools/reproduce", "tools/fuzz"),
    *("tools/flat", "tools/kills", "tools/large", "tools/small", "tools/tiles"),
]
SCRIPTS = [*PYTHON_SCRIPTS, "tools/browser", ".ci/run"]

pytestmark = [
    pytest.mark.skipif(not (ROOT / "tools" / "env.sh").is_file(), reason="not a checkout"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="no bash"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The scripts in a checkout without an environment."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("GFLDET_PYTHON", "PYTHON")} | variables
    return subprocess.run(["bash", *words], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_executable_and_parses(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert run("-n", str(ROOT / script)).returncode == 0


@pytest.mark.parametrize("script", [*SCRIPTS, "tools/env.sh"])
def test_script_names_no_host(script: str) -> None:
    assert not re.search(r"https?://|index-url|pypi", (ROOT / script).read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", PYTHON_SCRIPTS)
def test_no_usable_python(script: str, copy: Path) -> None:
    done = run(str(copy / script), PYTHON="false")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{Path(script).name}: no Python 3.10 or newer")
    assert "(looked at: false)" in done.stderr
    assert not (copy / ".venv").exists()


@pytest.mark.parametrize("script", PYTHON_SCRIPTS)
def test_a_named_python_that_is_not_there(script: str, copy: Path) -> None:
    for done in (
        run(str(copy / script), "--python", "/no/python"),
        run(str(copy / script), GFLDET_PYTHON="/no/python"),
    ):
        assert done.returncode == 2
        assert "/no/python: no such Python (from GFLDET_PYTHON or --python)" in done.stderr


def test_browser_says_what_to_install(tmp_path: Path) -> None:
    for name in ("dirname", "basename"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n", encoding="utf-8")
    (tmp_path / "id").chmod(0o755)
    done = subprocess.run(
        [str(shutil.which("bash")), str(ROOT / "tools" / "browser")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "what Debian has as chromium chromium-driver npm; install that" in done.stderr
