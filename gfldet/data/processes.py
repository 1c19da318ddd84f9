"""Batches made ahead by other processes, beside a GPU that is faster than one process can feed.

Threads share one interpreter: measured on 16 cores, eight of them make no more batches than four, and they take turns
with the thread that starts the GPU's work.  The processes are forked, so that they share the images in memory, and
nothing (a user's own augmentation, say) need be picklable.
"""

from __future__ import annotations

import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset

K = TypeVar("K")
T = TypeVar("T")
SHARED = Path("/dev/shm")  # where torch puts what processes hand to each other
AHEAD = 2  # results that each process makes ahead


def can_fork() -> bool:
    """Whether this system makes a process as a copy of another; Windows and macOS do not, or not safely."""
    return SHARED.is_dir() and "fork" in multiprocessing.get_all_start_methods()


def fitting(workers: int, result_bytes: int) -> int:
    """How many of `workers` processes the shared memory has room for, with `result_bytes` a result."""
    room = shutil.disk_usage(SHARED).free // 2
    return max(0, min(workers, (room // max(result_bytes, 1) - 2) // AHEAD))


def in_order_by_processes(
    make: Callable[[K], T], keys: Iterable[K], workers: int, pin: bool
) -> Generator[T, None, None]:
    """Yields make(key) for each key, in order, made by `workers` processes, at least one.

    With `pin` the results, which have a method `pin_memory`, lie in memory that a GPU copies from by itself.
    If make(key) raises, the exception comes where its result would come.
    """
    loader: DataLoader[T] = DataLoader(
        _Results(make),
        sampler=keys,  # torch hands on whatever comes out of it
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",
    )
    with warnings.catch_warnings():  # torch's processes start no threads and use no GPU, which is what it warns of
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        results = iter(loader)
    try:
        for result in results:
            if isinstance(result, _Raised):
                raise result.error
            yield result
    finally:
        del results  # it ends its processes when nobody holds it, and the traceback of an error would


class _Raised:
    """An exception on its way to the process that asked; torch itself would put a traceback into its message."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def pin_memory(self) -> _Raised:
        return self


class _Results(Dataset[T]):
    """`make`, as torch's loader asks for its results: by key."""

    def __init__(self, make: Callable[[K], T]) -> None:
        self._make = make

    def __getitem__(self, key: K) -> T:
        try:
            return self._make(key)  # type: ignore[arg-type]
        except Exception as error:
            return _Raised(error)  # type: ignore[return-value]
