"""The recording of a network: on a GPU the steps are the same; without one it is left alone, and a failure is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import torch

from gfldet.nn.graph import Graph
from gfldet.train import replay
from gfldet.train import trainer as trainer_module
from gfldet.train.events import Observers
from gfldet.train.trainer import Trainer

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def steps(trainer: Trainer, count: int) -> list[list[float]]:
    """The losses of the first steps of a run."""
    found = []
    with closing(trainer._batches(0)) as batches, trainer._replaying():
        for _ in range(count):
            items = trainer._step(next(batches))
            assert items is not None
            found.append(items.tolist())
    return found


@GPU
def test_replayed_steps_are_the_plain_ones(prepared: Callable[..., Trainer]) -> None:
    runs = []
    for replays in (True, False):
        trainer = prepared(device="0", val=False)
        assert trainer.replays
        trainer.replays = replays
        runs.append((steps(trainer, 4), [value.clone() for value in trainer.model.state_dict().values()]))
        assert "forward" not in vars(trainer.model.graph)
    (losses, weights), (plain_losses, plain_weights) = runs
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(plain_losses), rtol=1e-4, atol=1e-5)
    for value, plain in zip(weights, plain_weights, strict=True):
        torch.testing.assert_close(value, plain, rtol=1e-3, atol=1e-4)


def test_without_a_gpu_nothing_is_recorded(prepared: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "replayed", lambda *_: pytest.fail("recorded"))
    trainer = prepared(device="cpu")
    assert not trainer.replays
    steps(trainer, 1)


def test_a_recording_leaves_no_trace(prepared: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its passes move the statistics of the batch norms; these are put back before the first step."""
    recorded: list[tuple[Any, ...]] = []

    def recording(network: Graph, shape: tuple[int, ...], precision: torch.dtype | None) -> None:
        recorded.append(shape)
        for _ in range(3):
            network(torch.rand(shape))
        plain_forward = network.forward
        network.forward = lambda x: plain_forward(x)  # type: ignore[method-assign]

    plain, trainer = prepared(device="cpu", seed=3), prepared(device="cpu", seed=3)
    monkeypatch.setattr(replay, "_record", recording)
    trainer.replays = True
    assert steps(trainer, 2) == steps(plain, 2)
    assert recorded == [(trainer.train.batch, 3, *trainer.train.frame)]
    assert "forward" not in vars(trainer.model.graph)


def test_a_model_that_cannot_be_recorded_is_trained_all_the_same(
    prepared: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    told: list[str] = []
    trainer = prepared(device="cpu")
    monkeypatch.setattr(replay, "_record", fails)
    monkeypatch.setattr(Observers, "warn", lambda _, message: told.append(message))
    trainer.replays = True
    steps(trainer, 1)
    assert not trainer.replays
    assert told == [
        "this model cannot be recorded, so its steps take longer: operation not permitted when stream is capturing"
    ]


def test_a_full_memory_is_no_reason_to_go_on(prepared: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    trainer = prepared(device="cpu")
    monkeypatch.setattr(replay, "_record", full)
    trainer.replays = True
    with pytest.raises(torch.cuda.OutOfMemoryError):
        steps(trainer, 1)
