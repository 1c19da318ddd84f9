"""Curves drawn by a process beside this one: they are those drawn here, and are drawn here where that process fails."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gfldet.errors import OutputError
from gfldet.machine.cores import HELPERS
from gfldet.viz import beside
from gfldet.viz.beside import drawing_beside, meanwhile
from gfldet.viz.plots import plot_confusion


def confusion(path: Path) -> Callable[[], None]:
    return partial(plot_confusion, path, np.arange(9).reshape(3, 3), ["cat", "dog"])


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "cores", lambda: 2)


def test_both_draw_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here.png", tmp_path / "there.png"
    with meanwhile([confusion(here)]):
        assert not here.exists()  # what comes first is not kept waiting
    assert here.stat().st_size
    with drawing_beside(True):
        assert len(HELPERS) == 1
        monkeypatch.setattr("gfldet.viz.plots._figure", None)  # nothing is drawn in this process
        with meanwhile([confusion(there)]):
            pass
    assert there.read_bytes() == here.read_bytes()
    assert not HELPERS


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_killed_process_did_not_draw_is_drawn_here(tmp_path: Path, when: str) -> None:
    path = tmp_path / "a.png"
    with drawing_beside(True):
        process = beside._beside.get().process  # type: ignore[union-attr]
        for moment in ("before", "after"):
            if moment == when:
                process.send_signal(signal.SIGKILL)
                process.wait()
            if moment == "before":
                with meanwhile([confusion(path)]):
                    pass
    assert path.stat().st_size


def test_an_error_is_told_as_if_it_were_drawn_here(tmp_path: Path) -> None:
    calls = [confusion(tmp_path / "a.nothing")]
    with pytest.raises(OutputError, match="the plot cannot be written"), drawing_beside(True), meanwhile(calls):
        pass


@pytest.mark.parametrize("number", [None, signal.SIGHUP, signal.SIGTERM])
def test_an_error_of_the_work_ends_the_process_which_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals | None
) -> None:
    """Nor where a signal reaches both, as SIGHUP of a terminal that is closed."""
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    processes = []

    def work() -> None:
        with drawing_beside(True):
            processes.append(beside._beside.get().process)  # type: ignore[union-attr]
            while not list(tmp_path.iterdir()):  # matplotlib's folder, while it looks for fonts
                time.sleep(0.01)
            if number is not None:
                processes[0].send_signal(number)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    (process,) = processes
    assert process.returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("wanted", "cores"), [(False, 2), (True, 1)])
def test_there_is_none_where_it_is_of_no_use(monkeypatch: pytest.MonkeyPatch, wanted: bool, cores: int) -> None:
    monkeypatch.setattr(beside, "cores", lambda: cores)
    monkeypatch.setattr(beside.subprocess, "Popen", None)
    with drawing_beside(wanted):
        assert beside._beside.get() is None
