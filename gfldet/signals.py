"""The signals that end a command: Ctrl-C, SIGTERM, SIGHUP.  Each is an exception, so that all that is open gets closed.
One that comes while a module is loaded is raised after that.

For the command line alone: in a user's own process these signals are the user's.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE = 3.0  # s; who asks a second time sooner asks for what is being done already
AGAIN = 0.02  # s until a signal that came at a bad time comes again


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def ending(for_good: bool) -> Iterator[End]:
    """Raise Interrupted in the main thread at the first of the signals ENDING.

    A second one is without effect, or ends the process at once if GRACE is over: what was open did not close.  Signals
    that are ignored, as SIGHUP is under nohup, stay so.  Afterwards the process has its own handlers back, unless it
    exists for this command alone (`for_good`): then a signal can no longer disturb its end.
    """
    end = End()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # handlers are the main thread's
        for number in ENDING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: it is not Python's to set back
                before[number] = signal.signal(number, end)
    try:
        yield end
    finally:
        if for_good:
            end.begin()
            # Python gives up its handlers before the last libraries are closed: a signal would kill the process then.
            atexit.register(_set_handlers, dict.fromkeys(before, signal.SIG_IGN))
        else:
            _set_handlers(before)


def _set_handlers(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


class End:
    """The handler; it knows since when the process ends."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._waits = False  # for the end of an import
        self._asked = False

    def begin(self) -> None:
        """Note that the process ends, which signals disturb no longer."""
        self._since, self._waits = time.monotonic(), False

    def until_asked(self, longest: float) -> bool:
        """Wait until a signal has asked the process to end, at most so many seconds; whether one has."""
        until = time.monotonic() + longest
        while not self._asked and time.monotonic() < until:
            time.sleep(AGAIN)
        return self._asked

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if number == getattr(signal, "SIGHUP", None):
            leave_terminal()
        now = time.monotonic()
        if self._since is None:
            self._since, self._waits = now, True
        late = now - self._since > GRACE
        if not self._waits:
            if late:
                os._exit(128 + number)
        elif _imports(frame) and not late:
            _thread.start_new_thread(_again, (number,))  # not threading's, whose locks this thread may hold
        else:
            self.begin()
            raise Interrupted(number)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being loaded.  Libraries in C may drop what is raised then, or end the process by it."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _again(number: int) -> None:
    time.sleep(AGAIN)
    _thread.interrupt_main(signal.Signals(number))


def leave_terminal() -> None:
    """Let output and error stream lead nowhere if they led to a terminal that is gone: to write there would fail."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
