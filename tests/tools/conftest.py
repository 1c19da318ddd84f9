"""What the tests of the tools share: the folder tools/ of a checkout on the path.  Without a checkout none runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import gfldet

TOOLS = Path(gfldet.__file__).parents[1] / "tools"


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (TOOLS / "measure").is_dir():
        pytest.skip("not a checkout")
    monkeypatch.syspath_prepend(str(TOOLS))
