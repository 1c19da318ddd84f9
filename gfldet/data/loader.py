"""Threads make batches ahead of the training step, in order.

Why threads and not processes: OpenCV and numpy release the GIL while they work.  All images stay in one memory (no
copies, no shared-memory limits, nothing that grows).  A user's own augmentation need not be picklable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def in_order(make: Callable[[K], T], keys: Iterable[K], workers: int, ahead: int = 2) -> Generator[T, None, None]:
    """Yields make(key) for each key, in order.

    Up to `workers` calls run at once; up to `workers` + `ahead` results are in work or waiting.  With `workers` = 0
    everything happens in the calling thread.  If make(key) raises, the exception comes where its result would come.
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
