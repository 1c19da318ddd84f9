"""Batch norm and SiLU as one step in training, which keeps its input alone for the backward pass.

By themselves, the norm keeps its input and SiLU the norm's output.  Here that output is computed again in the backward
pass: a feature map less is held for each convolution, a quarter of what a training step holds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def norm_silu(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """SiLU of a batch norm in training mode, x (B, C, H, W); the running statistics move as the norm's own do."""
    assert norm.num_batches_tracked is not None  # or it has no statistics
    norm.num_batches_tracked.add_(1)
    out: Tensor = _NormSiLU.apply(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum or 0.0, norm.eps
    )
    return out


class _NormSiLU(torch.autograd.Function):
    """See `norm_silu`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, momentum: float, eps: float
    ) -> Tensor:
        normal, own_mean, scale = torch.native_batch_norm(x, weight, bias, mean, var, True, momentum, eps)
        ctx.save_for_backward(x, weight, bias, own_mean, scale)
        ctx.eps = eps
        return F.silu(normal, inplace=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, bias, mean, scale = ctx.saved_tensors
        var = scale.pow(-2) - ctx.eps
        normal = F.batch_norm(x, mean, var, weight, bias, False, 0.0, ctx.eps)
        torch.ops.aten.silu_backward.grad_input(gradients[0], normal, grad_input=normal)
        to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            normal, x, weight, None, None, mean, scale, True, ctx.eps, [True, True, True]
        )
        return to_x, to_weight, to_bias, None, None, None, None
