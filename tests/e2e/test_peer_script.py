"""A script with the habits of ultralytics' users runs here as it is."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.long
def test_a_script_of_the_peers_user(
    checkpoint: Callable[..., Path], dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(train=4, val=2)
    monkeypatch.chdir(tmp_path)
    script = Path(__file__).with_name("peer_script.py")
    monkeypatch.setattr("sys.argv", [str(script), str(checkpoint()), str(data.yaml), str(data.images / "val")])
    runpy.run_path(str(script), run_name="__main__")
