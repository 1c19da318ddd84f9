"""What is measured inside the peer's Python, by its public classes, as its documentation says to call them."""

# mypy: disable-error-code="import-not-found"
# The peer is not installed where types are checked.

from __future__ import annotations

import time
from functools import partial
from typing import Any

from measure.bench import probe


def warm() -> dict[str, Any]:
    """Versions; and read what every command reads, as on our side."""
    import matplotlib.font_manager  # noqa: F401
    import torchvision  # noqa: F401

    return probe.versions("ultralytics")


def assigner(problem: str, threads: int, repeats: int, size: int) -> dict[str, Any]:
    """Memory of the first call on a saved problem, then the time of `repeats` more."""
    import numpy as np
    import torch
    from ultralytics.utils.tal import TaskAlignedAssigner

    torch.set_num_threads(threads)
    given = {name: torch.from_numpy(value) for name, value in np.load(problem).items()}
    scores = given["logits"].sigmoid_()  # outside what is measured
    labels = given["classes"].unsqueeze(-1)
    mask = torch.ones_like(labels, dtype=torch.bool)
    assign = TaskAlignedAssigner(topk=10, num_classes=scores.shape[-1], alpha=0.5, beta=6.0)

    def call() -> int:
        answer = assign(scores, given["boxes"], given["points"], labels, given["truths"], mask)
        return int(answer[3].sum())

    memory = probe.extra_memory(call)
    return {"memory": memory, "seconds": probe.seconds(call, repeats), "positives": call()}


def mosaic(data: str, imgsz: int, batch: int, at_least: float, cache: str) -> dict[str, Any]:
    """Images a second of processor time: the training batches, defaults on, for `at_least` seconds of it."""
    import cv2
    import torch
    from torch.utils.data import DataLoader
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    settings = get_cfg(overrides={"imgsz": imgsz, "cache": cache or False})
    description = check_det_dataset(data)
    dataset = build_yolo_dataset(settings, description["train"], batch, description, mode="train", stride=32)
    loader = DataLoader(dataset, batch, shuffle=True, num_workers=0, collate_fn=dataset.collate_fn)
    next(iter(loader))
    done, began = 0, time.process_time()
    while time.process_time() - began < at_least:
        for made in loader:
            done += len(made["img"])
    return {"rate": done / (time.process_time() - began)}


def detector(model: str) -> Any:
    """What `probe.frames` and `probe.files` measure."""
    from ultralytics import YOLO

    return YOLO(model)


if __name__ == "__main__":
    predicting = {"frames": partial(probe.frames, detector), "files": partial(probe.files, detector)}
    probe.serve({"warm": warm, "assigner": assigner, "mosaic": mosaic, **predicting})
