"""Validation: a detector and a labelled split -> detections in original pixels -> COCO metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gfldet.data.eval_set import EvalBatch, EvalKey, EvalSet
from gfldet.data.loader import in_order
from gfldet.detect.detector import Detector, Selection
from gfldet.detect.look import Look
from gfldet.metrics.coco import DetectionMetrics, evaluate
from gfldet.metrics.table import DetectionTable, joined, table_of
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
    """What is found in each batch."""
    detector, tables = look.detector, []
    for (_, numbers), batch in zip(keys, batches, strict=True):
        if batch.to_cut and data.tiles is not None:
            found = [look.at_tiles(image, data.tiles, data.batch) for image in batch.images]
        else:
            seen = detector.select(detector.infer(batch.images), look.selection)
            found = [one.in_image(box) for box, one in zip(batch.boxes, seen, strict=True)]
        tables.append(joined([table_of(number, one) for number, one in zip(numbers, found, strict=True)]))
    return tables
