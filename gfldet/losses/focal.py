"""Classification losses from logits: the focal family.

All are pure functions.  Logits and targets have any one shape (...) unless said otherwise; half precision is computed,
and returned, in float32.  `reduction` is as everywhere in torch: "none", "sum" or "mean".
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gfldet.ops.decode import full

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


def cross_entropy(logits: Tensor, target: Tensor, reduction: Reduction = "none") -> Tensor:
    """CE = -(y log p + (1 - y) log(1 - p)), p = sigmoid(logits), for `target` y (...) in [0, 1].

    With y of 0 or 1 it is -log p_t of the focal loss paper (Lin et al., Focal Loss, ICCV 2017, eq. 1).
    """
    return reduced(F.binary_cross_entropy_with_logits(full(logits), full(target), reduction="none"), reduction)


def balanced_cross_entropy(
    logits: Tensor, target: Tensor, alpha: float = 0.25, reduction: Reduction = "none"
) -> Tensor:
    """alpha_t * CE, with alpha for what is there (y = 1) and 1 - alpha for what is not; between, in proportion.

    Source: Lin et al., ICCV 2017, eq. 3.
    """
    return reduced(_balance(full(target), alpha) * cross_entropy(logits, target), reduction)


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "none"
) -> Tensor:
    """FL = -alpha_t (1 - p_t)^gamma log p_t, for `target` y (...) in [0, 1]; `alpha` None leaves the balance out.

    gamma = 0 is the balanced cross-entropy.  Between 0 and 1, 1 - p_t is p (1 - y) + (1 - p) y, as in torchvision.
    Source: Lin et al., ICCV 2017, eq. 5.
    """
    logits, target = full(logits), full(target)
    p = logits.sigmoid()
    loss = _power(p * (1 - target) + (1 - p) * target, gamma) * cross_entropy(logits, target)
    return reduced(loss if alpha is None else _balance(target, alpha) * loss, reduction)


def softmax_focal_loss(
    logits: Tensor,
    target: Tensor,
    alpha: Tensor | float | None = None,
    gamma: float = 2.0,
    reduction: Reduction = "none",
) -> Tensor:
    """-alpha_y (1 - p_y)^gamma log p_y, p = softmax over the last axis.

    Args: `logits` (..., C), `target` (...) int64; the loss has the shape (...).

    `alpha` weighs the classes: (C,), one number for all, or None for 1.  gamma = 0 is the softmax cross-entropy.
    Source: Lin et al., ICCV 2017, section 3.2 and appendix (the multi-class form "extends naturally").
    """
    log_p = full(logits).log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    loss = _power(-torch.expm1(log_p), gamma) * -log_p
    if alpha is not None:
        weights = torch.as_tensor(alpha, dtype=loss.dtype, device=loss.device).expand(logits.shape[-1])
        loss = weights[target] * loss
    return reduced(loss, reduction)


def quality_focal_loss(
    logits: Tensor, target: Tensor, beta: float = 2.0, floor: float = 0.0, reduction: Reduction = "none"
) -> Tensor:
    """QFL(sigma, y) = |y - sigma|^beta * BCE(sigma, y), sigma = sigmoid(logits); its minimum over sigma is at y.

    Args: `logits` (...), `target` (...) in [0, 1]: the IoU of the predicted box with its truth at the truth's class, 0
    elsewhere, so that one score says both "what" and "how well placed".  With beta = 0 it is the
    cross-entropy, with a target of 0 or 1 the focal loss without alpha.  |y - sigma|, the modulating factor, carries
    gradient, as in the paper.  `floor` (ours, off by default) is added to that factor: the gradient, which otherwise
    goes with the distance to the power of beta + 1, is then never less than `floor` of cross-entropy's.
    Source: Li et al., Generalized Focal Loss, NeurIPS 2020, eq. 5.
    """
    logits, target = full(logits), full(target)
    factor = floor + _power((target - logits.sigmoid()).abs(), beta)
    return reduced(factor * cross_entropy(logits, target), reduction)


def varifocal_loss(
    logits: Tensor, target: Tensor, alpha: float = 0.75, gamma: float = 2.0, reduction: Reduction = "none"
) -> Tensor:
    """VFL: y * BCE(sigma, y) where y > 0, alpha sigma^gamma BCE(sigma, 0) where y = 0.

    Args: `logits` (...), `target` y (...) in [0, 1], the IoU (or alignment) at the truth's class, 0 elsewhere.
    Positives are weighted by their quality and not faded; only the background is focal.  The weights carry no
    gradient, as in the authors' code.  Source: Zhang et al., VarifocalNet, CVPR 2021, eq. 2.
    """
    logits, target = full(logits), full(target)
    with torch.no_grad():
        weight = torch.where(target > 0, target, alpha * (gamma * F.logsigmoid(logits)).exp())
    return reduced(weight * cross_entropy(logits, target), reduction)


def generalized_focal_loss(
    log_left: Tensor,
    log_right: Tensor,
    target: Tensor,
    left: Tensor | float = 0.0,
    right: Tensor | float = 1.0,
    beta: float = 2.0,
    reduction: Reduction = "none",
) -> Tensor:
    """GFL = -|y - (y_l p_l + y_r p_r)|^beta ((y_r - y) log p_l + (y - y_l) log p_r), for y_l <= y <= y_r.

    Args: `log_left`, `log_right` (...) log-probabilities of the two values `left` and `right` (log-sigmoids or
    log-softmaxes of logits, so that nothing is lost far out); `target` y (...).  Special cases, each held by a test:

    - left 0, right 1, log p = logsigmoid(-x), logsigmoid(x): QFL; with y of 0 or 1 the focal loss (alpha None);
    - beta 0, left and right the neighbouring bins, log p from a log-softmax over the bins: DFL.

    Source: Li et al., NeurIPS 2020, eq. 7 and section 3.3.
    """
    log_left, log_right, target = full(log_left), full(log_right), full(target)
    estimate = left * log_left.exp() + right * log_right.exp()
    entropy = -((right - target) * log_left + (target - left) * log_right)
    return reduced(_power((target - estimate).abs(), beta) * entropy, reduction)


def ohem(
    logits: Tensor, target: Tensor, negatives: float = 3.0, at_least: int = 16, reduction: Reduction = "none"
) -> Tensor:
    """Online hard example mining: cross-entropy of every positive and of the hardest negatives alone; 0 for the rest.

    Args: `logits` and `target` (...), positives being where the target is above 0; `negatives` kept for each positive,
    `at_least` of them in all (a batch of background has no positive to count by).
    Source: Shrivastava et al., CVPR 2016, with the 1:3 ratio of Liu et al., SSD, ECCV 2016, as Lin et al. (ICCV 2017,
    section 5) compare it with focal loss.
    """
    loss = cross_entropy(logits, target)
    with torch.no_grad():
        positive = target > 0
        hardness = loss.detach().masked_fill(positive, -torch.inf).flatten()
        spare = hardness.numel() - int(positive.sum())
        keep = min(spare, max(at_least, round(negatives * (hardness.numel() - spare))))
        chosen = torch.zeros_like(hardness, dtype=torch.bool)
        chosen[hardness.topk(keep).indices] = True
        wanted = positive | chosen.view_as(positive)
    return reduced(torch.where(wanted, loss, torch.zeros_like(loss)), reduction)


def _balance(target: Tensor, alpha: float) -> Tensor:
    return alpha * target + (1 - alpha) * (1 - target)


def _power(distance: Tensor, exponent: float) -> Tensor:
    """distance^exponent for a distance from 0 to 1, with a finite gradient at 0 also for exponents below 1."""
    return distance.clamp(min=1e-12).pow(exponent)
