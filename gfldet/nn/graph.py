"""Layers that read each other, as `build` makes them from a description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gfldet.nn.heads import DetectionHead


class Graph(nn.Module):
    """Layers in order, each with the numbers of those it reads.  The last is the head."""

    def __init__(self, layers: Sequence[nn.Module], sources: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sources = tuple(sources)
        self._needed = frozenset(s for i, row in enumerate(sources) for s in row if s != i - 1)

    @property
    def head(self) -> DetectionHead:
        head = self.layers[-1]
        assert isinstance(head, DetectionHead)
        return head

    @property
    def multiple(self) -> int:
        """What the sides of an image must be multiples of."""
        return int(getattr(self.layers[0], "multiple", max(self.head.strides)))

    def forward(self, x: Tensor) -> Any:
        """Images (B, 3, H, W) -> what the last layer returns."""
        kept: dict[int, Any] = {-1: x}
        out: Any = x
        for number, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            inputs = [out if s == number - 1 else kept[s] for s in sources]
            if number == len(self.layers) - 1:  # the head takes levels, however they are grouped
                inputs = [x for given in inputs for x in (given if isinstance(given, list) else [given])]
                out = layer(inputs)
            else:
                out = layer(inputs[0] if len(inputs) == 1 else inputs)
            if number in self._needed:
                kept[number] = out
        return out
