"""AP50-95 of saved predictions, by pycocotools, with nothing of gfldet's own metrics in between."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gfldet.data.records import Split


def average_precision(split: Split, predictions: Sequence[Mapping[str, Any]]) -> float:
    """COCO AP at IoU .50 to .95 of predictions (`image_id`, `category_id`, `bbox` xywh px, `score`) on a split."""
    if not predictions:
        return 0.0
    numbers = {record.image_id: number for number, record in enumerate(split.records)}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _truths(split)
        truth.createIndex()
        found = truth.loadRes([{**one, "image_id": numbers[one["image_id"]]} for one in predictions])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _truths(split: Split) -> dict[str, Any]:
    """The split as a COCO data set; images go by their number.  An ignore region is a crowd of every class."""
    rows = [
        (number, category, box, crowd)
        for number, record in enumerate(split.records)
        for boxes, categories_of, crowd in (
            (record.boxes, [[split.category_ids[cls]] for cls in record.classes], 0),
            (record.ignore, [list(split.category_ids)] * len(record.ignore), 1),
        )
        for box, categories in zip(boxes.tolist(), categories_of, strict=True)
        for category in categories
    ]
    annotations = [
        {
            "id": count,
            "image_id": number,
            "category_id": category,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": crowd,
        }
        for count, (number, category, (x1, y1, x2, y2), crowd) in enumerate(rows, 1)
    ]
    images = [{"id": i, "width": record.width, "height": record.height} for i, record in enumerate(split.records)]
    names = [{"id": i, "name": name} for i, name in zip(split.category_ids, split.names, strict=True)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": names}
