"""Batches made ahead by other processes, beside a GPU that is faster than one process can feed.

Threads share one interpreter: measured on 16 cores, eight of them make no more batches than four, and they take turns
with the thread that starts the GPU's work.  The processes are forked, so that they share the images in memory, and
nothing (a user's own augmentation, say) need be picklable.

The pixels of a batch are written to a place in memory that all processes share, from where a GPU copies them by itself:
there are as many places as batches under way, and they are used in turns.  A new piece of shared memory for each batch,
and a copy of it in pinned memory, take longer than the training step of a small model.
"""

from __future__ import annotations

import mmap
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gfldet.data.train_set import TENSORS, TrainBatch
from gfldet.machine.memory import free_memory

K = TypeVar("K")
AHEAD = 2  # batches that each process makes ahead
IN_USE = 2  # batches that whoever takes them may hold: the last one, and that before it, which a GPU may still copy


def can_fork() -> bool:
    """Whether this system makes a process as a copy of another; Windows and macOS do not, or not safely."""
    return "fork" in multiprocessing.get_all_start_methods() and sys.platform == "linux"


def fitting(workers: int, pixel_bytes: int) -> int:
    """How many of `workers` processes a half of the free memory has room for, with `pixel_bytes` a batch."""
    room = free_memory() // 2
    return max(0, min(workers, (room // max(pixel_bytes, 1) - IN_USE) // AHEAD))


def in_order_by_processes(
    make: Callable[[K], TrainBatch], keys: Iterable[K], workers: int, pixel_bytes: int, pin: bool
) -> Generator[TrainBatch, None, None]:
    """Yields make(key) for each key, in order, made by `workers` processes, at least one.

    `pixel_bytes` is the size of the images (B, H, W, 3) of the largest batch.  A batch may be used until the second
    next one is asked for.  With `pin` it lies in memory that a GPU copies from by itself.  If make(key) raises, the
    exception comes where its batch would come.
    """
    count = workers * AHEAD + IN_USE
    shared = mmap.mmap(-1, count * pixel_bytes)  # of this process and its forks; it takes memory where it is written to
    places = torch.frombuffer(shared, dtype=torch.uint8).view(count, pixel_bytes)
    loader: DataLoader[Any] = DataLoader(
        _Batches(make, places),
        sampler=enumerate(keys),  # torch hands on whatever comes out of it
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",
    )
    with warnings.catch_warnings():  # torch's processes start no threads and use no GPU, which is what it warns of
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        results = iter(loader)
    pinned = pin and _pin(places)  # after the fork: the processes have no part in it
    try:
        for result in results:
            if isinstance(result, Exception):
                raise result
            yield result.batch(places, pin)
    finally:
        del results  # it ends its processes when nobody holds it, and the traceback of an error would
        if pinned:
            with suppress(RuntimeError):  # of a GPU that has failed
                torch.cuda.synchronize()
            torch.cuda.cudart().cudaHostUnregister(places.data_ptr())


def _pin(places: Tensor) -> bool:
    """Fix the memory where it is, so that a GPU copies from it by itself; False if the system does not let us."""
    return int(torch.cuda.cudart().cudaHostRegister(places.data_ptr(), places.numel(), 0)) == 0


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch on its way: the place of its pixels, their shape (B, H, W, 3), and all else that it holds."""

    place: int
    shape: tuple[int, ...]
    rest: dict[str, NDArray[Any]]
    files: tuple[str, ...]

    def batch(self, places: Tensor, pin: bool) -> TrainBatch:
        rest = {name: torch.from_numpy(values) for name, values in self.rest.items()}
        batch = TrainBatch(images=_images(places[self.place], self.shape), files=self.files, **rest)
        return batch.pin_memory() if pin else batch  # what is fixed already, as the places are, stays where it is


def _images(place: Tensor, shape: tuple[int, ...]) -> Tensor:
    return place[: torch.Size(shape).numel()].view(shape)


class _Batches(Dataset[Any]):
    """`make`, as torch's loader asks for its results: by number and key."""

    def __init__(self, make: Callable[[K], TrainBatch], places: Tensor) -> None:
        self._make, self._places = make, places

    def __getitem__(self, numbered: tuple[int, Any]) -> _Sent | Exception:
        number, key = numbered
        try:
            batch = self._make(key)
        except Exception as error:  # torch itself would put a traceback into its message
            return error
        place, shape = number % len(self._places), tuple(batch.images.shape)
        _images(self._places[place], shape).copy_(batch.images)
        return _Sent(place, shape, {name: getattr(batch, name).numpy() for name in TENSORS[1:]}, batch.files)
