"""What is told of processes that failed, as torch's launcher names them."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed.launcher.api as launcher
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from gfldet import launch as launching
from gfldet.errors import ConfigError, WorkError
from gfldet.launch import launch
from gfldet.signals import Interrupted


def failing(codes: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> dict[int, ProcessFailure]:
    """Let the launcher find that these ranks have ended with these codes, at one look, and so at one time."""
    failures = {rank: ProcessFailure(rank, 1000 + rank, code, "") for rank, code in codes.items()}
    for failure in failures.values():
        failure.timestamp = 1

    def run(*_: Any) -> None:
        raise ChildFailedError("gfldet", failures)

    monkeypatch.setattr(launcher, "elastic_launch", lambda *_: run)
    monkeypatch.setattr(launcher, "LaunchConfig", SimpleNamespace)
    return failures


@pytest.mark.parametrize("codes", [{0: 1, 1: -9}, {0: -9, 1: 1}, {1: -9}])
def test_who_was_killed_is_told_also_where_another_noticed_first(
    codes: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(codes, monkeypatch)
    rank = next(rank for rank, code in codes.items() if code < 0)
    with pytest.raises(WorkError, match=f"rank {rank} of 2 was ended by SIGKILL"):
        launch(2, ["train"])


def test_an_error_that_a_process_told_itself_is_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    failing({0: 2, 1: 2}, monkeypatch)
    assert launch(2, ["train"]) == 2


def test_a_signal_that_a_process_got_is_told_as_one_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    failing({1: 128 + signal.SIGTERM}, monkeypatch)
    with pytest.raises(Interrupted) as caught:
        launch(2, ["train"])
    assert caught.value.number == signal.SIGTERM


def test_who_did_not_end_when_asked_to_is_not_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = failing({0: -9, 1: 128 + signal.SIGTERM}, monkeypatch)
    failures[0].timestamp += 30  # torch kills it then
    with pytest.raises(Interrupted):
        launch(2, ["train"])
    failures[1].exitcode = 2
    assert launch(2, ["train"]) == 2


def test_how_to_go_on_is_told_of_a_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    failing({1: -9}, monkeypatch)
    with pytest.raises(WorkError, match="were ended too; a training goes on"):
        launch(2, ["train"])
    with pytest.raises(WorkError, match=r"were ended too$"):
        launch(2, ["predict"])


def test_without_torch_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="several processes take torch, which is not installed here"):
        launch(2, ["predict"])
