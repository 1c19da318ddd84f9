"""What processes tell each other: values, errors, warnings, what differs between them; and that one is gone."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from gfldet.data.eval_set import EvalSet
from gfldet.data.image_store import ImageStore
from gfldet.data.images import ImageError
from gfldet.data.records import Record, Split
from gfldet.data.sources import Unreadable
from gfldet.detect.detector import Selection
from gfldet.detect.torch_detector import TorchDetector
from gfldet.detect.validate import validate
from gfldet.errors import ConfigError, DataError, GfldetError, LostError, WorkError
from gfldet.machine.shared import Pool
from gfldet.nn.tasks import DetectionModel
from gfldet.ranks import watch as watching
from gfldet.ranks.group import Group
from gfldet.ranks.place import LAUNCHED
from gfldet.ranks.value import ONE, Ranks
from gfldet.ranks.voice import Voice, speaking
from gfldet.ranks.watch import Watch, bound_to_launcher

InRanks = Callable[..., list[Any]]


def test_sums_shares_and_values(in_ranks: InRanks) -> None:
    def work(ranks: Group) -> Any:
        total = ranks.sum(torch.tensor([1.0, ranks.rank]))
        rows = ranks.stacked(torch.tensor([[ranks.rank, 1]], dtype=torch.bfloat16))
        shares = ranks.share(range(5)), ranks.share(np.arange(5)).tolist()
        return total.tolist(), rows.tolist(), rows.shape, shares, ranks.gathered(ranks.rank), ranks.of_first(os.getpid)

    first, second = in_ranks(work)
    assert first[:3] == second[:3] == ([2.0, 1.0], [[[0, 1]], [[1, 1]]], (2, 1, 2))
    assert first[3] == (range(0, 5, 2), [0, 2, 4])
    assert second[3] == (range(1, 5, 2), [1, 3])
    assert first[4] == second[4] == [0, 1]
    assert first[5] == second[5]


def caught(work: Callable[[], Any]) -> Any:
    """The class of an error, its text, and whether another process tells it."""
    try:
        return work()
    except GfldetError as error:
        return type(error), str(error), error.told
    except KeyError as error:
        return type(error)


def fails(kind: Callable[[str], Exception]) -> Any:
    raise kind("no such thing")


def test_an_error_of_one_is_an_error_of_all(in_ranks: InRanks) -> None:
    def work(ranks: Group) -> Any:
        return [
            caught(lambda: ranks.of_first(lambda: fails(DataError))),
            caught(lambda: ranks.together(lambda: fails(DataError) if ranks.leads else 1)),
            caught(lambda: ranks.together(lambda: fails(ConfigError) if not ranks.leads else 1)),
            caught(lambda: ranks.together(lambda: fails(ConfigError))),
            caught(lambda: ranks.together(lambda: fails(KeyError) if not ranks.leads else 1)),
            caught(lambda: ranks.together(lambda: fails(partial(ImageError, "a.jpg")) if ranks.leads else 1)),
            caught(lambda: ranks.of_first(lambda: fails(Unreadable))),
        ]

    first, second = in_ranks(work)
    assert first[0] == (DataError, "no such thing", False)
    assert second[0] == (DataError, "no such thing", True)
    assert first[1] == (DataError, "no such thing", False)
    assert second[1][0] is DataError
    assert second[1][2]
    assert first[2][0] is ConfigError
    assert first[2][1].startswith("rank 1 on ")
    assert first[2][1].endswith(": no such thing")
    assert [first[2][2], second[2][2]] == [False, True]
    assert [first[3], second[3]] == [(ConfigError, "no such thing", told) for told in (False, True)]
    assert first[4][0] is WorkError
    assert "KeyError: 'no such thing'" in first[4][1]
    assert second[4] is KeyError
    assert first[5] == (ImageError, "a.jpg: no such thing", False)
    assert (second[5][0], second[5][2]) == (DataError, True)  # of a kind that takes a text
    assert second[5][1].endswith(": a.jpg: no such thing")
    assert [first[6], second[6]] == [(Unreadable, "no such thing", told) for told in (False, True)]


def test_what_differs_is_named(in_ranks: InRanks) -> None:
    def work(ranks: Group) -> Any:
        ranks.check_same("nothing", lambda: {"a": 1})
        return caught(lambda: ranks.check_same("settings", lambda: {"a": 1, "b": ranks.rank, "c": "x"}))

    kind, text, told = in_ranks(work)[0]
    assert (kind, told) == (ConfigError, False)
    assert text.startswith("The processes of the run differ in settings:\n  b: 1 for rank 1 on ")
    assert "a:" not in text
    assert "c:" not in text


def warn_of(message: str) -> None:
    if message:
        print(f"warning: {message}", file=sys.stderr)


def test_warnings_of_others_are_told_once(in_ranks: InRanks) -> None:
    def work(ranks: Group) -> str:
        stream = io.StringIO()
        with redirect_stderr(stream), speaking(ranks.leads) as voice:
            group = Group(ranks.rank, ranks.size, 2, "cpu", voice)
            for warnings in (("both", "both"), ("", "mine"), ("", "mine")):
                group.together(partial(warn_of, warnings[group.rank]))
            print("a line", file=sys.stderr)
        return stream.getvalue()

    assert in_ranks(work) == ["warning: both\nwarning: rank 1: mine\na line\n", ""]


def test_what_nobody_took_is_told_at_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with speaking(leads=False):
            print("a line")
            print("warning: of this process", file=sys.stderr)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert capsys.readouterr() == ("", "warning: of this process\n")


def test_a_voice_takes_each_warning_once() -> None:
    voice = Voice()
    for text in ("warning: a\n", "no warning", "warning: a", "\n"):
        voice.hear(text)
    assert voice.taken() == ["warning: a"]
    assert voice.taken() == []


def test_a_rank_that_is_gone(in_ranks: InRanks) -> None:
    def work(ranks: Group) -> Any:
        if ranks.rank:
            return None  # the connection closes with the process
        time.sleep(0.1)
        return caught(lambda: [ranks.sum(torch.zeros(1)) for _ in range(9)])

    assert in_ranks(work)[0][0] is LostError


class Counts:
    """A store in this process; rank 1 stops to count after a while."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def add(self, key: str, amount: int) -> int:
        self.values[key] = self.values.get(key, 0) + amount
        return self.values[key]


