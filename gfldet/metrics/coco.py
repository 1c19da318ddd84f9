"""COCO average precision of a split's detections, by hotcoco or by pycocotools, and the other metrics.

Both evaluators get the same truths and detections, and the same code here averages their precision arrays, so their
results differ only by rounding.  The rules are those of COCO: IoU .50 to .95, 101 recall points, at most 100
detections per image and class, sizes split at 32 and 96 px squared (the area of a truth is that of its box), and
detections in ignore regions left out.

An undefined number is NaN, and null in JSON: for example AP of a class (or size) without truths.  Means leave it out.
AP of a class with truths but without detections is 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from gfldet.data.records import ANY_CLASS
from gfldet.errors import ConfigError
from gfldet.metrics.confusion import confusion_matrix
from gfldet.metrics.curves import Curve, Point, best_mean, class_curves, found_share
from gfldet.metrics.matching import SplitTruths, match, truth_columns
from gfldet.metrics.quality import score_iou_correlations
from gfldet.metrics.table import DetectionTable, Floats, Ints, read_results

if TYPE_CHECKING:
    from gfldet.data.records import Split

AREAS = ("all", "small", "medium", "large")
_THEIR_NAMES = ("metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)")
MOST_CLASSES_CONFUSED = 2000  # the confusion matrix grows with the square of the classes: 32 MB for so many
CONF_WITHOUT_BEST = 0.25  # the score threshold where no threshold has a best F1


def working_conf(best_conf: float) -> float:
    """The score threshold of the best F1, or CONF_WITHOUT_BEST if that is NaN."""
    return CONF_WITHOUT_BEST if math.isnan(best_conf) else best_conf


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """One class.  `precision`, `recall` and `f1` hold at `best_conf`, the score threshold with the best F1 (IoU .5).

    truths, images  number of truths, and number of images with a truth of the class
    best_conf       NaN when no detection of the class is right
    """

    name: str
    category_id: int
    truths: int
    images: int
    ap: float
    ap50: float
    precision: float
    recall: float
    f1: float
    best_conf: float


@dataclasses.dataclass(frozen=True)
class DetectionMetrics:
    """All classes together.

    map, map50, map75   mean AP over classes with truths: IoU .50:.95, .50, .75;  map_small, ...: truths of that size
    precision, recall, f1  means over classes with truths, at `best_conf`, the threshold with the best mean F1
    found               share of the truths that a detection of any score finds (IoU .5), mean over classes
    score_iou           rank correlation of score with IoU (see `quality`): does a score say how well a box fits?
    score_iou_matched   the same for the detections with an IoU of .5 or more with a truth
    truths, images      counts of the whole split, with images without truths
    curves, confusion   the curve of each class, and the (C+1, C+1) matrix at `working_conf`;
                        empty and None without `detailed`; no matrix of more than MOST_CLASSES_CONFUSED classes
    """

    map: float
    map50: float
    map75: float
    map_small: float
    map_medium: float
    map_large: float
    precision: float
    recall: float
    f1: float
    best_conf: float
    found: float
    score_iou: float
    score_iou_matched: float
    truths: int
    images: int
    per_class: tuple[ClassMetrics, ...]
    curves: tuple[Curve, ...] = dataclasses.field(default=(), repr=False, compare=False)
    confusion: Ints | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def box(self) -> DetectionMetrics:
        """These metrics, which are of boxes: `metrics.box.map` is `metrics.map`, as other packages write it."""
        return self

    @property
    def working_conf(self) -> float:
        """The score threshold that the confusion matrix and pictures go by: `best_conf`, or .25 if that is NaN."""
        return working_conf(self.best_conf)

    @property
    def mp(self) -> float:
        """`precision`, under the name that other packages give it."""
        return self.precision

    @property
    def mr(self) -> float:
        """`recall`, under the name that other packages give it."""
        return self.recall

    @property
    def maps(self) -> Floats:
        """(C,) AP of each class."""
        return np.array([row.ap for row in self.per_class], np.float64)

    @property
    def results_dict(self) -> dict[str, float]:
        """Precision, recall and mAP by the names that other packages give them."""
        values = (self.precision, self.recall, self.map50, self.map)
        return dict(zip(_THEIR_NAMES, values, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json: all numbers, `per_class` as a list, None for NaN; no curves, no matrix."""
        plain: dict[str, Any] = {
            field.name: _json_number(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in ("per_class", "curves", "confusion")
        }
        plain["per_class"] = [
            {key: _json_number(value) for key, value in dataclasses.asdict(row).items()} for row in self.per_class
        ]
        return plain


def _json_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_evaluator(evaluator: str) -> None:
    """ConfigError for an evaluator that is unknown or not installed, before there is anything to measure."""
    if evaluator not in EVALUATORS:
        raise ConfigError(f"evaluator={evaluator!r} is unknown; use one of {', '.join(EVALUATORS)}.")
    try:
        import_module(evaluator)
    except ImportError as error:
        raise ConfigError(
            f"evaluator={evaluator} needs the package {evaluator} (pip install {evaluator}): {error}"
        ) from error


def evaluate(
    split: Split,
    detections: DetectionTable | Sequence[Mapping[str, Any]],
    evaluator: str = "hotcoco",
    detailed: bool = True,
) -> DetectionMetrics:
    """Evaluates detections against the truths of a split.

    detections  a table (its images and classes are positions in the split); or COCO result dicts with `image_id`,
                `category_id` (the ids of the split), `bbox` xywh px of the original image and `score`; other keys have
                no effect.  The content of predictions.json has this form.
    evaluator   "hotcoco" (fast) or "pycocotools" (the reference)
    detailed    also keep the curves and the confusion matrix

    Raises DataError for ids that the split does not have, ConfigError for an unknown or missing evaluator.
    """
    check_evaluator(evaluator)
    columns = detections if isinstance(detections, DetectionTable) else read_results(split, detections)
    truths = truth_columns(split)
    precision = np.full((10, 101, len(split.names), len(AREAS)), -1.0)  # -1: undefined
    if len(truths.classes):  # without truths hotcoco 1.0 complains
        precision = EVALUATORS[evaluator](split, columns)
    curves = class_curves(truths, columns, match(truths, columns), len(split.names))
    overall = best_mean(curves)
    score_iou, score_iou_matched = score_iou_correlations(truths, columns, (0.0, 0.5))
    ap = [_mean_of_defined(precision[..., area]) for area in range(len(AREAS))]
    with_matrix = detailed and len(split.names) <= MOST_CLASSES_CONFUSED
    return DetectionMetrics(
        map=ap[0],
        map50=_mean_of_defined(precision[0, ..., 0]),
        map75=_mean_of_defined(precision[5, ..., 0]),
        map_small=ap[1],
        map_medium=ap[2],
        map_large=ap[3],
        precision=overall.precision,
        recall=overall.recall,
        f1=overall.f1,
        best_conf=overall.conf,
        found=found_share(curves),
        score_iou=score_iou,
        score_iou_matched=score_iou_matched,
        truths=len(truths.classes),
        images=len(split.records),
        per_class=_per_class(split, truths, precision[..., 0], curves),
        curves=curves if detailed else (),
        confusion=_confusion(truths, columns, len(split.names), overall) if with_matrix else None,
    )


def _per_class(
    split: Split, truths: SplitTruths, precision: Floats, curves: Sequence[Curve]
) -> tuple[ClassMetrics, ...]:
    """precision: (10 IoU thresholds, 101 recall points, C)."""
    classes_of_images = np.unique(np.column_stack((truths.classes, split.records.images)), axis=0)[:, 0]
    images = np.bincount(classes_of_images, minlength=len(curves))
    rows = []
    for c, curve in enumerate(curves):
        best = curve.best()
        rows.append(
            ClassMetrics(
                name=split.names[c],
                category_id=split.category_ids[c],
                truths=curve.truths,
                images=int(images[c]),
                ap=_mean_of_defined(precision[:, :, c]),
                ap50=_mean_of_defined(precision[0, :, c]),
                precision=best.precision,
                recall=best.recall,
                f1=best.f1,
                best_conf=best.conf,
            )
        )
    return tuple(rows)


def _confusion(truths: SplitTruths, columns: DetectionTable, classes: int, overall: Point) -> Ints:
    return confusion_matrix(truths, columns, classes, working_conf(overall.conf))


def _mean_of_defined(precision: Floats) -> float:
    """The mean without COCO's -1, which means "no truths"; NaN if there are no other values."""
    defined = precision[precision > -1]
    return float(defined.mean()) if len(defined) else float("nan")


# --------------------------------------------------------------------------------------------- the two evaluators


def ground_truth(split: Split) -> dict[str, Any]:
    """The split as a COCO instances dict with the user's own ids; annotation ids start at 1.

    An ignore region is a crowd annotation of its class; a region for all classes gives one crowd per class.
    """
    return _coco_dict(split, split.records.image_ids, split.category_ids)


def _coco_dict(split: Split, image_ids: Sequence[int | str], category_ids: Sequence[int]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, record in zip(image_ids, split.records, strict=True):
        images.append({"id": image_id, "file_name": record.file_name, "width": record.width, "height": record.height})
        truths = [(box, category_ids[c], 0) for box, c in zip(record.boxes.tolist(), record.classes, strict=True)]
        crowds = [
            (box, category_ids[c], 1)
            for k, box in enumerate(record.ignore.tolist())
            for c in (range(len(category_ids)) if record.ignore_classes is None else [record.ignore_classes[k]])
        ]
        for (x1, y1, x2, y2), category, crowd in truths + crowds:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # from 1: for COCOeval, id 0 means "no match"
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": crowd,
                }
            )
    categories = [{"id": category, "name": name} for category, name in zip(category_ids, split.names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _image_numbers(split: Split) -> Ints:
    """(B,) whole numbers, from 1, in place of the ids of the images, which may be words.

    COCOeval reads images in the order of their ids, and this order decides between equal scores.  So the numbers
    have the order of the ids.
    """
    ids = split.records.image_ids
    order = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    numbers = np.empty(len(ids), np.int64)
    numbers[order] = np.arange(1, len(ids) + 1)
    return numbers


def run_hotcoco(split: Split, detections: DetectionTable) -> Any:
    """hotcoco's COCOeval of a split with truths: evaluated, not accumulated."""
    import hotcoco

    numbers = _image_numbers(split)
    table = np.column_stack([numbers[detections.image], detections.boxes, detections.scores, detections.classes + 1])
    coco = _hotcoco_truths(split, numbers)
    run = hotcoco.COCOeval(coco, coco.load_res(table), "bbox")
    run.evaluate()
    return run


def _hotcoco(split: Split, detections: DetectionTable) -> Floats:
    """(10, 101, C, 4 areas) precision at 100 detections; -1 where there is no truth."""
    run = run_hotcoco(split, detections)
    run.accumulate()
    return _precision(run.eval)


def _hotcoco_truths(split: Split, numbers: Ints) -> Any:
    """What `_coco_dict` describes, without an object for each box."""
    import hotcoco

    truths, (width, height) = truth_columns(split), split.records.sizes.T.tolist()
    of_all = np.flatnonzero(truths.ignore_classes == ANY_CLASS)  # such a region counts once for each class
    one = np.flatnonzero(truths.ignore_classes != ANY_CLASS)
    region = np.concatenate([one, np.repeat(of_all, len(split.names))])
    region_class = np.concatenate([truths.ignore_classes[one], np.tile(np.arange(len(split.names)), len(of_all))])
    image = np.concatenate(
        [split.records.images, np.repeat(np.arange(len(numbers)), np.diff(truths.ignore_start))[region]]
    )
    order = np.argsort(image, kind="stable")  # image after image, truths first
    boxes = np.concatenate([truths.boxes, truths.ignore[region]])[order]
    boxes[:, 2:] -= boxes[:, :2]
    return hotcoco.COCO.from_arrays(
        [
            {"id": n, "file_name": "", "width": w, "height": h}
            for n, w, h in zip(numbers.tolist(), width, height, strict=True)
        ],
        [{"id": c, "name": name} for c, name in enumerate(split.names, 1)],
        numbers[image[order]],
        np.concatenate([truths.classes, region_class])[order] + 1,
        boxes,
        ids=np.arange(1, len(order) + 1),  # from 1: for COCOeval, id 0 means "no match"
        area=boxes[:, 2] * boxes[:, 3],
        iscrowd=np.repeat([0, 1], [len(truths.classes), len(region)])[order],
    )


def _pycocotools(split: Split, detections: DetectionTable) -> Floats:
    """The same array as `_hotcoco`, from the reference implementation."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    numbers = _image_numbers(split)
    truth = _coco_dict(split, numbers.tolist(), range(1, len(split.names) + 1))
    columns = (numbers[detections.image], detections.classes + 1, detections.boxes, detections.scores)
    rows = [
        {
            "id": i,
            "image_id": image,
            "category_id": c,
            "bbox": box,
            "area": box[2] * box[3],
            "score": score,
            "iscrowd": 0,
        }
        for i, (image, c, box, score) in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco, results = COCO(), COCO()
        coco.dataset, results.dataset = truth, {**truth, "annotations": rows}
        coco.createIndex()
        results.createIndex()  # not loadRes: that fails on an empty list
        run = COCOeval(coco, results, "bbox")
        run.evaluate()
        run.accumulate()
    return _precision(run.eval)


def _precision(accumulated: Any) -> Floats:
    """COCOeval's precision (10, 101, C, 4, 3) -> (10, 101, C, 4): the last of the detection limits 1, 10, 100."""
    return np.asarray(accumulated["precision"], np.float64)[..., -1]


EVALUATORS: dict[str, Callable[[Split, DetectionTable], Floats]] = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}


# ------------------------------------------------------------------------------------------------------- the table


def format_table(metrics: DetectionMetrics) -> str:
    """An aligned table for the terminal: a row for all classes, then one row per class; "-" stands for NaN."""
    head = ("class", "images", "truths", "P", "R", "F1", "conf", "AP50", "AP50-95")
    m = metrics
    rows = [("all", m.images, m.truths, m.precision, m.recall, m.f1, m.best_conf, m.map50, m.map)]
    rows += [(c.name, c.images, c.truths, c.precision, c.recall, c.f1, c.best_conf, c.ap50, c.ap) for c in m.per_class]
    cells = [head, *(tuple(_cell(value) for value in row) for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = []
    for name, *numbers in cells:
        padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    text = str(value)
    return text if len(text) <= 24 else text[:22] + ".."
