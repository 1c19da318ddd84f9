"""What is compared, and how long: the settings of a run of `tools/bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from measure.bench.sides import Side


@dataclass(frozen=True)
class Bench:
    """What is compared and how long."""

    ours: Side
    theirs: Side
    work: Path
    data: str
    peer_data: Path
    repeats: int | None  # None: as each part thinks right
    quick: bool
    threads: int
    imgsz: int
    batch: int
    epochs: int  # of the accuracy run
    short: int  # epochs of the shorter throughput run
    peer_accuracy: bool
    weights: Path | None  # that both sides read; None: fresh ones
    bfloat16: bool  # False: hidden from both sides
    plot: Path | None  # a picture of how costs grow
    libre: Side | None  # LibreYOLO, where it is compared with

    @property
    def shared(self) -> dict[str, object]:
        """Settings that both train commands are given; all others are each side's defaults."""
        return {"imgsz": self.imgsz, "batch": self.batch, "seed": 0}

    @property
    def own(self) -> dict[str, object]:
        """Settings that our train command alone is given."""
        return {} if self.bfloat16 else {"amp": "off"}

    @property
    def models(self) -> tuple[str, str]:
        """What both sides predict with: the weights that the user named, or fresh ones of the same graph."""
        return (str(self.weights), str(self.weights)) if self.weights else ("gfldet-n", "yolov8n.yaml")

    def times(self, usual: int) -> range:
        """How often to repeat something that is usually repeated `usual` times."""
        return range(self.repeats or (1 if self.quick else usual))
