"""The loss of box sides as distributions over R bins 0..R-1, in strides (`ops.decode` computes their mean)."""

from __future__ import annotations

from torch import Tensor

from gfldet.losses.focal import Reduction, reduced
from gfldet.ops.decode import full


def distribution_focal_loss(logits: Tensor, target: Tensor, reduction: Reduction = "none") -> Tensor:
    """DFL = -((i + 1 - y) log S_i + (y - i) log S_(i+1)), where i = floor(y): cross-entropy with y's two neighbours.

    Args: `logits` (..., R) with R >= 2, `target` (...) in bins, in [0, R - 1].  The caller leaves out points with
    targets beyond that range and does not clip them, because a clipped target teaches a wrong side.  At the minimum the
    two neighbours have the probabilities i + 1 - y and y - i, so the mean is y.

    Source: Li et al., NeurIPS 2020, eq. 6.
    """
    logits, target = full(logits), full(target)
    left = target.detach().floor().clamp(0, logits.shape[-1] - 2)
    weight = (target - left).unsqueeze(-1)
    index = left.long().unsqueeze(-1)
    log_probability = logits.log_softmax(-1)
    at_left, at_right = log_probability.gather(-1, index), log_probability.gather(-1, index + 1)
    return reduced(-((1 - weight) * at_left + weight * at_right).squeeze(-1), reduction)
