"""tools/kills: it sees a bit that differs; and some rows of its table, which take a minute."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet.store import checkpoint as checkpoints


@pytest.fixture
def two(trained: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Run folders that are equal but for the time."""
    for name, seconds in (("one", 1.0), ("other", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        saved = checkpoints.load(trained)
        state: dict[str, Any] = {"weights": saved.weights, "optimizer": {}, "scaler": {}, "updates": 1}
        state |= {"progress": {"seconds": seconds, "epoch": 1}, "random": torch.arange(4).byte()}
        checkpoints.save(folder / "last.pt", replace(saved, training=state))
        (folder / "results.csv").write_text(f"epoch,time,lr\n1,{seconds},0.1\n", encoding="utf-8")
        (folder / "metrics.json").write_text("{}", encoding="utf-8")
    return tmp_path / "one", tmp_path / "other"


def flip(folder: Path) -> None:
    """The last bit of one weight."""
    saved = checkpoints.load(folder / "last.pt")
    name = next(iter(saved.weights))
    saved.weights[name].reshape(-1)[3:4].view(torch.int32).bitwise_xor_(1)
    checkpoints.save(folder / "last.pt", saved)


def rate(folder: Path) -> None:
    (folder / "results.csv").write_text("epoch,time,lr\n1,7,0.3\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (flip, "last.pt: "),
        (rate, "results.csv: 1 lr"),
        (lambda folder: (folder / "metrics.json").unlink(), "metrics.json"),
        (lambda folder: (folder / ".last.pt.1.part").touch(), ".last.pt.1.part is there"),
    ],
)
def test_what_differs_is_seen(two: tuple[Path, Path], change: Callable[[Path], None], part: str) -> None:
    from measure.kills.compare import differing_bits

    assert differing_bits(*two) == {}
    change(two[1])
    found = differing_bits(*two)
    assert found
    assert all(name.startswith(part) for name in found)
    if change is flip:
        assert set(found.values()) == {1}  # in the average, and in the weights that share its numbers


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("words", ["muon --processes 2", "adamw --processes 1", "all --processes 1"])
def test_rows_of_the_table(words: str, run_tool: Callable[..., str], tmp_path: Path) -> None:
    told = run_tool("-m", "measure.kills", "--rows", *words.split(), "--out", str(tmp_path))
    # A kill that comes after the last epoch of a short run is none.
    assert re.search(r"^[1-4] kills, 0 hung", told, re.MULTILINE), told
