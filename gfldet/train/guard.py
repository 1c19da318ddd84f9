"""Undoing a step that turns out not to be finite: what it has changed by then, as it was before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class StepGuard:
    """The batch-norm statistics before a step, which its forward pass moves; if it is `late`, the weights and the
    optimiser's state too.

    Late is: it is asked whether a step is finite after all its work was handed out, so that a GPU has no need to wait
    for the answer.  A CPU knows it before the optimiser begins.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, late: bool) -> None:
        self.late = late
        self._model = [*(model.parameters() if late else ()), *model.buffers()]
        self._optimizer = optimizer
        self._state: dict[Tensor, dict[str, Any]] = {}
        self._live: list[Tensor] = []
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def remember(self) -> None:
        """Keep everything as it is now."""
        if not self.late:
            self._keep(self._model)
            return
        self._state = {p: dict(values) for p, values in self._optimizer.state.items()}
        moments = [value for values in self._state.values() for value in values.values() if isinstance(value, Tensor)]
        self._keep([*self._model, *moments])

    def _keep(self, live: list[Tensor]) -> None:
        if len(live) != len(self._live):  # an optimiser makes its state at its first step
            self._kept = [torch.empty_like(value) for value in live]
        self._live = live
        _copy(self._kept, self._live)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was kept."""
        _copy(self._live, self._kept)
        if not self.late:
            return
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
