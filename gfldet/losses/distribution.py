"""The loss that shapes box sides as distributions over R bins 0..R-1, in strides (their mean: `ops.decode`)."""

from __future__ import annotations

from torch import Tensor

from gfldet.losses.focal import Reduction, reduced
from gfldet.ops.decode import full


def distribution_focal_loss(logits: Tensor, target: Tensor, reduction: Reduction = "none") -> Tensor:
    """DFL = -((i + 1 - y) log S_i + (y - i) log S_(i+1)), where i = floor(y): cross-entropy with y's two neighbours.

    Args: `logits` (..., R) with R >= 2, `target` (...) in bins, in [0, R - 1]; whoever has targets beyond must leave
    those points out rather than clip them (a clipped target teaches a wrong side).  The minimum puts the weights
    i + 1 - y and y - i on the two neighbours, whose mean is y.  Source: Li et al., NeurIPS 2020, eq. 6.
    """
    logits, target = full(logits), full(target)
    left = target.detach().floor().clamp(0, logits.shape[-1] - 2)
    weight = (target - left).unsqueeze(-1)
    index = left.long().unsqueeze(-1)
    log_probability = logits.log_softmax(-1)
    at_left, at_right = log_probability.gather(-1, index), log_probability.gather(-1, index + 1)
    return reduced(-((1 - weight) * at_left + weight * at_right).squeeze(-1), reduction)
