"""Where a training step makes the processor wait for a GPU: each place by name, so that none comes in unseen.

There is no GPU here, so the calls are counted whose answer the processor needs: numbers of a tensor, shapes that follow
from its values, and tensors made of Python's numbers, whose copy to a GPU is waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gfldet.assigners import assignment
from gfldet.data.train_set import TrainBatch
from gfldet.train.events import ITEMS, EpochReport, StepReport
from gfldet.train.observers import Terminal
from gfldet.train.trainer import Trainer

NUMBERS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"}
SHAPES = {"nonzero", "unique", "unique_consecutive", "masked_select", "argwhere", "bincount"}
COPIES = {"tensor", "as_tensor", "new_tensor"}


class Waits(TorchFunctionMode):
    """Counts the calls that a GPU would make wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        if name in NUMBERS | SHAPES | COPIES or (name == "repeat_interleave" and "output_size" not in kwargs):
            self.found[name] += 1
        if name in ("__getitem__", "__setitem__") and _has_mask(args[1]):
            self.found["mask"] += 1
        return func(*args, **kwargs)


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


def test_the_counter_counts() -> None:
    x = torch.arange(4.0)
    with Waits() as waits:
        x[x > 1], x.sum().item(), x.tolist(), bool(x[0] > 1), float(x[0]), x.nonzero(), torch.tensor([1, 2])
        x.repeat_interleave(torch.ones(4, dtype=torch.int64)), x[0], x.sum()
    kinds = {"mask", "item", "tolist", "__bool__", "__float__", "nonzero", "tensor", "repeat_interleave"}
    assert waits.found.keys() >= kinds


def test_the_places_where_a_step_waits(prepared: Callable[..., Trainer]) -> None:
    trainer = prepared(amp="off")
    trainer.model.train()
    batches = trainer._batches(0)
    assert trainer._step(next(batches)) is not None  # makes the optimiser's state
    batch = next(batches)
    with Waits() as waits:
        assert trainer._step(batch) is not None
    assert waits.found == {
        "__bool__": 1,  # whether the step was finite, asked after all of its work
        "tolist": 1,  # how many pairs of truth and point there are: of the host's boxes, so no GPU is waited for
        "mask": 1,  # the truth of each point
        "nonzero": 1,  # truths that lost all their points
    }


def test_the_terminal_reads_losses_when_it_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal(Tty())
    terminal._epochs, terminal._steps = 1, 1000
    losses = torch.ones(3)
    with Waits() as waits:
        for number in range(1000):
            terminal.step(StepReport(0, number, number, losses, None, 0.1))  # type: ignore[arg-type]
    assert 1 <= waits.found["tolist"] < 100
    terminal.epoch(EpochReport(0, 1.0, dict.fromkeys(ITEMS, 1.0), 0.1, None, True))


def test_threads_pin_their_batches_where_no_processes_do(
    prepared: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[TrainBatch] = []
    monkeypatch.setattr(TrainBatch, "pin_memory", lambda batch: pinned.append(batch) or batch)
    trainer = prepared()
    assert not trainer.pins
    next(trainer._batches(0))
    assert pinned == []
    trainer.pins, trainer.workers = True, 1
    batches = trainer._batches(0)
    assert next(batches) is pinned[0]
    batches.close()


def test_a_batch_is_copied_without_waiting(prepared: Callable[..., Trainer]) -> None:
    batch = next(prepared()._batches(0))
    asked: list[Any] = []

    class Copies(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__ == "to":
                asked.append((kwargs or {}).get("non_blocking"))
            return func(*args, **(kwargs or {}))

    with Copies():
        batch.to(torch.device("cpu"))
    assert asked == [True] * 6


def shrinking(group: Tensor, groups: int, claims: list[Tensor]) -> Tensor:
    """The best of each group, by taking out the losers after each claim."""
    left = torch.arange(len(group))
    for raw in claims:
        claim = raw.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        best = claim.new_full((groups,), -torch.inf).scatter_reduce(0, group[left], claim[left], "amax")
        left = left[claim[left] == best[group[left]]]
    first = left.new_full((groups,), len(group)).scatter_reduce(0, group[left], left, "amin")
    return first[first < len(group)]


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_each_are_found_in_place(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, 40, (300,), generator=generator)
    claims = [torch.randint(0, 4, (300,), generator=generator).float() for _ in range(3)]
    for claim in claims:
        lots = torch.rand(300, generator=generator)
        claim[lots < 0.1] = torch.nan
        claim[lots > 0.9] = -torch.inf
        claim[(lots > 0.5) & (lots < 0.55)] = torch.inf
    for count in (1, 2, 3):
        assert torch.equal(assignment.best_of_each(group, 50, claims[:count]), shrinking(group, 50, claims[:count]))
