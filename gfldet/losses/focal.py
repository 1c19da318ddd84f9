"""Classification losses from logits.  Reduction as everywhere in torch: "none", "sum" or "mean"."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["none", "sum", "mean"]


def reduced(loss: Tensor, reduction: Reduction) -> Tensor:
    """The element-wise loss (...) as it is, summed, or averaged (the mean of nothing is 0, not NaN)."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.sum() / max(loss.numel(), 1)
    raise ValueError(f"reduction={reduction!r}; allowed are 'none', 'sum' and 'mean'")


def quality_focal_loss(logits: Tensor, target: Tensor, beta: float = 2.0, reduction: Reduction = "none") -> Tensor:
    """QFL(sigma, y) = |y - sigma|^beta * BCE(sigma, y), sigma = sigmoid(logits); its minimum over sigma is at y.

    Args: `logits` (...), `target` (...) in [0, 1]: the IoU of the predicted box with its truth at the truth's class, 0
    elsewhere, so that one score says both "what" and "how well placed".  With a target of 0 or 1 it is the focal loss
    without alpha.  Source: Li et al., Generalized Focal Loss, NeurIPS 2020, eq. 5.  Departure: none (|y - sigma| is the
    modulating factor, and it carries gradient, as in the paper).
    """
    modulation = (target - logits.sigmoid()).abs().pow(beta)
    return reduced(modulation * F.binary_cross_entropy_with_logits(logits, target, reduction="none"), reduction)
