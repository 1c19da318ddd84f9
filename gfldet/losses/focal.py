"""Classification losses from logits: the focal family.

All are pure functions.  Logits and targets have the same shape (...), of any rank, unless the docstring says otherwise.
Losses of half-precision logits are computed and returned in float32.  `reduction` is that of torch: "none", "sum" or
"mean".  All raise ValueError for a parameter out of its range:

- `alpha`, the balance of positives and negatives, lies in [0, 1]; None or a negative number switches it off, as is
  usual (torchvision, mmdetection).
- `gamma` and `beta`, exponents, are 0 or more, and finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gfldet.ops.decode import full
from gfldet.ranks.value import ONE, Ranks

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


def checked(name: str, value: float, low: float = 0.0, high: float = math.inf) -> float:
    """The parameter `name`, if it is finite and from `low` to `high`; else ValueError."""
    if not (math.isfinite(value) and low <= value <= high):
        allowed = f"of {low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name}={value!r}; a number {allowed} is expected")
    return value


def checked_alpha(alpha: float | None) -> float | None:
    """The balance, if it is from 0 to 1; None where it is off (None or a negative number); else ValueError."""
    if alpha is None or alpha < 0:
        return None
    if not alpha <= 1:
        raise ValueError(f"alpha={alpha!r}; a number from 0 to 1 is expected, or None (or -1) for no balance")
    return alpha


def cross_entropy(logits: Tensor, target: Tensor, reduction: Reduction = "none") -> Tensor:
    """CE = -(y log p + (1 - y) log(1 - p)), p = sigmoid(logits), for `target` y (...) in [0, 1].

    For y = 0 or 1 this is -log p_t of the focal loss paper (Lin et al., Focal Loss, ICCV 2017, eq. 1).
    """
    return reduced(F.binary_cross_entropy_with_logits(full(logits), full(target), reduction="none"), reduction)


def balanced_cross_entropy(
    logits: Tensor, target: Tensor, alpha: float | None = 0.25, reduction: Reduction = "none"
) -> Tensor:
    """alpha_t * CE: alpha_t is alpha for y = 1, 1 - alpha for y = 0, and linear in between.

    Source: Lin et al., ICCV 2017, eq. 3.
    """
    return reduced(_balanced(cross_entropy(logits, target), full(target), alpha), reduction)


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "none"
) -> Tensor:
    """FL = -alpha_t (1 - p_t)^gamma log p_t, for `target` y (...) in [0, 1]; without `alpha`, alpha_t is 1.

    gamma = 0 gives the balanced cross-entropy.  For 0 < y < 1, 1 - p_t is p (1 - y) + (1 - p) y, as in torchvision.
    Source: Lin et al., ICCV 2017, eq. 5.
    """
    logits, target = full(logits), full(target)
    p = logits.sigmoid()
    loss = _power(p * (1 - target) + (1 - p) * target, checked("gamma", gamma)) * cross_entropy(logits, target)
    return reduced(_balanced(loss, target, alpha), reduction)


def softmax_focal_loss(
    logits: Tensor,
    target: Tensor,
    alpha: Tensor | Sequence[float] | float | None = None,
    gamma: float = 2.0,
    reduction: Reduction = "none",
) -> Tensor:
    """-alpha_y (1 - p_y)^gamma log p_y, p = softmax over the last axis.

    Args: `logits` (..., C), `target` (...) int64; the loss has the shape (...).

    `alpha` weighs the classes: (C,) numbers of 0 or more, one number for all, or None (or a negative number) for 1.
    It is no balance of two sides, so it may be above 1.  gamma = 0 gives the softmax cross-entropy.
    Source: Lin et al., ICCV 2017, section 3.2 and appendix (the multi-class form "extends naturally").
    """
    log_p = full(logits).log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    loss = _power(-torch.expm1(log_p), checked("gamma", gamma)) * -log_p
    weights = class_weights(alpha)
    if weights is not None:
        loss = weights.to(loss).expand(logits.shape[-1])[target] * loss
    return reduced(loss, reduction)


def class_weights(alpha: Tensor | Sequence[float] | float | None) -> Tensor | None:
    """Weights (C,) of the classes, or () for all, of 0 or more; None for 1 (None or a negative number)."""
    if alpha is None:
        return None
    weights = torch.as_tensor(alpha)
    if not weights.ndim and weights < 0:
        return None
    if not (weights.isfinite().all() and (weights >= 0).all()):
        raise ValueError(f"alpha={alpha!r}; weights of the classes are finite and 0 or more")
    return weights


def quality_focal_loss(
    logits: Tensor, target: Tensor, beta: float = 2.0, floor: float = 0.0, reduction: Reduction = "none"
) -> Tensor:
    """QFL(sigma, y) = |y - sigma|^beta * BCE(sigma, y), sigma = sigmoid(logits); its minimum over sigma is at y.

    Args: `logits` (...), `target` y (...) in [0, 1]: the IoU of the predicted box with its truth at the truth's class,
    0 elsewhere, so that one score says both "what" and "how well placed".  beta = 0 gives the cross-entropy; a target
    of 0 or 1 gives the focal loss without alpha.  The modulating factor |y - sigma| carries gradient, as in the paper.
    `floor` (ours, off by default) is added to this factor.  Without it the gradient shrinks with the distance to the
    power of beta + 1; with it the gradient is at least `floor` times that of the cross-entropy.
    Source: Li et al., Generalized Focal Loss, NeurIPS 2020, eq. 5.
    """
    logits, target = full(logits), full(target)
    checked("floor", floor)
    factor = floor + _power((target - logits.sigmoid()).abs(), checked("beta", beta))
    return reduced(factor * cross_entropy(logits, target), reduction)


def varifocal_loss(
    logits: Tensor, target: Tensor, alpha: float | None = 0.75, gamma: float = 2.0, reduction: Reduction = "none"
) -> Tensor:
    """VFL: y * BCE(sigma, y) where y > 0, alpha sigma^gamma BCE(sigma, 0) where y = 0; without `alpha` it is 1.

    Args: `logits` (...), `target` y (...) in [0, 1], the IoU (or alignment) at the truth's class, 0 elsewhere.
    Positives are weighted by their quality; only the background gets the focal factor.  The weights carry no gradient,
    as in the authors' code.  Source: Zhang et al., VarifocalNet, CVPR 2021, eq. 2.
    """
    logits, target = full(logits), full(target)
    balance = checked_alpha(alpha)
    checked("gamma", gamma)
    with torch.no_grad():
        background = (1.0 if balance is None else balance) * (gamma * F.logsigmoid(logits)).exp()
        weight = torch.where(target > 0, target, background)
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
    log-softmaxes, which keep their precision for large logits); `target` y (...).  Special cases, each with a test:

    - left 0, right 1, log p = logsigmoid(-x), logsigmoid(x): QFL, and for y = 0 or 1 the focal loss (alpha None);
    - beta 0, left and right the neighbouring bins, log p from a log-softmax over the bins: DFL.

    Source: Li et al., NeurIPS 2020, eq. 7 and section 3.3.
    """
    log_left, log_right, target = full(log_left), full(log_right), full(target)
    estimate = left * log_left.exp() + right * log_right.exp()
    entropy = -((right - target) * log_left + (target - left) * log_right)
    return reduced(_power((target - estimate).abs(), checked("beta", beta)) * entropy, reduction)


