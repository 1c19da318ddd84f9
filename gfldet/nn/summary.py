"""The size of a model in four numbers, and what tells its weights from others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gfldet.nn.tasks import DetectionModel


class ModelInfo(NamedTuple):
    """The size of a model.

    layers      modules without others inside
    parameters  all of them, the fixed bin values included
    gradients   parameters that training changes
    gflops      10^9 floating-point operations of the convolutions for an image; a multiply-add counts as two
    """

    layers: int
    parameters: int
    gradients: int
    gflops: float


def model_info(model: DetectionModel, imgsz: int = 640) -> ModelInfo:
    """The size of `model`; its operations for an image of `imgsz` x `imgsz` px."""
    layers = [module for module in model.modules() if not any(module.children())]
    gradients = sum(p.numel() for p in model.parameters() if p.requires_grad)
    side = model.multiple
    gflops = _operations(model, side) * (imgsz / side) ** 2 / 1e9  # they go with the area
    return ModelInfo(len(layers), model.parameter_count(), gradients, gflops)


def _operations(model: DetectionModel, side: int) -> int:
    """Floating-point operations of the convolutions for one image of `side` x `side` px, counted in a forward."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        counts.append(2 * output.numel() * module.weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    training = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, side, side, device=next(model.parameters()).device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return sum(counts)


def bytes_of_weights(model: nn.Module) -> Iterator[bytes]:
    """All weights and buffers by name, for a hash that tells two models apart."""
    for name, value in model.state_dict().items():
        yield name.encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
