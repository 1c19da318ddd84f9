"""The network's part of a training step as one piece of work for a GPU, recorded once and replayed at every step.

A small model keeps a GPU busy for less time than the processor takes to hand out its thousand kernels one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gfldet.nn.graph import Graph
from gfldet.nn.tasks import DetectionModel
from gfldet.store.checkpoint import first_line


@contextmanager
def replayed(model: DetectionModel, shape: tuple[int, ...], precision: torch.dtype | None) -> Iterator[str]:
    """Within this, a model on a GPU in training mode takes images of `shape` (B, 3, H, W) through CUDA graphs, forward
    and backward; others as before.  The kernels and their results are the same.

    It tells why no recording could be made, or nothing.  The recording takes some passes, and these move the statistics
    of the batch norms: put them back afterwards.  Raises torch's OutOfMemoryError.
    """
    why_not = ""
    with warnings.catch_warnings():
        # Gradients come out of the stream of the recording, on which torch waits by itself.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
        try:
            _record(model.graph, shape, precision)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            why_not = first_line(error)
        try:
            yield why_not
        finally:
            vars(model.graph).pop("forward", None)


def _record(network: Graph, shape: tuple[int, ...], precision: torch.dtype | None) -> None:
    """Let the network's `forward` replay its work on images of that shape."""
    images = torch.zeros(shape, device=next(network.parameters()).device).to(memory_format=torch.channels_last)
    plain = network.forward
    with torch.autocast("cuda", dtype=precision, enabled=precision is not None, cache_enabled=False):
        torch.cuda.make_graphed_callables(network, (images,), allow_unused_input=True)
    recorded = network.forward

    def forward(x: Tensor) -> Any:
        return (recorded if x.shape == images.shape else plain)(x)

    network.forward = forward  # type: ignore[method-assign]
