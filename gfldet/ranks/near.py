"""Small messages between the processes of one machine, through memory that they share.

They take microseconds where gloo, over a socket and its threads, takes half a millisecond: batch norms that go by the
images of all processes ask more than a hundred times a step.
"""

from __future__ import annotations

import os
import platform
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gfldet.errors import LostError
from gfldet.machine.shared import Offer, mapped, offered

Bytes = NDArray[np.uint8]

ROOM = 1 << 16  # bytes of a message
LINE = 64  # bytes: what a processor's core takes from memory at once
SPIN = 0.002  # s of waiting without a rest
LOOK = 0.05  # s of waiting after which it is asked whether the others are there


class Near:
    """The messages of `size` processes in the order in which all of them send: a number of the last message for each,
    then two places for each, used in turns.

    Who sends its message n has read all of n - 1, so the place of n - 2, which n takes, is read by nobody any more.
    """

    def __init__(self, memory: Bytes, rank: int, processes: Sequence[int]) -> None:
        """`processes` are the ids of all ranks; OSError where the system does not tell when one of them ends."""
        size = len(processes)
        self._rank = rank
        self._sent = memory[: size * LINE].view(np.int64)[:: LINE // 8]
        self._places = memory[size * LINE :].reshape(2, size, ROOM)
        self._number = 0
        self._ends = [os.pidfd_open(process) for number, process in enumerate(processes) if number != rank]

    def __deepcopy__(self, memo: object) -> Near:
        return self  # a model's average is a copy of it, with its norms and what these ask

    def __del__(self) -> None:
        for file in getattr(self, "_ends", ()):
            with suppress(OSError):
                os.close(file)

    @staticmethod
    def bytes_for(size: int) -> int:
        """Bytes of memory that `size` processes need."""
        return size * LINE + 2 * size * ROOM

    def exchange(self, own: Bytes) -> Bytes:
        """The messages (size, n) of all processes, from this one's (n,), n at most ROOM; LostError where one ends."""
        self._number += 1
        places = self._places[self._number % 2]
        places[self._rank, : len(own)] = own
        self._sent[self._rank] = self._number  # after the message: the processors of `near_of` keep the order of writes
        if self._sent.min() < self._number:
            self._wait()
        return places[:, : len(own)].copy()

    def _wait(self) -> None:
        began = looked = time.monotonic()
        while self._sent.min() < self._number:
            now = time.monotonic()
            if now - began < SPIN:
                os.sched_yield()
                continue
            time.sleep(1e-4)
            if now - looked > LOOK:
                looked = now
                if self._one_is_gone() and self._sent.min() < self._number:
                    raise LostError("another process of the run has ended")

    def _one_is_gone(self) -> bool:
        """Whether another process has ended, though its parent may not have noticed yet."""
        poll = select.poll()
        for file in self._ends:
            poll.register(file, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(0))


def near_of(rank: int, size: int, gathered: Callable[[Any], list[Any]]) -> Near | None:
    """What the processes of a run need to send each other small messages by shared memory; None where they cannot: on
    several machines, on other systems than Linux, and on processors that may show others its writes in another order.

    `gathered` gives each process what all of them offer; all of them call this.
    """
    able = platform.machine() in ("x86_64", "AMD64") and hasattr(os, "pidfd_open")
    own = offered(Near.bytes_for(size)) if able else None
    offers: list[Offer | None] = gathered(own)
    near = None
    if all(offers):
        with suppress(OSError, ValueError):
            memories = [mapped(offer) for offer in offers if offer]
            near = Near(memories[0], rank, [offer.process for offer in offers if offer])
    everywhere = all(gathered(near is not None))
    if own is not None:
        os.close(own.file)
    return near if everywhere else None
