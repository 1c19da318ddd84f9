"""The models that tasks see: a forward that dispatches to `loss` (a batch dict) or `predict` (an image tensor)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gfldet.losses.detection import E2EDetectLoss, LossItems, v8DetectionLoss
from gfldet.nn.build import Description, build
from gfldet.nn.graph import Graph
from gfldet.nn.heads import DetectionHead
from gfldet.ops.decode import Decoded, Scored

Batch = Mapping[str, Tensor]


class BaseModel(nn.Module):
    """forward(dict) -> loss, forward(tensor) -> predict."""

    criterion: Any = None

    def forward(self, x: Batch | Tensor) -> Any:
        """A batch dict for training and validation loss, or images (B, 3, H, W) float in [0, 1], RGB, to predict on."""
        if isinstance(x, Mapping):
            return self.loss(x)
        return self.predict(x)

    def predict(self, x: Tensor) -> Any:
        raise NotImplementedError

    def init_criterion(self) -> Any:
        raise NotImplementedError

    def loss(self, batch: Batch, preds: Any = None) -> tuple[Tensor, Tensor]:
        """(total () to backward on, detached items (3,): box, cls, dfl) of a batch; `preds` saves a forward."""
        if self.criterion is None:
            self.criterion = self.init_criterion()
        found: LossItems = self.criterion(self.predict(batch["img"]) if preds is None else preds, batch)
        return found.total, found.items

    def fuse(self) -> None:
        """Fold every batch norm into its convolution, in place; the outputs stay the same to 1e-4.  Inference only."""
        self.eval()
        for module in self.modules():
            fuse = getattr(module, "fuse", None)
            if module is not self and fuse is not None:
                fuse()

    def parameter_count(self) -> int:
        """All parameters, the fixed bin values included, as public counts of this graph have them."""
        return sum(p.numel() for p in self.parameters())


class DetectionModel(BaseModel):
    """A detector made from a description.

    Train mode: images (B, 3, H, W) -> list of per-level maps (B, 4 * reg_max + nc, H / s, W / s); with an end-to-end
    head two such lists, {"one2many": ..., "one2one": ...}.
    Eval mode: -> (decoded (B, 4 + nc, A): boxes xywh in input pixels and scores, the raw maps).
    H and W must be multiples of `multiple`.
    """

    def __init__(self, description: Description, names: Sequence[str] | None = None) -> None:
        super().__init__()
        if names is not None and len(names) != description.nc:
            raise ValueError(f"{len(names)} names for {description.nc} classes; give one name a class")
        self.description = description
        self.names = dict(enumerate(names if names is not None else [f"class{i}" for i in range(description.nc)]))
        self.graph: Graph = build(description)

    @property
    def head(self) -> DetectionHead:
        return self.graph.head

    @property
    def nc(self) -> int:
        return self.description.nc

    @property
    def reg_max(self) -> int:
        return self.description.reg_max

    @property
    def strides(self) -> tuple[int, ...]:
        return self.head.strides

    @property
    def multiple(self) -> int:
        """What the sides of an input must be multiples of."""
        return self.graph.multiple

    @property
    def end2end(self) -> bool:
        """Whether its detections want no NMS."""
        return self.head.end2end

    def predicting(self) -> list[Tensor]:
        """The weights of the layers whose outputs are the predictions."""
        return self.head.predicting()

    def predict(self, x: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        maps = self._maps(x)
        return maps if self.training else (self.head.decode(maps).stacked(), maps)

    def decode(self, x: Tensor, keep_bins: bool = False) -> Decoded:
        """Images -> boxes and scores under their names; of a model in eval mode."""
        return self.infer(x).decoded(keep_bins)

    def infer(self, x: Tensor) -> Scored:
        """Images -> predictions that are decoded only where they are asked for; of a model in eval mode."""
        return self.head.outputs(self._maps(x))

    def _maps(self, x: Tensor) -> Any:
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ValueError(
                f"input of {x.shape[-2]} x {x.shape[-1]} px; both sides must be multiples of {self.multiple} for this "
                "model"
            )
        return self.graph(x)

    def init_criterion(self, **settings: Any) -> v8DetectionLoss | E2EDetectLoss:
        """The criterion for this model; keyword arguments (`gains`, `assigner`, `cls_loss`, ...) pass through to it."""
        one = v8DetectionLoss(self.nc, self.reg_max, self.strides, **settings)
        return E2EDetectLoss.of(one) if self.end2end else one

    def loss(self, batch: Batch, preds: Any = None) -> tuple[Tensor, Tensor]:
        """As in BaseModel; `preds` may be what either mode of `predict` returned."""
        if preds is None:
            preds = self.predict(batch["img"])
        return super().loss(batch, preds[1] if isinstance(preds, tuple) else preds)

    @torch.no_grad()
    def init_biases(self, prior: float, half_side: float | None) -> None:
        """See `heads.DetectionHead.init_biases`."""
        self.head.init_biases(prior, half_side)
