"""Batches made ahead of the training step, in order, by threads.

Threads and not processes: opencv and numpy release the interpreter while they work, images stay in one memory (no
copies, no shared-memory limits, nothing that grows), and a user's own augmentation need not be picklable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def in_order(make: Callable[[K], T], keys: Iterable[K], workers: int, ahead: int = 2) -> Iterator[T]:
    """make(key) for each key, in order; up to `workers` at once and `ahead` results waiting beyond those in work.

    With `workers` = 0 everything happens in the calling thread.  An exception of `make` comes out at its key's place.
    """
    if workers == 0:
        yield from map(make, keys)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="gfldet-loader") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for key in keys:
                waiting.append(pool.submit(make, key))
                if len(waiting) >= workers + ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
