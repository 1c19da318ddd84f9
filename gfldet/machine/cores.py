"""The processor's cores that this process may use, how many of them other work leaves free, and the threads on them.

Threads that share the cores of a model wait for each other at every layer, and spin while they wait: one that another
program keeps from its core holds up all.  Measured on two cores beside one busy program, a training step of two
threads took 3.9 s, of one 1.9 s, and 1.0 s without the other program.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

from gfldet.machine import system
from gfldet.machine.system import groups_around, lines

WINDOW = 0.25  # s; over less than this the system's count of idle time, in hundredths of a second, tells too little
RECENT = 30.0  # s that tell of now
SPARE = 0.3  # of a core that others may take before it counts as theirs
SPINS = "3000"  # rounds, some microseconds: as long as the next layer takes to come
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
HELPERS: set[int] = set()  # processes that do a part of this one's work: what they use is no other work


def cores() -> int:
    """Number of cores that this process may use: those it is bound to, as far as its control group's quota goes."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return bound if quota is None else max(1, min(bound, int(quota + SPARE)))


def _quota() -> float | None:
    """Cores that the control groups around this process give it; None where they set no limit."""
    found = []
    for folder in groups_around("cpu"):
        found.append(_share(" ".join(lines(folder / "cpu.max")).split()))
        found.append(_share([*lines(folder / "cpu.cfs_quota_us"), *lines(folder / "cpu.cfs_period_us")]))  # version 1
    return min((share for share in found if share is not None), default=None)


def _share(words: list[str]) -> float | None:
    """`quota period` in microseconds -> cores; None where there is no limit, or no such file."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def part_of(processes: int) -> Callable[[], int]:
    """What tells the number of cores of each of so many processes that do one run here; it stays the same."""
    return lambda: max(1, cores() // processes)


def loader_threads(wanted: int, on_cpu: bool, processes: int = 1) -> int:
    """Threads or processes that prepare images; -1 -> none beside a model on the CPU, up to 14 beside a GPU.

    `processes` is how many of the run share this machine.

    A model on the CPU needs every core itself: measured on two cores, one thread that takes turns with them costs a
    quarter of the training speed, while making the batches in between costs a thirtieth.  Beside a GPU they are half as
    many as the cores, of which two are often one with two names: measured on 16, the process that hands out the GPU's
    work took 110 ms for a step while 14 others made batches, and 53 ms while they waited.
    """
    if wanted >= 0:
        return wanted
    return 0 if on_cpu else max(1, min(14, cores() // processes // 2))


def wait_little(environment: MutableMapping[str, str]) -> None:
    """Let the threads that torch will start spin for microseconds only, and then sleep, while they wait for each other.

    By its default libgomp spins for milliseconds, which takes a core from the thread that is waited for where other
    programs take the rest.  It reads this when torch is loaded; what the user set stays, and so does a torch that is
    loaded already.
    """
    if "torch" not in sys.modules and not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS


@dataclass(frozen=True, slots=True)
class Use:
    """What was used so far, in seconds: `clock` of time, `idle` of its cores together, `own` of its threads and
    helpers."""

    clock: float
    idle: float
    own: float


def use_now() -> Use | None:
    """None where the system does not tell of its cores one by one (Linux does)."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    rows = [line.split() for line in lines(system.PROC / "stat") if line.startswith("cpu")]
    idle = [int(row[4]) + int(row[5]) for row in rows if row[0] in mine and len(row) > 5]
    if len(idle) != len(mine):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return Use(time.monotonic(), sum(idle) / ticks, time.process_time() + _of_helpers(ticks))


def _of_helpers(ticks: int) -> float:
    """Seconds that the helpers have used."""
    told = (" ".join(lines(system.PROC / str(process) / "stat")) for process in HELPERS)
    times = [text.rpartition(")")[2].split()[11:13] for text in told]  # what follows a process's name
    return sum(int(time) for pair in times for time in pair) / ticks


def free_between(before: Use, after: Use, count: int) -> int:
    """How many of `count` cores other programs left free from `before` to `after`; 1 at least."""
    span = after.clock - before.clock
    others = max(0.0, count * span - (after.idle - before.idle) - (after.own - before.own))
    return max(1, min(count, int(count - others / span + SPARE)))


BEGAN = use_now()  # when this program read this


class FreeCores:
    """The number of free cores over the time since it was last asked for; at first, in a young program, since it began.

    It goes with what else the machine does, and the last bits of results go with it; a fixed number repeats to the bit.
    """

    def __init__(self) -> None:
        now = use_now()
        recent = now and BEGAN and now.clock - BEGAN.clock < RECENT
        self._since = BEGAN if recent else now
        self._count = cores()

    def __call__(self) -> int:
        """OMP_NUM_THREADS where the user set it; all cores while too little time has passed to tell."""
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        if wanted.isdecimal() and int(wanted):
            return int(wanted)
        since = self._since
        if since and time.monotonic() - since.clock >= WINDOW and (now := use_now()):
            self._count, self._since = free_between(since, now, cores()), now
        return self._count


def set_threads(threads: int, free: Callable[[], int] = cores) -> None:
    """`threads` (0: as many as `free` tells) for torch, one for opencv, whose work runs in threads of the loader."""
    import cv2
    import torch

    torch.set_num_threads(threads or free())
    cv2.setNumThreads(1)


@contextmanager
def threads_of(threads: int | None, free: Callable[[], int] = cores) -> Iterator[None]:
    """`set_threads` for as long as a command computes; afterwards the process has the threads that it had.

    None is for an exported file, whose engine has threads of its own: then torch is left alone, and not even loaded.
    """
    import cv2

    of_opencv = cv2.getNumThreads()
    if threads is None:
        cv2.setNumThreads(1)  # more would wait for those of the engine, which spin
        try:
            yield
        finally:
            cv2.setNumThreads(of_opencv)
        return
    import torch

    of_torch = torch.get_num_threads()
    try:
        set_threads(threads, free)
        yield
    finally:
        torch.set_num_threads(of_torch)
        cv2.setNumThreads(of_opencv)