def ohem(
    logits: Tensor,
    target: Tensor,
    negatives: float = 3.0,
    at_least: int = 16,
    reduction: Reduction = "none",
    counted: Tensor | None = None,
    ranks: Ranks = ONE,
) -> Tensor:
    """Online hard example mining: cross-entropy of every positive and of the hardest negatives; the others get 0.

    Args: `logits` and `target` (...); a positive has a target above 0.  `negatives` is how many negatives are kept per
    positive, `at_least` how many are kept in any case (a batch of background has no positives).  `counted`, bool and
    broadcast to (...), tells which elements count; None: all.  The others get 0 and are not chosen from: the objects of
    an ignore region, which have no labels, would be the hardest negatives.  All `ranks` choose together.
    Source: Shrivastava et al., CVPR 2016, with the 1:3 ratio of Liu et al., SSD, ECCV 2016.  Lin et al. (ICCV 2017,
    section 5) compare this form with focal loss.
    """
    checked("negatives", negatives)
    checked("at_least", at_least)
    loss = cross_entropy(logits, target)
    with torch.no_grad():
        counts = torch.ones_like(target, dtype=torch.bool) if counted is None else counted.expand_as(target)
        positive = counts & (target > 0)
        negative = (counts & ~positive).flatten()
        hardness = loss.detach().flatten().masked_fill(~negative, -torch.inf)
        there, wanted_by = ranks.sum(torch.stack((negative.sum(), positive.sum()))).tolist()
        keep = min(there, max(at_least, round(negatives * wanted_by)))
        chosen = torch.zeros_like(negative)
        chosen[hardness.topk(_part_of_hardest(hardness, keep, ranks)).indices] = True
        wanted = positive | chosen.view_as(positive)
    return reduced(torch.where(wanted, loss, torch.zeros_like(loss)), reduction)


def _part_of_hardest(hardness: Tensor, keep: int, ranks: Ranks) -> int:
    """How many of the `keep` hardest of all ranks' elements (n,) are of this rank."""
    if ranks.size == 1:
        return keep
    hardest = hardness.new_full((keep,), -torch.inf)
    own = min(keep, len(hardness))
    hardest[:own] = hardness.topk(own).values
    among = ranks.stacked(hardest).flatten().topk(keep).indices
    return int(((among >= ranks.rank * keep) & (among < (ranks.rank + 1) * keep)).sum())


def _balanced(loss: Tensor, target: Tensor, alpha: float | None) -> Tensor:
    """alpha_t times the loss."""
    balance = checked_alpha(alpha)
    return loss if balance is None else (balance * target + (1 - balance) * (1 - target)) * loss


def _power(distance: Tensor, exponent: float) -> Tensor:
    """distance^exponent for a distance from 0 to 1, with a finite gradient at 0 also for exponents below 1."""
    return distance.clamp(min=1e-12).pow(exponent)
