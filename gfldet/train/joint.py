"""What the processes of a run add up after each backward pass, in one message: gradients, losses, batch statistics.

Why not DistributedDataParallel: see "Several processes" in ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gfldet.nn.joint_norm import JointBatchNorm2d
from gfldet.ranks.value import Ranks


@torch.no_grad()
def add_up(model: nn.Module, numbers: Tensor, images: int, ranks: Ranks) -> Tensor:
    """Give each parameter the sum of its gradients in all ranks; the sums of `numbers` (n,).

    The running statistics of local batch norms become their means over the ranks, weighted by each rank's `images`, so
    that the model stays the same in all.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    statistics = _local_statistics(model)
    total = ranks.sum(
        torch.cat(
            [
                numbers,
                numbers.new_tensor([images]),
                *(gradient.reshape(-1) for gradient in gradients),
                *(images * value for value in statistics),
            ]
        )
    )
    head, rest = total[: len(numbers)], total[len(numbers) + 1 :]
    pieces = rest.split([value.numel() for value in (*gradients, *statistics)])
    _copy(gradients, pieces[: len(gradients)])
    _copy(statistics, [piece / total[len(numbers)] for piece in pieces[len(gradients) :]])
    return head


def _local_statistics(model: nn.Module) -> list[Tensor]:
    """The running means and variances that this rank's images alone have changed."""
    return [
        value
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d) and not isinstance(module, JointBatchNorm2d) and module.training
        for value in (module.running_mean, module.running_var)
        if value is not None
    ]


def _copy(to: Sequence[Tensor], pieces: Sequence[Tensor]) -> None:
    if to:
        torch._foreach_copy_(list(to), [piece.view(place.shape) for place, piece in zip(to, pieces, strict=True)])
