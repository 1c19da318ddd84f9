"""Batches made by processes: what threads make, in the same order, errors at their place, nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gfldet.data import processes
from gfldet.data.processes import can_fork, fitting, in_order_by_processes
from gfldet.errors import DataError

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system does not fork")


def test_results_come_in_order_from_other_processes() -> None:
    numbers = [7, 3, 5, 9, 1]
    made = list(in_order_by_processes(lambda key: (key, torch.full((3,), key), os.getpid()), numbers, 2, pin=False))
    assert [(key, tensor.tolist()) for key, tensor, _ in made] == [(key, [key] * 3) for key in numbers]
    assert os.getpid() not in {process for _, _, process in made}


def test_an_exception_comes_at_its_place_as_it_was() -> None:
    def make(key: int) -> Tensor:
        if key == 2:
            raise DataError("two.png: cannot be read")
        return torch.tensor(key)

    results = in_order_by_processes(make, range(5), 2, pin=False)
    assert [int(next(results)), int(next(results))] == [0, 1]
    with pytest.raises(DataError, match=r"^two\.png: cannot be read$"):
        next(results)


def test_keys_are_drawn_no_faster_than_needed_and_abandoned_work_ends() -> None:
    drawn: list[int] = []
    before = set(multiprocessing.active_children())

    def keys() -> Iterator[int]:
        for key in range(10_000):
            drawn.append(key)
            yield key

    results = in_order_by_processes(torch.tensor, keys(), 2, pin=False)
    assert int(next(results)) == 0
    assert len(drawn) <= 2 * processes.AHEAD + 1
    results.close()
    until = time.monotonic() + 30  # torch waits five seconds for each, and asks the slow ones to end
    while set(multiprocessing.active_children()) - before and time.monotonic() < until:
        time.sleep(0.05)
    assert not set(multiprocessing.active_children()) - before


def test_no_more_processes_than_shared_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 64 << 20  # what containers often have

    monkeypatch.setattr(processes.shutil, "disk_usage", lambda path: Usage)
    assert fitting(8, 1 << 20) == 8
    assert fitting(8, 4 << 20) == 3
    assert fitting(8, 64 << 20) == 0