class Noted(Watch):
    """A watch that notes whom it misses instead of ending this process."""

    missed: list[int] = []  # noqa: RUF012

    def end(self, silent: list[int]) -> None:
        self.missed = silent
        self.stop()


def test_a_silent_rank_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By rank 0, which looks at all; the others look at rank 0 alone."""
    now = 100.0
    monkeypatch.setattr(watching.time, "monotonic", lambda: now)
    store = Counts()
    first, second, third = watches = [Watch(store, rank, 3, silence=30) for rank in range(3)]
    for _ in range(5):
        now += 20
        for watch in (*watches, first):  # who hears of the last
            watch.hear()
        assert [watch.silent() for watch in watches] == [[], [], []]
    for _ in range(2):
        now += 20
        first.hear()
        third.hear()
        first.hear()
    assert (first.silent(), third.silent()) == ([1], [])
    now += 40
    assert (first.silent(), second.silent()) == ([1, 2], [0])


def test_a_store_that_is_gone_is_noticed() -> None:
    class Gone(Counts):
        def add(self, key: str, amount: int) -> int:
            raise RuntimeError("connection reset")

    watch = Noted(Gone(), 1, 2, beat=0.01, silence=0.05)
    counting = threading.Thread(target=watch.count)
    counting.start()
    watch.look()
    counting.join()
    assert watch.missed == [0]


@pytest.mark.parametrize("size", [2, pytest.param(5, marks=pytest.mark.long)])  # of five, one has no batch
def test_a_shared_validation_is_that_of_one(in_ranks: InRanks, spread_model: DetectionModel, size: int) -> None:
    rng = np.random.default_rng(0)
    images = {f"{n}": rng.integers(0, 255, (64, 64 + 32 * (n % 3), 3), np.uint8) for n in range(7)}
    truths = np.array([[4, 4, 40, 40]], np.float32)
    records = tuple(
        Record(n, n, n, image.shape[1], 64, truths, np.zeros(1, np.int64), np.zeros((0, 4), np.float32))  # type: ignore[arg-type]
        for n, image in images.items()
    )
    split = Split("val", records, ("red", "blue"), (0, 1))
    data = EvalSet(
        split, ImageStore((64, 128), Pool(1 << 20), lambda record: images[record.file_name]), (64, 128), 2, 32
    )

    def work(ranks: Ranks) -> Any:
        # The other evaluator has threads, which a fork leaves behind.
        found = validate(TorchDetector(spread_model), data, Selection(), 0, "pycocotools", ranks=ranks)
        return found.metrics.to_dict(), [column.tolist() for column in vars_of(found.detections)]

    def vars_of(table: Any) -> list[Any]:
        return [table.image, table.classes, table.boxes, table.scores]

    alone = work(ONE)
    assert len(alone[1][0]) > 20
    first, *others = in_ranks(work, size)
    assert repr(first) == repr(alone)
    assert all(repr(metrics) == repr(alone[0]) and not any(columns) for metrics, columns in others)


@pytest.mark.parametrize(("tells", "told"), [(True, "rank 3: the launcher that started it is gone"), (False, "")])
def test_a_launcher_that_is_gone_is_noticed(tells: bool, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[tuple[str, ...]] = []
    monkeypatch.setattr(watching, "LOOK", 0.005)
    monkeypatch.setattr(watching, "end_at_once", lambda *words: ends.append(words))
    with bound_to_launcher(3, tells, "go on"):  # nobody's process
        monkeypatch.setattr(os, "getppid", lambda: 1)
        time.sleep(0.03)
    assert ends == []
    monkeypatch.setenv(LAUNCHED, "none")
    monkeypatch.setattr(watching, "BEGAN", (os.getpid(), 1))
    with bound_to_launcher(3, tells, "go on"):
        time.sleep(0.03)
        assert ends == []
        monkeypatch.setattr(os, "getppid", lambda: 77)
        time.sleep(0.1)
    assert ends
    assert set(ends) == {(told, "go on")}
