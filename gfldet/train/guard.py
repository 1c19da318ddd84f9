"""Undoing a step: all that it changes, as it was before, for a step that turns out not to be finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class StepGuard:
    """The weights, the batch-norm statistics and the optimiser's state before a step.

    Whether a step is finite is asked after its work was handed out, so that a GPU has no need to wait for the answer.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = [*model.parameters(), *model.buffers()]
        self._optimizer = optimizer
        self._state: dict[Tensor, dict[str, Any]] = {}
        self._live: list[Tensor] = []
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def remember(self) -> None:
        """Keep everything as it is now."""
        self._state = {p: dict(values) for p, values in self._optimizer.state.items()}
        moments = [value for values in self._state.values() for value in values.values() if isinstance(value, Tensor)]
        live = [*self._model, *moments]
        if len(live) != len(self._live):  # an optimiser makes its state at its first step
            self._kept = [torch.empty_like(value) for value in live]
        self._live = live
        _copy(self._kept, self._live)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was kept."""
        _copy(self._live, self._kept)
        for p, values in list(self._optimizer.state.items()):
            if p in self._state:
                values.update(self._state[p])
            else:
                del self._optimizer.state[p]


def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    """Copies tensors, those of one dtype at once."""
    for dtype in {value.dtype for value in to}:
        chosen = [number for number, value in enumerate(to) if value.dtype == dtype]
        torch._foreach_copy_([to[n] for n in chosen], [source[n] for n in chosen])
