"""Memory that processes of this machine share, forks of one and the ranks of a run: for images and for messages.

On Linux it is a file without a name, which lives in memory alone (memfd) and goes with the last process that holds it,
however that ends.  The other ranks open it by /proc; a name that nobody can guess tells that it is the right one.
Elsewhere a process shares with its forks, and each rank has memory of its own.
"""

from __future__ import annotations

import mmap
import os
import platform
import secrets
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfldet.machine import system


@dataclass(frozen=True, slots=True)
class Offer:
    """A file in the memory of a process, which others on its machine may open, for `budget` bytes."""

    machine: str
    process: int
    file: int
    name: str
    budget: int


class Pool:
    """Memory for up to `budget` bytes of images, in the file `file`; without one, shared with forks alone.

    `left` is what is left of the budget; who takes for images counts it down.

    The system gives it page by page, as it is written to.  Processes that share a pool take the same from it in the
    same order.
    """

    def __init__(self, budget: int, file: int | None = None) -> None:
        self.left = budget
        self._file = file
        self._taken = 0
        if file is not None:
            weakref.finalize(self, os.close, file)

    def take(self, size: int) -> NDArray[np.uint8]:
        """The next `size` bytes, zeros at first; what one process writes, all of them read."""
        if size == 0:
            return np.zeros(0, np.uint8)
        if self._file is None:
            return np.frombuffer(mmap.mmap(-1, size), np.uint8)
        start, step = self._taken, mmap.ALLOCATIONGRANULARITY
        self._taken += (size // step + 1) * step  # at least a byte more than asked for
        os.pwrite(self._file, b"\0", self._taken - 1)  # lengthens the file, and never shortens it for another process
        return np.frombuffer(mmap.mmap(self._file, size, offset=start), np.uint8)


def pool(
    budget: int,
    processes: int = 1,
    gathered: Callable[[Offer | None], list[Offer | None]] = lambda own: [own],
) -> Pool:
    """Memory for `budget` bytes of images, one for all of the `processes` of a run that are on this machine.

    `gathered` gives each process of the run what all of them offer; all of them call this.  Where those of a machine
    cannot share, each has its part of the budget.
    """
    name = f"gfldet-{secrets.token_hex(8)}"
    file = _new_file(name) if budget > 0 else None
    offers = gathered(None if file is None else Offer(platform.node(), os.getpid(), file, name, budget))
    if file is None:
        return Pool(budget // processes)
    for offer in offers:
        if offer and offer.name == name:  # the first on this machine, whose file the others open
            break
        if offer and offer.machine == platform.node():
            shared = _opened(offer)
            if shared is None:
                return Pool(budget // processes, file)
            os.close(file)
            return Pool(offer.budget, shared)
    return Pool(budget, file)


def offered(size: int) -> Offer | None:
    """A new file of `size` bytes, zeros, for others to map; None on a system that has none."""
    name = f"gfldet-{secrets.token_hex(8)}"
    file = _new_file(name)
    if file is None:
        return None
    os.ftruncate(file, size)
    return Offer(platform.node(), os.getpid(), file, name, size)


def mapped(offer: Offer) -> NDArray[np.uint8]:
    """The bytes of an offer, which stay after its file was closed; OSError where this process may not open it."""
    file = _opened(offer)
    if file is None:
        raise OSError(f"{offer.name} of process {offer.process} cannot be opened from here")
    try:
        return np.frombuffer(mmap.mmap(file, offer.budget), np.uint8)
    finally:
        os.close(file)


def _new_file(name: str) -> int | None:
    with suppress(OSError, AttributeError):  # another system, or one that does not allow it
        return os.memfd_create(name)
    return None


def _opened(offer: Offer) -> int | None:
    """The file of an offer; None where this process may not open it, or if it is of a machine with the same name."""
    path = system.PROC / str(offer.process) / "fd" / str(offer.file)
    with suppress(OSError):
        if os.readlink(path).startswith(f"/memfd:{offer.name} "):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return None
