"""What is measured inside LibreYOLO's Python, by its public classes, as its documentation says to call them."""

# mypy: disable-error-code="import-not-found"
# LibreYOLO is not installed where types are checked.

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from measure.bench import probe

SIZE = "t"  # of its YOLOv9, which is the network of gfldet-v9-t


def warm() -> dict[str, Any]:
    """Versions; and read what every command reads, as on our side."""
    import torchvision  # noqa: F401

    return probe.versions("libreyolo")


def detector(model: str) -> Any:
    """What `probe.frames` and `probe.files` measure; an empty `model` has fresh weights."""
    from libreyolo import LibreYOLO, LibreYOLO9

    return LibreYOLO(model, device="cpu") if model else LibreYOLO9(None, size=SIZE, device="cpu")


def train(data: str, project: str, **settings: Any) -> dict[str, Any]:
    """Train from scratch; the last weights, and the table with the seconds of each epoch."""
    import torch

    torch.manual_seed(0)
    detector("").train(data=data, project=project, name="one", pretrained=False, device="cpu", **settings)
    where = Path(project) / "one"
    return {"weights": str(where / "weights" / "last.pt"), "results": str(where / "results.csv")}


if __name__ == "__main__":
    predicting = {"frames": partial(probe.frames, detector), "files": partial(probe.files, detector)}
    probe.serve({"warm": warm, "train": train, **predicting})
