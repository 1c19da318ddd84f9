"""A running average of the weights, which is what gets validated and saved."""

from __future__ import annotations

import copy

import torch

from gfldet.nn.tasks import DetectionModel


class WeightAverage:
    """Exponential moving average of a model's parameters and batch-norm statistics, in a copy of the model.

    The decay after t updates is min(decay, (1 + t) / (1 + part + t)), a horizon of about t / part: short at first, so
    that the random start is forgotten, then `decay`, whose horizon 1 / (1 - decay) should be a part of the run, not
    thousands of steps.
    """

    def __init__(self, model: DetectionModel, decay: float, part: float = 9.0) -> None:
        self.decay, self.part = decay, part
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        # The tensors are looked up once: doing so at every step takes as long as the arithmetic on a GPU.
        mine, theirs = list(self.model.state_dict().values()), list(model.state_dict().values())
        self._mine, self._theirs = ([v for v in side if v.is_floating_point()] for side in (mine, theirs))
        self._my_counts, self._their_counts = (
            [v for v in side if not v.is_floating_point()] for side in (mine, theirs)
        )

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's weights of now."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (1 + self.part + self.updates))
        torch._foreach_lerp_(self._mine, self._theirs, share)
        torch._foreach_copy_(self._my_counts, self._their_counts)
