"""Curves drawn by a process of their own, which loads matplotlib while this one loads torch and measures.

Loading takes an eighth of the time of the command `val` otherwise, and drawing as long again.  The process runs
`serve`: it reads calls of `viz.plots` from its standard input, and ends with it.  What it does not draw is drawn here.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field

from gfldet.machine.cores import HELPERS, cores

Call = Callable[[], None]  # which can be pickled, and writes a picture


@dataclass(frozen=True, slots=True)
class _Beside:
    """The process, and what it was told to draw."""

    process: subprocess.Popen[bytes]
    told: list[Call] = field(default_factory=list)

    def draw(self, calls: Sequence[Call]) -> None:
        self.told.extend(calls)
        with suppress(OSError):  # it is gone: see `finish`
            for call in calls:
                pickle.dump(call, self.process.stdin)  # type: ignore[arg-type]
            self.process.stdin.flush()  # type: ignore[union-attr]

    def finish(self) -> None:
        """Wait until all is drawn; where that failed, for whatever reason, it is drawn here, which tells why."""
        with suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        if self.process.wait():
            for call in self.told:
                call()


_beside: ContextVar[_Beside | None] = ContextVar("_beside", default=None)


@contextmanager
def drawing_beside(wanted: bool) -> Iterator[None]:
    """While this lasts, what is drawn `meanwhile` is drawn by a process beside this one, if that is `wanted`.

    At the end it is drawn.  For a command line alone: there `sys.executable` is a Python.
    """
    if not wanted or cores() == 1 or getattr(sys, "frozen", False):  # frozen: an application, not a Python
        yield
        return
    nowhere = subprocess.DEVNULL
    program = f"import sys; sys.path[:] = {sys.path!r}; from gfldet.viz.beside import serve; serve()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere) as process:
        beside = _Beside(process)
        before = _beside.set(beside)
        HELPERS.add(process.pid)
        try:
            yield
            beside.finish()
        finally:
            HELPERS.discard(process.pid)
            _beside.reset(before)
            process.terminate()
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]


@contextmanager
def meanwhile(calls: Sequence[Call]) -> Iterator[None]:
    """Draw while this lasts, by the process beside this one; at the end of it here, where there is none."""
    beside = _beside.get()
    if beside is not None:
        beside.draw(calls)
    yield
    if beside is None:
        for call in calls:
            call()


def serve() -> None:
    """Draw what comes in on the standard input, until its end: what the process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the other process ends this one
    numbers = {getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)}

    def leave(*_: object) -> None:
        for number in numbers:  # a second one would disturb the end
            signal.signal(number, signal.SIG_IGN)
        sys.exit(1)  # which removes matplotlib's temporary folder

    for number in numbers:
        signal.signal(number, leave)
    with _held(numbers):
        tempfile.gettempdir()  # it tries whether it can write a file there, which a signal would leave
    from gfldet.viz import plots

    plots.warm_up()
    with suppress(EOFError):
        while True:
            pickle.load(sys.stdin.buffer)()  # noqa: S301 - of the process that started this one


@contextmanager
def _held(numbers: set[int]) -> Iterator[None]:
    """Let signals wait while this lasts, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
