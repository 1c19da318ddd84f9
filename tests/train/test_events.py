"""What observers are told, and what becomes of one that raises."""

from __future__ import annotations

from typing import Any

import pytest

import gfldet
from gfldet.errors import ConfigError, OutputError
from gfldet.train.events import EndReport, Observer, Observers


class Broken(Observer):
    """Raises `error` at each event but `warn`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.told = 0

    def _fail(self) -> None:
        self.told += 1
        raise self.error

    def step(self, report: Any) -> None:
        self._fail()

    def end(self, report: Any) -> None:
        self._fail()


class Counting(Observer):
    def __init__(self) -> None:
        self.steps = self.ends = 0

    def step(self, report: Any) -> None:
        self.steps += 1

    def end(self, report: Any) -> None:
        self.ends += 1


def test_an_observer_overrides_what_it_wants() -> None:
    observers = Observers((Observer(), counting := Counting()))
    told: Any = None
    for event in (observers.begin, observers.step, observers.epoch, observers.end, observers.warn):
        event(told)
    assert (counting.steps, counting.ends) == (1, 1)
    assert gfldet.Observer is Observer


def test_an_observer_that_raises_is_told_of_once_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    broken, counting = Broken(ValueError("no such host")), Counting()
    observers = Observers((broken, counting))
    told: Any = None
    for _ in range(3):
        observers.step(told)
    observers.end(EndReport("finished"))
    assert (broken.told, counting.steps, counting.ends) == (1, 3, 1)
    assert capsys.readouterr().err == (
        "warning: observer Broken: left out from here on, as it raised ValueError: no such host\n"
    )


@pytest.mark.parametrize("error", [OutputError("the disk is full"), KeyboardInterrupt(), SystemExit(3)])
def test_what_stops_a_run(error: BaseException) -> None:
    told: Any = None
    with pytest.raises(type(error)):
        Observers((Broken(error),)).step(told)


def test_the_end_is_told_to_all(capsys: pytest.CaptureFixture[str]) -> None:
    counting = Counting()
    Observers((Broken(OutputError("the disk is full")), counting)).end(EndReport("failed"))
    assert counting.ends == 1
    assert "left out from here on, as it raised OutputError: the disk is full" in capsys.readouterr().err


def test_what_is_no_observer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"observers: <built-in function print> is no Observer; make its class one"):
        Observers((print,))  # type: ignore[arg-type]


class Holding(Broken):
    """Holds something open, which it closes when it is left out, and not without a complaint."""

    def __init__(self) -> None:
        super().__init__(ValueError("no such host"))
        self.closed = 0

    def left_out(self) -> None:
        self.closed += 1
        raise OSError("closed already")


def test_an_observer_that_is_left_out_can_close_what_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    holding = Holding()
    observers = Observers((holding, Broken(OutputError("the disk is full"))))
    told: Any = None
    with pytest.raises(OutputError):
        observers.step(told)
    observers.end(EndReport("failed"))
    assert (holding.told, holding.closed) == (1, 1)
    assert "closed already" not in capsys.readouterr().err
