"""What the tests of the tools share: the folder tools/ of a checkout on the path, here and in processes of their own.
Without a checkout none runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gfldet

TOOLS = Path(gfldet.__file__).parents[1] / "tools"


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (TOOLS / "measure").is_dir():
        pytest.skip("not a checkout")
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.fixture
def run_tool() -> Callable[..., str]:
    """Python's words, as -m measure.kills -> what it prints; a process that fails fails the test"""

    def run(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TOOLS), str(TOOLS.parent)))}
        done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
