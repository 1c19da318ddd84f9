"""Processes that are gone are noticed, however they ended: each gives signs of life in the store that all share, and
looks whether the launcher that started it is still there."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from gfldet.ranks.place import LAUNCHED

BEAT = 5.0  # s from one sign of life to the next
SILENCE = 40.0  # s without one after which a process counts as gone
BEGAN = os.getpid(), os.getppid()  # when this program read this
HOW_TO_GO_ON = "a training goes on from its last whole epoch with gfldet train resume=RUN"
LOOK = 1.0  # s from one look at the launcher to the next


class Store(Protocol):
    """What is used of torch's stores."""

    def add(self, key: str, amount: int, /) -> int: ...


class Watch:
    """Counts in the store for this process, and looks at the counts of others: rank 0 at all, each other at rank 0.

    A process that finds another silent ends at once, without its main thread: that may wait for the silent one forever.
    """

    def __init__(
        self, store: Store, rank: int, size: int, then: str = "", beat: float = BEAT, silence: float = SILENCE
    ) -> None:
        """`then` says how to go on after such an end."""
        self._store, self._rank, self._then, self._beat, self._silence = store, rank, then, beat, silence
        now = time.monotonic()
        self._counts: dict[int, int] = {}
        self._heard = dict.fromkeys(range(1, size) if rank == 0 else (0,), now)
        self._over = threading.Event()

    def count(self) -> None:
        """Give signs of life and take those of others, until `stop`.  The store may keep a call waiting."""
        while not self._over.wait(self._beat):
            self.hear()

    def hear(self) -> None:
        """Give one sign of life, and take those of others."""
        with suppress(RuntimeError):  # the store went with its process: then nothing is heard
            self._store.add(f"alive/{self._rank}", 1)
            for rank in self._heard:
                count = self._store.add(f"alive/{rank}", 0)
                if self._counts.get(rank) != count:
                    self._counts[rank], self._heard[rank] = count, time.monotonic()

    def look(self) -> None:
        """End the process when another was silent for too long, until `stop`."""
        while not self._over.wait(self._beat):
            silent = self.silent()
            if silent and not self._over.is_set():
                self.end(silent)

    def silent(self) -> list[int]:
        """The ranks of which nothing was heard for too long."""
        now = time.monotonic()
        return [rank for rank, since in self._heard.items() if now - since > self._silence]

    def stop(self) -> None:
        self._over.set()

    def end(self, silent: list[int]) -> None:
        """Tell which ranks are silent, and end the process."""
        ranks = ", ".join(map(str, silent))
        end_at_once(f"rank {self._rank}: no sign of life of rank {ranks} for {self._silence:.0f} s", self._then)


def end_at_once(why: str, then: str) -> None:
    """End the process without its main thread, which may wait for ever; tell why, unless that is empty, and what to do
    `then`."""
    if why:
        words = "; ".join(filter(None, (f"gfldet: the work failed: {why}, so this process ends too", then)))
        with suppress(OSError):
            print(words, file=sys.__stderr__, flush=True)
    os._exit(1)


@contextmanager
def bound_to_launcher(rank: int, tells: bool, then: str) -> Iterator[None]:
    """End this process soon after the launcher that started it, if one did, while this lasts.

    Else it would train on where nobody sees it, and keep its run from being resumed.  `tells`: whether it says why, and
    what to do `then`.
    """
    over = threading.Event()
    launcher = BEGAN[1] if BEGAN[0] == os.getpid() else os.getppid()  # a copy of a process has another parent

    def look() -> None:
        while not over.wait(LOOK):
            if os.getppid() != launcher:
                end_at_once(f"rank {rank}: the launcher that started it is gone" if tells else "", then)

    if LAUNCHED in os.environ:
        threading.Thread(target=look, name="gfldet-launcher", daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def watching(store: Store, rank: int, size: int, then: str) -> Iterator[None]:
    """Keep a `Watch` in threads of its own while this lasts."""
    watch = Watch(store, rank, size, then)
    for work in (watch.count, watch.look):
        threading.Thread(target=work, name="gfldet-watch", daemon=True).start()
    try:
        yield
    finally:
        watch.stop()
