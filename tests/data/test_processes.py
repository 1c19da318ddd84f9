"""Batches made by processes: what threads make, in the same order, errors at their place, nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from gfldet.data import processes
from gfldet.data.processes import can_fork, fitting, in_order_by_processes
from gfldet.data.sample import Sample
from gfldet.data.train_set import TENSORS, TrainBatch, collate
from gfldet.errors import DataError

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system does not fork")

SIDE = 8
MOST = 3  # images a batch
in_order = partial(in_order_by_processes, pixel_bytes=MOST * SIDE * SIDE * 3, pin=False)


def batch_of(key: int) -> TrainBatch:
    """A batch of 1 to MOST images and as many boxes, all of which tell the key."""
    count = key % MOST + 1
    image = np.full((SIDE, SIDE, 3), key % 256, np.uint8)
    boxes = np.full((1, 4), key, np.float32)
    sample = Sample(image, boxes, np.array([key]), boxes[:0])
    return collate([sample] * count, [f"{key}.png by {os.getpid()}"] * count)


def test_results_come_in_order_from_other_processes() -> None:
    keys = [7, 3, 5, 9, 1, 4, 0, 8, 2, 6, 30, 21]  # more than there are places
    found = []
    for key, made in zip(keys, in_order(batch_of, keys, 2), strict=True):
        expected = batch_of(key)
        assert all(getattr(made, name).tolist() == getattr(expected, name).tolist() for name in TENSORS)
        assert [file.split()[0] for file in made.files] == [f"{key}.png"] * len(made.images)
        found += [file.split()[-1] for file in made.files]
    assert len(set(found)) == 2
    assert str(os.getpid()) not in found


def test_a_batch_stays_until_the_second_next_one_is_asked_for() -> None:
    held: list[tuple[int, TrainBatch]] = []
    for key, made in enumerate(in_order(batch_of, range(40), 2)):
        held = [*held, (key, made)][-processes.IN_USE :]
        time.sleep(0.002)  # so that the processes are as far ahead as they may
        assert all((batch.images == key).all() for key, batch in held)


def test_an_exception_comes_at_its_place_as_it_was() -> None:
    def make(key: int) -> TrainBatch:
        if key == 2:
            raise DataError("two.png: cannot be read")
        return batch_of(key)

    results = in_order(make, range(5), 2)
    assert [int(next(results).cls[0, 0]), int(next(results).cls[0, 0])] == [0, 1]
    with pytest.raises(DataError, match=r"^two\.png: cannot be read$"):
        next(results)


def test_keys_are_drawn_no_faster_than_needed_and_abandoned_work_ends() -> None:
    drawn: list[int] = []
    before = set(multiprocessing.active_children())

    def keys() -> Iterator[int]:
        for key in range(10_000):
            drawn.append(key)
            yield key

    results = in_order(batch_of, keys(), 2)
    assert int(next(results).cls[0, 0]) == 0
    assert len(drawn) <= 2 * processes.AHEAD + 1
    results.close()
    until = time.monotonic() + 30  # torch waits five seconds for each, and asks the slow ones to end
    while set(multiprocessing.active_children()) - before and time.monotonic() < until:
        time.sleep(0.05)
    assert not set(multiprocessing.active_children()) - before


def test_no_more_processes_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "free_memory", lambda: 64 << 20)
    assert fitting(8, 1 << 20) == 8
    assert fitting(8, 4 << 20) == 3
    assert fitting(8, 64 << 20) == 0
