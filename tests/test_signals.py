"""Signals that end a command: an exception at the first, nothing or the end at once at the second."""

from __future__ import annotations

import importlib
import os
import pty
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gfldet import signals
from gfldet.signals import Interrupted, ending, leave_terminal

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """Handlers as a process of the shell has them, whatever the tests run under; and back."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_is_an_exception_the_second_nothing(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in NUMBERS]
    closed = []

    def work() -> None:
        with ending(for_good=False):
            try:
                signal.raise_signal(number)
            finally:
                for again in NUMBERS:
                    signal.raise_signal(again)
                    closed.append(again)

    with pytest.raises(Interrupted) as caught:
        work()
    assert len(closed) == 3
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_one_that_comes_while_a_module_is_loaded_is_raised_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries in C may drop it there.  It waits once, however often it comes."""
    lines = (
        "import signal",
        "try:",
        "  for _ in range(2):",
        "    signal.raise_signal(15)",
        "except BaseException: pass",
    )
    (tmp_path / "loaded_by_a_test.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    raised = []
    with ending(for_good=False):
        try:
            importlib.import_module("loaded_by_a_test")
            time.sleep(5)
        except Interrupted as error:
            raised.append(error.number)
        time.sleep(4 * signals.AGAIN)
    assert raised == [signal.SIGTERM]


def test_who_waits_to_be_asked_waits_no_longer() -> None:
    with ending(for_good=False) as end:
        assert not end.until_asked(2 * signals.AGAIN)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        assert end.until_asked(300)


def test_who_insists_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with ending(for_good=False):
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        later = time.monotonic() + signals.GRACE + 1
        monkeypatch.setattr(time, "monotonic", lambda: later)
        signal.raise_signal(signal.SIGINT)
    assert ended == [130]


def test_what_is_ignored_stays_so() -> None:
    """As under nohup, and for Ctrl-C in what a shell starts in the background."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ending(for_good=False):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


def test_the_end_of_a_process_of_its_own_is_not_disturbed() -> None:
    with ending(for_good=True):
        pass
    for number in NUMBERS:
        signal.raise_signal(number)


def test_other_threads_leave_signals_alone() -> None:
    def work() -> list[Any]:
        with ending(for_good=False):
            return [signal.getsignal(number) for number in NUMBERS]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL]


def test_a_terminal_that_is_gone_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After it hangs up, a word to it is an error; a pipe is never left."""
    master, slave = pty.openpty()
    reader, writer = os.pipe()
    kept = [os.dup(1), os.dup(2)]
    try:
        os.dup2(slave, 1)
        os.dup2(writer, 2)
        leave_terminal()
        assert os.isatty(1)
        os.close(master)
        with pytest.raises(OSError, match="Input/output"):
            os.write(1, b"x")
        leave_terminal()
        os.write(1, b"x")
        os.write(2, b"y")
    finally:
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
    assert os.read(reader, 9) == b"y"
    for descriptor in (slave, reader, writer):
        os.close(descriptor)
