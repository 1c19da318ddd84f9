"""Validation: a detector and a labelled split -> detections in original pixels -> COCO metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from gfldet.data.eval_set import EvalBatch, EvalKey, EvalSet
from gfldet.data.loader import in_order
from gfldet.detect.detector import Detector, Selection
from gfldet.detect.look import Look
from gfldet.metrics.coco import DetectionMetrics, evaluate
from gfldet.metrics.table import DetectionTable, joined, table_of
from gfldet.ops.detections import Detections
from gfldet.ops.letterbox import Letterbox
from gfldet.ranks.value import ONE, Ranks

MOST_CUT = 2  # threads that read images which are cut into tiles: each holds large ones


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Metrics, and the detections that they were computed from (in other processes than rank 0 none)."""

    metrics: DetectionMetrics
    detections: DetectionTable


def validate(
    detector: Detector,
    data: EvalSet,
    selection: Selection,
    workers: int = 1,
    evaluator: str = "hotcoco",
    detailed: bool = True,
    progress: Callable[[Iterator[EvalBatch], int], Iterator[EvalBatch]] | None = None,
    ranks: Ranks = ONE,
) -> Validation:
    """Run a detector over a split.

    The metrics are computed from exactly the detections returned, so saved detections are the measured ones.
    `detailed` adds curves and the confusion matrix.  `progress` takes the batches and their number and returns the
    batches; it may show how far the run is.  Each of the `ranks` does its share of the batches, which are the same
    however many ranks there are; rank 0 measures.
    """
    keys = ranks.share(data.keys())
    if any(frame is None for frame, _ in keys):
        workers = min(workers, MOST_CUT)
    batches: Iterator[EvalBatch] = in_order(data.load, keys, workers)
    if progress is not None:
        batches = progress(batches, len(keys))
    own = ranks.together(lambda: _tables(Look(detector, data.size, selection, rect=data.rect), data, keys, batches))
    shares = ranks.gathered(own)
    in_turn = [share[n] for n in range(len(shares[0])) for share in shares if n < len(share)]  # rank 0 has the most
    table = joined(in_turn if ranks.leads else [])
    metrics = ranks.of_first(lambda: evaluate(data.split, table, evaluator, detailed))
    return Validation(metrics, table)


def _tables(look: Look, data: EvalSet, keys: Sequence[EvalKey], batches: Iterator[EvalBatch]) -> list[DetectionTable]:
    """What is found in each batch: while the network computes one, the detections of the last are selected."""
    tables: list[Future[DetectionTable]] = []
    with ThreadPoolExecutor(1, "select") as beside:
        for (frame, numbers), batch in zip(keys, batches, strict=True):
            if frame is None:
                assert data.tiles is not None  # they cut this image
                found = [look.at_tiles(image, data.tiles, data.batch) for image in batch.images]
                select: Callable[[], list[Detections]] = partial(list, found)
            else:
                select = partial(_selected, look, batch.boxes, look.detector.infer(batch.images))
            if tables:
                tables[-1].result()  # not more than two batches of outputs are held
            tables.append(beside.submit(_table, numbers, select))
        return [table.result() for table in tables]


def _selected(look: Look, boxes: Sequence[Letterbox], outputs: Any) -> list[Detections]:
    """The detections of a batch in px of its images, which lie in their frames as `boxes` tell."""
    found = look.detector.select(outputs, look.selection)
    return [one.in_image(box) for box, one in zip(boxes, found, strict=True)]


def _table(numbers: Sequence[int], select: Callable[[], list[Detections]]) -> DetectionTable:
    return joined([table_of(number, one) for number, one in zip(numbers, select(), strict=True)])
