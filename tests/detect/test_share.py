"""Which process reads what of a source, and in which order their predictions come together."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gfldet.data.sources import Entry, Remark
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


def names(ready: list[Noted | Remark]) -> list[str]:
    return [one.text if isinstance(one, Remark) else one.name for one in ready]


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
    ready = order.add([Found([], True), Found([one(1, "b"), one(3)], True, bad={5: "bad"})])
    assert names(ready) == ["b", "2", "3", "4"]
    assert order.done
    assert order.bad == {5: "bad"}


def test_remarks_come_in_order_and_those_of_a_kind_once() -> None:
    """Whichever process makes them first: 3 has read one picture ahead."""
    order = Order(2)
    ahead = [Remark(1, "of 1"), Remark(1, "like 0", "kind"), Remark(3, "of 3")]
    assert order.add([Found([], False), Found([one(1)], False, ahead)]) == []
    ready = order.add([Found([one(0), one(2)], False, [Remark(0, "of 0", "kind")]), Found([], False)])
    assert names(ready) == ["of 0", "0", "of 1", "1"]
    ready = order.add([Found([], True, [Remark(2, "of 2, twice")] * 2), Found([], True)])
    assert names(ready) == ["2", "of 2, twice", "of 2, twice", "of 3"]


def test_what_comes_after_a_failure_is_not_wanted() -> None:
    """The others go on to it, and no further; of two failures the first in the source counts."""
    order = Order(3)
    ready = order.add([Found([one(0), one(3)], False), Found([one(1)], True, failed=7), Found([], False)])
    assert (names(ready), order.done) == ([], False)
    ready = order.add([Found([], True, failed=6), Found([], True), Found([one(2), one(5)], False)])
    assert (names(ready), order.done, order.failed) == (["0", "1", "2", "3", "5"], False, 6)
    ready = order.add([Found([], True), Found([], True), Found([one(8)], False)])
    assert (names(ready), order.done) == ([], True)


@pytest.mark.parametrize("seed", range(20))
def test_any_pace_gives_the_order_of_one_process(seed: int) -> None:
    """Videos of several frames, entries that cannot be read, and processes that find as many at a time as they like."""
    chance = random.Random(seed)
    size, frames = chance.randint(1, 4), [chance.choice([0, 1, 1, 5]) for _ in range(30)]
    queues = [[one(n, f"{n}-{i}") for n in range(rank, 30, size) for i in range(frames[n])] for rank in range(size)]
    order = Order(size)
    found: list[Noted | Remark] = []
    while not order.done:
        shares = []
        for queue in queues:
            count = chance.randint(0, 6)
            some, queue[:] = queue[:count], queue[count:]
            shares.append(Found(some, not queue))
        found += order.add(shares)
    assert names(found) == [f"{n}-{i}" for n in range(30) for i in range(frames[n])]
