"""Batches ahead of the step: in order, errors at their place, nothing left running, nothing that grows."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from gfldet.data.loader import in_order


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_the_order_of_their_keys(workers: int) -> None:
    def make(key: int) -> int:
        time.sleep(0.002 * (key % 3))  # later ones are done first
        return key * key

    assert list(in_order(make, range(20), workers)) == [key * key for key in range(20)]
    assert list(in_order(make, iter([]), workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_comes_at_its_place(workers: int) -> None:
    def make(key: int) -> int:
        if key == 3:
            raise ValueError("image 3")
        return key

    got: list[int] = []
    with pytest.raises(ValueError, match="image 3"):
        got.extend(in_order(make, range(9), workers))
    assert got == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_is_made_ahead_than_asked_for(workers: int) -> None:
    made: list[int] = []
    keys = iter(range(100))
    results = in_order(lambda key: made.append(key) or key, keys, workers, ahead=2)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(made) <= workers + 2
    assert next(keys) == workers + 2  # keys are drawn no faster than results


def test_work_in_hand_overlaps() -> None:
    together = threading.Barrier(3, timeout=20)  # passes only when three threads are in `make` at once
    list(in_order(lambda key: together.wait(), range(6), workers=3))


def test_abandoned_work_is_cancelled() -> None:
    started: list[int] = []

    def make(key: int) -> int:
        started.append(key)
        time.sleep(0.01)
        return key

    results = in_order(make, range(1000), workers=2, ahead=10)
    next(results)
    results.close()  # type: ignore[attr-defined]
    after = len(started)
    assert after <= 2 + 10 + 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gfldet-loader")]
    time.sleep(0.05)
    assert len(started) == after


@pytest.mark.parametrize("workers", [0, 2])
def test_results_are_let_go(workers: int) -> None:
    class Batch:
        pass

    alive: weakref.WeakSet[Batch] = weakref.WeakSet()

    def make(key: int) -> Batch:
        batch = Batch()
        alive.add(batch)
        return batch

    most = 0
    for _ in in_order(make, range(200), workers):
        most = max(most, len(alive))
    assert most <= workers + 2 + 2  # in work, waiting, in the caller's hand and the one just made


EPOCHS = """
from pathlib import Path
import numpy as np
from gfldet.data.loader import in_order

def resident():  # bytes of this process in memory
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def make(key):
    return np.full((1 << 20,), key, np.uint8)

def epochs(count):
    for _ in range(count):
        yield sum(int(batch[0]) for batch in in_order(make, range(10), workers=2))

assert list(epochs(3)) == [45] * 3
before = resident()
assert len(list(epochs(40))) == 40  # 400 MB went through
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_memory_stays_flat_over_epochs() -> None:
    # In a process of its own: here, malloc keeps more or less as other tests have left it.
    done = subprocess.run([sys.executable, "-c", EPOCHS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20 << 20
