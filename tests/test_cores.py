"""How many cores there are, and how many of them are free."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import cv2
import pytest
import torch

from gfldet.machine import cores as room
from gfldet.machine import system
from gfldet.machine.cores import FreeCores, Use, cores, free_between, use_now, wait_little


def test_a_core_is_free_unless_another_program_takes_it() -> None:
    # Two cores for ten seconds: twenty seconds of cores.
    began = Use(clock=100, idle=50, own=3)
    assert free_between(began, Use(110, 70, 3), 2) == 2  # all idle
    assert free_between(began, Use(110, 50, 23), 2) == 2  # all ours
    assert free_between(began, Use(110, 60, 3), 2) == 1  # one is another's
    assert free_between(began, Use(110, 50, 13), 2) == 1  # the same, and one is ours
    assert free_between(began, Use(110, 50, 3), 2) == 1  # none is left, and one we need
    assert free_between(began, Use(110, 68, 3), 2) == 2  # a fifth of a core is nothing
    assert free_between(began, Use(110, 71, 3.2), 2) == 2  # clocks do not agree to the last
    assert free_between(began, Use(110, 80, 3), 8) == 3  # eight cores, of which others took five


def test_they_are_asked_for_anew_when_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(room, "cores", lambda: 4)
    told = [Use(0, 0, 0), Use(1, 2, 0), Use(2, 6, 0)]
    clock = [0.1, 1.0, 1.1, 2.0]
    monkeypatch.setattr(room, "use_now", lambda: told.pop(0))
    monkeypatch.setattr(room, "BEGAN", None)
    monkeypatch.setattr(time, "monotonic", lambda: clock.pop(0))
    free = FreeCores()
    assert [free() for _ in range(4)] == [4, 2, 2, 4]  # too early; two of four; too early again; all
    monkeypatch.setattr(time, "monotonic", lambda: 10.1)
    monkeypatch.setattr(room, "use_now", lambda: None)  # a system that does not tell
    assert FreeCores()() == 4
    for began, expected in ((Use(0, 0, 0), 2), (Use(-30, 0, 0), 4)):  # of a young program, and of an old one
        told = [Use(10, 20, 0), Use(10.1, 20.1, 0)]
        monkeypatch.setattr(room, "use_now", lambda told=told: told.pop(0))
        monkeypatch.setattr(room, "BEGAN", began)
        assert FreeCores()() == expected


def test_what_a_helper_uses_is_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = min(os.sched_getaffinity(0))
    (tmp_path / "77").mkdir()
    (tmp_path / "stat").write_text(f"cpu{core} 1 2 3 400 5 6\n")
    (tmp_path / "77" / "stat").write_text("77 (a (b) c) S 1 77 77 0 -1 4194304 900 0 0 0 150 50 9 9 20 0 1\n")
    monkeypatch.setattr(system, "PROC", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {core})
    monkeypatch.setattr(time, "process_time", lambda: 3.0)
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    assert use_now().own == 3.0  # type: ignore[union-attr]
    monkeypatch.setattr(room, "HELPERS", {77, 78})  # one has ended
    assert use_now().own == 5.0  # type: ignore[union-attr]
    assert use_now().idle == 4.05  # type: ignore[union-attr]


@pytest.mark.parametrize(("said", "expected"), [("3", 3), ("0", None), ("4,2", None), ("", None)])
def test_the_user_s_own_number_is_taken(monkeypatch: pytest.MonkeyPatch, said: str, expected: int | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(room, "use_now", lambda: None)
    assert FreeCores()() == (expected or cores())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_system_tells() -> None:
    before = use_now()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    after = use_now()
    assert before
    assert after
    assert after.own - before.own >= 0.05
    assert 0 <= after.idle - before.idle <= len(os.sched_getaffinity(0)) * (after.clock - before.clock) + 0.05


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"a/b/cpu.max": "max 100000"}, None),
        ({"a/b/cpu.max": "150000 100000"}, 1.5),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),  # the group above bounds it
        ({"cpu.max": "50000 100000"}, 0.5),  # a container sees its own group as the top
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),  # version 1
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/a/b/cpu.cfs_quota_us": "300000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 3),
        ({"a/b/cpu.max": "1 0"}, None),
    ],
)
def test_the_quota_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: float | None
) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("3:cpu,cpuacct:/a/b\n0::/a/b\n")
    groups = tmp_path / "groups"
    mounts = (
        f"35 31 0:32 / {groups} rw - cgroup2 cgroup2 rw\n36 31 0:33 / {groups}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    (tmp_path / "proc" / "self" / "mountinfo").write_text(mounts)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text + "\n")
    monkeypatch.setattr(system, "PROC", tmp_path / "proc")
    assert room._quota() == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores() == (8 if expected is None else max(1, int(expected)))


def test_threads_wait_asleep_unless_the_user_says_how() -> None:
    script = "import os, gfldet; print(os.environ.get('GOMP_SPINCOUNT'))"
    free = {name: value for name, value in os.environ.items() if name not in room.WAITING}

    def told(code: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env=free | variables, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert told(script) == room.SPINS
    assert told(script, GOMP_SPINCOUNT="7") == "7"
    assert told(script, OMP_WAIT_POLICY="ACTIVE") == "None"
    loaded: dict[str, str] = {}
    wait_little(loaded)  # torch is loaded here, and has read it
    assert not loaded


def test_loader_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "cores", lambda: 6)
    assert room.loader_threads(-1, on_cpu=True) == 0
    assert room.loader_threads(-1, on_cpu=False) == 3
    assert room.loader_threads(0, on_cpu=False) == 0
    assert room.loader_threads(4, on_cpu=True) == 4
    assert room.loader_threads(-1, on_cpu=False, processes=2) == 1


def test_processes_of_a_run_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "cores", lambda: 6)
    assert [room.part_of(processes)() for processes in (1, 2, 4, 9)] == [6, 3, 1, 1]


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        room.set_threads(3)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 1)
        room.set_threads(0)
        assert torch.get_num_threads() == cores()
        room.set_threads(0, lambda: 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [3, None])
def test_the_caller_s_threads_come_back(threads: int | None) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        with suppress(KeyboardInterrupt), room.threads_of(threads):
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (threads or 2, 1)
            raise KeyboardInterrupt
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
