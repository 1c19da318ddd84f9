"""Validation: a model and a labelled split -> detections in original pixels -> COCO metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfldet.config.schema import Detections as DetectionSettings
from gfldet.data.dataset import EvalBatch, EvalSet, to_input
from gfldet.data.loader import in_order
from gfldet.metrics.coco import DetectionMetrics, evaluate
from gfldet.nn.tasks import DetectionModel
from gfldet.ops.nms import Detections, non_max_suppression


@dataclass(frozen=True, slots=True)
class NMS:
    """How detections are chosen; see `ops.nms`.  Those of an end-to-end head are chosen by score alone."""

    conf: float = 0.001
    iou: float = 0.7
    max_det: int = 300
    agnostic: bool = False

    @classmethod
    def of(cls, settings: DetectionSettings, conf: float = 0.001) -> NMS:
        """What the settings say; `conf` where they leave it open."""
        chosen = conf if settings.conf is None else settings.conf
        return cls(chosen, settings.iou, settings.max_det, settings.agnostic_nms)

    def __call__(self, decoded: Tensor, end2end: bool, classes: Tensor | None = None) -> list[Detections]:
        """The detections of each image in decoded head output (B, 4 + C, A)."""
        iou = None if end2end else self.iou
        return non_max_suppression(decoded, self.conf, iou, self.max_det, self.agnostic, classes)


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Metrics, and the predictions they were computed from (COCO results with `file_name`)."""

    metrics: DetectionMetrics
    predictions: list[dict[str, Any]]


def for_inference(model: DetectionModel, device: torch.device) -> DetectionModel:
    """A fused copy in eval mode on `device`, laid out for speed."""
    fused = copy.deepcopy(model)
    fused.fuse()
    fused.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fused


def validate(
    model: DetectionModel,
    data: EvalSet,
    nms: NMS,
    workers: int = 1,
    evaluator: str = "hotcoco",
    detailed: bool = True,
    progress: Callable[[Iterator[EvalBatch], int], Iterator[EvalBatch]] | None = None,
) -> Validation:
    """Run a model made by `for_inference` over a split.

    The metrics are those of the predictions returned, to the last bit: what is saved is what was measured.  `detailed`
    adds curves and the confusion matrix.  `progress` may wrap the batches (and their number) to show where it stands.
    """
    device = next(model.parameters()).device
    predictions: list[dict[str, Any]] = []
    keys = data.keys()
    batches: Iterator[EvalBatch] = in_order(data.load, keys, workers)
    if progress is not None:
        batches = progress(batches, len(keys))
    with torch.inference_mode():
        for batch in batches:
            decoded, _ = model.predict(to_input(batch.images, device))
            found = nms(decoded, model.end2end)
            for record, box, detections in zip(batch.records, batch.boxes, found, strict=True):
                predictions += coco_results(detections, box, record.image_id, record.file_name, data.split.category_ids)
    return Validation(evaluate(data.split, predictions, evaluator, detailed), predictions)


def coco_results(
    detections: Detections, box: Any, image_id: int | str, file_name: str, category_ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    """The detections of one image as COCO results: bbox xywh in original pixels, rounded to what a file should hold."""
    corners = box.inverse(detections.boxes.cpu().numpy()).astype("float64")
    corners[:, 2:] -= corners[:, :2]
    return [
        {"image_id": image_id, "file_name": file_name, "category_id": category_ids[c], "bbox": b, "score": s}
        for b, s, c in zip(
            corners.round(3).tolist(),
            detections.scores.cpu().double().numpy().round(6).tolist(),
            detections.classes.tolist(),
            strict=True,
        )
    ]
