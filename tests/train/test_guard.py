"""A step that is undone leaves the weights, the statistics and the optimiser as they were, the first step too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gfldet.train.guard import StepGuard
from gfldet.train.muon import Muon

OPTIMISERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "muon": lambda model: Muon(
        [
            {
                "params": [p for p in model.parameters() if (p.ndim > 1) == matrices],
                "weight_decay": 0.1,
                "matrices": matrices,
            }
            for matrices in (True, False)
        ],
        lr=0.1,
    ),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.1, fused=True),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, scale: float = 1.0, whole: bool = True) -> None:
    optimizer.zero_grad()
    (model(torch.linspace(-1, 1, 96).reshape(2, 3, 4, 4) * scale).square().sum()).backward()
    if whole:
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("late", [True, False])
def test_an_undone_step_leaves_no_trace(name: str, steps_before: int, late: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = OPTIMISERS[name](model)
    guard = StepGuard(model, optimizer, late)
    for _ in range(steps_before):
        guard.remember()
        step(model, optimizer)

    def state() -> tuple[Any, Any]:
        return copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())

    before = state()
    guard.remember()
    step(model, optimizer, float("nan"), whole=late)
    assert not all(value.isfinite().all() for value in model.state_dict().values())
    guard.restore()
    torch.testing.assert_close(state(), before, rtol=0, atol=0)
    step(model, optimizer)  # and it goes on
    assert all(value.isfinite().all() for value in model.state_dict().values())
