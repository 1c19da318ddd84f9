"""Which process reads what of a source, and in which order their predictions come together."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gfldet.data.sources import Entry
from gfldet.detect.lists import Noted
from gfldet.detect.share import Found, Order, own_entries
from gfldet.ops.detections import Detections
from gfldet.ranks.value import Ranks

NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def entries(kinds: str) -> list[Entry]:
    """A letter for each: p picture, v video."""
    return [Entry(f"{n}", f"{n}", "video" if kind == "v" else "image") for n, kind in enumerate(kinds)]


def one(entry: int, name: str = "") -> Noted:
    return Noted(entry, name or str(entry), "", "", True, 1, 1, NOTHING, "")


def owned(kinds: str, size: int, track: bool = False) -> list[list[int]]:
    source = entries(kinds)
    shares = [own_entries(source, track, Ranks(rank, size)) for rank in range(size)]
    return [[number for number in range(len(source)) if number in share] for share in shares]


def test_pictures_and_videos_are_dealt_out_apart() -> None:
    """Alternating with pictures, all videos would go to one process."""
    assert owned("vpvpvp", 2) == [[0, 1, 4, 5], [2, 3]]
    assert owned("ppppp", 3) == [[0, 3], [1, 4], [2]]
    assert owned("v", 3) == [[0], [], []]


def test_pictures_that_are_tracked_stay_together() -> None:
    assert owned("vvv", 2, track=True) == [[0, 2], [1]]
    assert owned("vpp", 2, track=True) == [[0, 1, 2], []]


def test_a_prediction_waits_for_those_before_it() -> None:
    order = Order(2)
    assert order.add([Found([one(0), one(2)], False), Found([], False)]) == []  # 1 is to come
    ready = order.add([Found([one(4)], True), Found([one(1)], False)])
    assert [found.entry for found in ready] == [0, 1]  # of 1, a video, there may be more
    assert not order.done
    ready = order.add([Found([], True), Found([one(1, "b"), one(3)], True, {5: "bad"})])
    assert [found.name for found in ready] == ["b", "2", "3", "4"]
    assert order.done
    assert order.bad == {5: "bad"}


@pytest.mark.parametrize("seed", range(20))
def test_any_pace_gives_the_order_of_one_process(seed: int) -> None:
    """Videos of several frames, entries that cannot be read, and processes that find as many at a time as they like."""
    chance = random.Random(seed)
    size, frames = chance.randint(1, 4), [chance.choice([0, 1, 1, 5]) for _ in range(30)]
    queues = [[one(n, f"{n}-{i}") for n in range(rank, 30, size) for i in range(frames[n])] for rank in range(size)]
    order, found = Order(size), []
    while not order.done:
        shares = []
        for queue in queues:
            count = chance.randint(0, 6)
            some, queue[:] = queue[:count], queue[count:]
            shares.append(Found(some, not queue))
        found += order.add(shares)
    assert [each.name for each in found] == [f"{n}-{i}" for n in range(30) for i in range(frames[n])]
