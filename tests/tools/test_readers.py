"""Every reader of a user's files ends in a value or in an error that names the file: damaged files of each kind, the
same ones in every run.  tools/fuzz tries thousands more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FAST = ["yolo", "coco", "voc", "data-yaml", "settings", "results", "images", "sources"]
SLOW = ["model-yaml", "checkpoint", "onnx", "foreign"]  # each case takes a model's while
FEW, MANY = 6, 300

Good = Callable[[str], Path]


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    """family -> the folder with its good files, made once"""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        from fuzzing.families import BY_NAME

        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            BY_NAME[family].make(made[family])
        return made[family]

    return folder


def hold(family: str, good: Path, folder: Path, cases: int) -> None:
    """Reads so many cases; hypothesis shrinks one that goes wrong to less damage."""
    from fuzzing.families import BY_NAME, run_case

    @settings(max_examples=cases, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck])
    @given(st.randoms(use_true_random=False))
    def case(chance: Random) -> None:
        run_case(BY_NAME[family], good, folder / "case", chance)

    case()


def test_every_family_is_here() -> None:
    from fuzzing.families import BY_NAME

    assert [*FAST, *SLOW] == sorted(BY_NAME, key=[*FAST, *SLOW].index)


@pytest.mark.parametrize("family", FAST)
def test_a_few_damaged_files(family: str, good: Good, tmp_path: Path) -> None:
    hold(family, good(family), tmp_path, FEW)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", [*FAST, *SLOW])
def test_many_damaged_files(family: str, good: Good, tmp_path: Path) -> None:
    hold(family, good(family), tmp_path, MANY if family in FAST else MANY // 2)


def _all_read(family: str, good: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a reader refuses a good file: then its cases would only ever show one error."""
    from fuzzing import families, mutations

    mutations.prepare(good, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(families, "attempt", lambda names, reader: reader())
    chance = _Plain()
    families.BY_NAME[family].read(folder, chance)


class _Plain(Random):
    """Chance that always takes the first."""

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def randrange(self, *limits: int) -> int:  # type: ignore[override]
        return limits[0] - 1


@pytest.mark.parametrize("family", [name for name in FAST if name != "settings"])
def test_good_files_are_read(family: str, good: Good, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _all_read(family, good(family), tmp_path / "case", monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("family", ["model-yaml", "checkpoint", "onnx"])
def test_good_models_are_read(family: str, good: Good, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _all_read(family, good(family), tmp_path / "case", monkeypatch)


def test_good_settings_are_read(good: Good) -> None:
    from gfldet.config.load import resolve

    assert resolve("train", {"cfg": good("settings") / "mine.yaml"}).imgsz == (320, 256)
