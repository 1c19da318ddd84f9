"""The focal losses as modules, in the call forms that are common in other code bases."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfldet.losses.focal import Reduction, checked, class_weights, sigmoid_focal_loss, softmax_focal_loss


class FocalLoss(nn.Module):
    """Sigmoid focal loss called as `loss(pred, label, gamma=1.5, alpha=0.25)`.

    `pred` logits and `label` in [0, 1], both (B, C) or (B, A, C).  The loss is averaged over axis 1 and summed
    over the other axes: for (B, C), averaged over classes and summed over images.  The values are those of
    `losses.focal.sigmoid_focal_loss`.  `alpha` 0 means no alpha_t, as is usual for this call form, and
    so does a negative one.
    """

    def forward(self, pred: Tensor, label: Tensor, gamma: float = 1.5, alpha: float = 0.25) -> Tensor:
        return sigmoid_focal_loss(pred, label, None if alpha == 0 else alpha, gamma).mean(1).sum()


class MultiClassFocalLoss(nn.Module):
    """Softmax focal loss for classification, constructed as `MultiClassFocalLoss(n_class, alpha=None, gamma=2)`.

    `alpha` is a list or tensor of n_class weights, one number for all classes, or None (or a negative number) for 1.
    Called with logits (P, n_class) or (B, n_class, H, W) and classes int64 (P,) or (B, H, W).  Raises ValueError if the
    number of classes or weights differs from n_class, or for a weight or `gamma` below 0.
    """

    alpha: Tensor | None

    def __init__(
        self,
        n_class: int,
        alpha: Tensor | list[float] | float | None = None,
        gamma: float = 2.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        weights = class_weights(None if alpha is None else torch.as_tensor(alpha, dtype=torch.float32))
        if weights is not None and weights.ndim and weights.shape != (n_class,):
            raise ValueError(f"alpha has shape {tuple(weights.shape)}; give {n_class} weights, or one number for all")
        self.n_class = n_class
        self.gamma = checked("gamma", gamma)
        self.reduction: Reduction = reduction
        self.register_buffer("alpha", weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape[1] != self.n_class:
            raise ValueError(f"logits of shape {tuple(logits.shape)}; axis 1 must hold {self.n_class} classes")
        return softmax_focal_loss(logits.movedim(1, -1), target, self.alpha, self.gamma, self.reduction)
