"""The check that folding the norms of a network changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from gfldet.nn.tasks import DetectionModel


@pytest.fixture
def fuses_alike() -> Callable[[DetectionModel, int, int], None]:
    """model, height, width -> an assertion that its outputs stay the same when it is fused, and that no norm is left"""

    def check(model: DetectionModel, height: int, width: int) -> None:
        for module in model.eval().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        x = torch.rand(1, 3, height, width)
        with torch.no_grad():
            before = model(x)[0]
            model.fuse()
            after = model(x)[0]
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())

    return check
