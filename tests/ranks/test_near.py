"""Small tensors by shared memory: what gloo gives, in any order of arrival, and an end where a process is gone."""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gfldet.errors import LostError
from gfldet.ranks import near as room
from gfldet.ranks.group import Group, NearGroup

InRanks = Callable[..., list[Any]]


def tensors(rank: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rank)
    shapes: list[tuple[int, ...]] = [(), (1,), (7,), (2, 3), (257,), (4, 512), (room.ROOM // 4,), (room.ROOM,)]
    floats = [torch.randn(shape, generator=generator) for shape in shapes]
    return [*floats, floats[3].T, floats[4].double(), floats[4].to(torch.bfloat16), torch.tensor([rank, 1 << 40])]


@pytest.mark.parametrize("size", [2, 3])
def test_they_are_those_of_gloo(in_ranks: InRanks, size: int) -> None:
    def work(group: Group) -> list[Tensor]:
        near = group.near()
        assert isinstance(near, NearGroup)
        found = []
        for ranks in (group, near):
            found.append(
                [given for tensor in tensors(group.rank) for given in (ranks.stacked(tensor), ranks.sum(tensor))]
            )
        return found  # type: ignore[return-value]

    for plain, by_memory in in_ranks(work, size):
        assert len(plain) == len(by_memory) == 24
        for expected, given in zip(plain, by_memory, strict=True):
            assert expected.dtype == given.dtype
            near = 0.02 if given.dtype == torch.bfloat16 else 1e-6
            torch.testing.assert_close(given, expected, rtol=near, atol=near)


def test_no_message_is_lost_or_doubled_whoever_is_late(in_ranks: InRanks) -> None:
    def work(group: Group) -> list[int]:
        near, pauses = group.near(), random.Random(group.rank)
        found = []
        for number in range(400):
            if pauses.random() < 0.05:
                time.sleep(0.004 * pauses.random())
            found.append(int(near.sum(torch.tensor(number * 10 ** (3 * group.rank)))))
        return found

    for found in in_ranks(work, 3):
        assert found == [number * 1_001_001 for number in range(400)]


def test_a_process_that_ends_is_noticed_at_once(in_ranks: InRanks) -> None:
    def work(group: Group) -> float:
        near = group.near()
        copy.deepcopy(near)  # and forget it
        near.sum(torch.ones(3))
        time.sleep(0.3 * group.rank)
        near.sum(torch.ones(3))  # who is late has not ended
        if group.rank == 1:
            raise KeyError("this one ends")
        began = time.monotonic()
        with pytest.raises(LostError, match="another process of the run has ended"):
            near.sum(torch.ones(3))
        os.write(told, str(time.monotonic() - began).encode())
        return 0.0

    heard, told = os.pipe()
    with pytest.raises(AssertionError, match="this one ends"):
        in_ranks(work)
    assert float(os.read(heard, 100)) < 5
    os.close(heard)
    os.close(told)


@pytest.mark.parametrize("without", ["pidfd_open", "memfd_create"])
def test_where_they_cannot_share_gloo_does_it(in_ranks: InRanks, without: str) -> None:
    def work(group: Group) -> tuple[bool, float]:
        if group.rank == 1:  # one alone that cannot is enough
            delattr(os, without)
        near = group.near()
        return isinstance(near, NearGroup), float(near.sum(torch.tensor(group.rank + 1.0)))

    assert in_ranks(work) == [(False, 3.0), (False, 3.0)]
