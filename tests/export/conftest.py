"""Models whose scores differ from point to point and from picture to picture, as those of trained ones do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gfldet.engine import checkpoint as checkpoints
from gfldet.engine.checkpoint import Checkpoint
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel

NAMES = ("red", "blue")


def _spread(model: DetectionModel, seed: int = 0) -> DetectionModel:
    """Fresh weights, so drawn that scores lie anywhere in [0, 1] and boxes have all sizes."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.2, generator=generator)
        elif name.endswith("bias"):  # no number is left to the seed of the moment
            value.uniform_(-0.1, 0.1, generator=generator)
        elif value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    model.head.init_biases(prior=0.3)
    for weight in model.predicting():
        if weight.ndim == 4:
            weight.data.normal_(0, 4 / weight[0].numel() ** 0.5, generator=generator)
    return model.eval()


@pytest.fixture
def spread() -> Callable[[DetectionModel], DetectionModel]:
    return _spread


@pytest.fixture
def spread_model(tiny: Description) -> DetectionModel:
    return _spread(DetectionModel(tiny, NAMES))


@pytest.fixture
def checkpoint(spread_model: DetectionModel, tmp_path: Path) -> Callable[..., Path]:
    """Writes that model as a checkpoint of a run at 64 px on `data`."""

    def write(data: Path | None = None, name: str = "best.pt") -> Path:
        settings = {"imgsz": 64} | ({} if data is None else {"data": str(data)})
        path = tmp_path / name
        weights = spread_model.state_dict()
        checkpoints.save(path, Checkpoint(spread_model.description, NAMES, (7, 91), weights, settings))
        return path

    return write


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """RGB pictures of several sizes and shapes, no two places alike: equal scores would leave NMS a choice."""
    rng = np.random.default_rng(0)
    shapes = ((64, 64), (80, 120), (160, 48))
    coarse = [rng.integers(0, 255, (h // 8, w // 8, 3), np.uint8) for h, w in shapes]
    return [cv2.resize(c, (w, h), interpolation=cv2.INTER_CUBIC) for c, (h, w) in zip(coarse, shapes, strict=True)]
