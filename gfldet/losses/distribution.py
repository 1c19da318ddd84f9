"""Box sides as distributions over R bins 0..R-1 (in strides): their mean, and the loss that shapes them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gfldet.losses.focal import Reduction, full, reduced


def integral(logits: Tensor) -> Tensor:
    """The mean of each distribution: logits (..., R) -> sum_i softmax(logits)_i * i (...), in [0, R - 1].

    Source: Li et al., Generalized Focal Loss, NeurIPS 2020, eq. 4.
    """
    logits = full(logits)
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return (logits.softmax(-1) * bins).sum(-1)


def sides_in_strides(logits: Tensor) -> Tensor:
    """What a head's box outputs (..., R) say of a side (...), in strides: the integral, or for R = 1 a softplus.

    With one number a side the head has a Dirac distribution, which no DFL shapes and whose reach has no end.
    """
    return F.softplus(full(logits)).squeeze(-1) if logits.shape[-1] == 1 else integral(logits)


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
