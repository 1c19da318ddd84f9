"""A training run made ready on a handful of pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gfldet.config.load import resolve
from gfldet.nn.build import Description
from gfldet.store import runs
from gfldet.train import prepare
from gfldet.train.trainer import Trainer


@pytest.fixture
def prepared(dataset: Callable[..., Any], quick: dict[str, Any], tiny: Description) -> Callable[..., Trainer]:
    """settings -> a trainer before its first step; its data set has 6 training and 4 validation images."""
    drawn = dataset()

    def make(description: Description = tiny, **settings: Any) -> Trainer:
        resolved = resolve("train", {**quick, "data": str(drawn.yaml), **settings})
        folder = runs.claim_folder(resolved.project, resolved.name, "train", resolved.exist_ok)
        return prepare.prepare_training(resolved, description, None, folder)

    return make
