"""The signals that end a command: Ctrl-C, SIGTERM, SIGHUP.  Each is an exception, so that all that is open gets closed.

For the command line alone: in a user's own process these signals are the user's.
"""

from __future__ import annotations

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

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # some systems lack the last
GRACE = 3.0  # s; who asks a second time sooner asks for what is being done already


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def ending(for_good: bool) -> Iterator[None]:
    """Raise Interrupted in the main thread at the first of the signals ENDING.

    A second one is without effect, or ends the process at once if GRACE is over: what was open did not close.  Signals
    that are ignored, as SIGHUP is under nohup, stay so.  Afterwards the process has its own handlers back, unless it
    exists for this command alone (`for_good`): then a signal can no longer disturb its end.
    """
    end = _End()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # handlers are the main thread's
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: it is not Python's to set back
                before[number] = signal.signal(number, end)
    try:
        yield
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


class _End:
    """The handler; it knows since when the process ends."""

    def __init__(self) -> None:
        self._since: float | None = None

    def begin(self) -> bool:
        """Note that the process ends; whether that is new."""
        if self._since is not None:
            return False
        self._since = time.monotonic()
        return True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            leave_terminal()
        if self.begin():
            raise Interrupted(number)
        assert self._since is not None
        if time.monotonic() - self._since > GRACE:
            os._exit(128 + number)


def leave_terminal() -> None:
    """Let output and error stream lead nowhere if they led to a terminal that is gone: to write there would fail."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
