"""Batch norm whose statistics are those of all processes' images: `sync_bn`.

torch.nn.SyncBatchNorm does the same on GPUs alone; this one also runs on CPUs, and it leaves out a process that has no
image in a step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfldet.ranks.value import ONE, Ranks


class JointBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over the images of all `ranks`.  Where `counts` is false, this rank's images change nothing."""

    ranks: Ranks = ONE
    counts: bool = True

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        out, mean, var, n = _Normalise.apply(input, self.weight, self.bias, self.eps, self.ranks, self.counts)
        momentum = 0.0 if self.momentum is None else self.momentum
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(var * (n / (n - 1).clamp(min=1)), momentum)  # type: ignore[union-attr]
        return out


class _Normalise(torch.autograd.Function):
    """The batch norm of joint statistics, and its gradient: in both a process adds its part to those of the others."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks, counts: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # As batch norm itself takes them, since torch.var_mean over three dimensions is twenty times as slow on a CPU.
        # It gives them in the type of the running statistics that it is given, whatever that of x; they are not used.
        unused = torch.zeros_like(weight, dtype=torch.float32)
        own_mean, own_var = torch.batch_norm_update_stats(x, unused, unused.clone(), 0.0)
        own_n = own_mean.new_full((1,), x[:, 0].numel() if counts else 0)
        rows = ranks.stacked(torch.cat((own_mean, own_var, own_n)))  # (size, 2C + 1)
        means, variances, numbers = rows.split((len(own_mean), len(own_var), 1), dim=1)
        n = numbers.sum()
        shares = numbers / n
        mean = (means * shares).sum(0)
        off = means - mean
        var = (torch.addcmul(variances, off, off) * shares).sum(0)
        ctx.save_for_backward(x, weight, mean, var, n)
        ctx.eps, ctx.ranks, ctx.counts = eps, ranks, counts
        out = F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, var, n)
        return out, mean, var, n

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, mean, var, n = ctx.saved_tensors
        towards, scale = gradients[0], weight * (var + ctx.eps).rsqrt()
        _, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            towards, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        own = torch.stack((to_bias, to_weight))
        joint = ctx.ranks.sum(own if ctx.counts else torch.zeros_like(own)) / n
        # That of the statistics, which do not depend on what does not count; then that of x itself.  In half precision
        # the scale is rounded as every weight is.
        of_bias, of_weight = -scale * joint if ctx.counts else torch.zeros_like(own)
        to_x = F.batch_norm(x, mean, var, of_weight, of_bias, False, 0.0, ctx.eps)
        to_x.addcmul_(towards, scale.to(x.dtype)[:, None, None])
        return to_x, to_weight, to_bias, None, None, None


def join_norms(model: nn.Module, ranks: Ranks) -> None:
    """Let every batch norm of a model go by the images of all ranks, which all call this; its weights and statistics
    stay."""
    ranks = ranks.near()
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if type(norm) is nn.BatchNorm2d:
                joint = JointBatchNorm2d(norm.num_features, norm.eps, norm.momentum)
                joint.weight, joint.bias = norm.weight, norm.bias
                joint.running_mean, joint.running_var = norm.running_mean, norm.running_var
                joint.num_batches_tracked = norm.num_batches_tracked
                joint.ranks = ranks
                joint.train(norm.training)
                setattr(parent, name, joint)
