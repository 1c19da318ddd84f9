"""A command that torchrun starts again finds the run that it began."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gfldet.ranks.value import ONE
from gfldet.train import elastic

AGAIN = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "environ", {**os.environ, **AGAIN})
    for number, name in enumerate(("older", "own", "other", "plain")):
        (tmp_path / name / "weights").mkdir(parents=True)
        if name != "plain":
            mark = tmp_path / name / elastic.MARK
            mark.write_text("none elsewhere 1 1\n" + (elastic.launcher(AGAIN) if name != "other" else ""))
            os.utime(mark, (number, number))
    return tmp_path


def test_the_newest_of_the_same_launcher(project: Path) -> None:
    assert elastic.own_run(str(project), False, ONE, AGAIN) == project / "own"
    elastic.remove_mark(project / "own", ONE)
    assert elastic.own_run(str(project), False, ONE, AGAIN) == project / "older"
    elastic.remove_mark(project / "older", ONE)
    assert elastic.own_run(str(project), False, ONE, AGAIN) is None


def test_a_run_that_was_resumed_elsewhere(project: Path, tmp_path: Path) -> None:
    for given in ("own", "own/weights", "own/weights/last.pt"):
        assert elastic.own_run(str(tmp_path / "none"), str(project / given), ONE, AGAIN) == project / "own"


@pytest.mark.parametrize(
    "environment", [{}, {"TORCHELASTIC_RUN_ID": "none"}, {**AGAIN, "TORCHELASTIC_RESTART_COUNT": "0"}]
)
def test_a_first_start_begins_anew(project: Path, environment: dict[str, str]) -> None:
    assert elastic.own_run(str(project), False, ONE, environment) is None


def test_how_it_goes_on(project: Path) -> None:
    folder = project / "own"
    anew = {"resume": False, "project": str(project), "name": "own", "exist_ok": True}
    assert elastic.to_go_on(folder) == anew
    (folder / "weights" / "last.pt").write_bytes(b"x")
    assert elastic.to_go_on(folder) == {"resume": str(folder)}


def test_the_mark_is_left_under_torchrun_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elastic.leave_mark(tmp_path, ONE)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(elastic, "launcher", lambda: "this one")
    elastic.leave_mark(tmp_path, ONE)
    assert (tmp_path / elastic.MARK).read_text() == "this one"
