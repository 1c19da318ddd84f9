"""The detections of many images as columns.

The numbers are rounded as in predictions.json, so metrics and file have the same numbers.
Letter: N detections of all images.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gfldet.errors import DataError, listed, shown
from gfldet.ops.detections import Detections

if TYPE_CHECKING:
    from gfldet.data.records import Split

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PX_DIGITS, SCORE_DIGITS = 3, 6  # decimals of boxes and scores in a file


@dataclass(frozen=True, slots=True, eq=False)
class DetectionTable:
    """N detections, image after image.

    image    (N,) number of the image: its position in `Split.records`, or in the order of prediction
    classes  (N,) position of the class in the names
    boxes    (N, 4) xywh (left, top, width, height), px of the original image
    scores   (N,)
    tracks   (N,) ids of tracks, -1 for none yet; None where nothing is tracked
    """

    image: Ints
    classes: Ints
    boxes: Floats
    scores: Floats
    tracks: Ints | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> DetectionTable:
        """The given rows, in the order of `rows`."""
        tracks = None if self.tracks is None else self.tracks[rows]
        return DetectionTable(self.image[rows], self.classes[rows], self.boxes[rows], self.scores[rows], tracks)

    def corners(self) -> Floats:
        """(N, 4) xyxy, px of the original image."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)


def table_of(image: int, detections: Detections) -> DetectionTable:
    """The detections of image number `image` as rows of a table; boxes in px of this image."""
    boxes = detections.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return DetectionTable(
        np.full(len(detections), image, np.int64),
        detections.classes.astype(np.int64),
        boxes.round(PX_DIGITS),
        detections.scores.astype(np.float64).round(SCORE_DIGITS),
        detections.tracks,
    )


def joined(parts: Sequence[DetectionTable]) -> DetectionTable:
    """The rows of all parts, in order; with tracks if all have them."""
    tracks = [part.tracks for part in parts if part.tracks is not None]
    return DetectionTable(
        np.concatenate([np.zeros(0, np.int64), *(part.image for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.classes for part in parts)]),
        np.concatenate([np.zeros((0, 4)), *(part.boxes for part in parts)]),
        np.concatenate([np.zeros(0), *(part.scores for part in parts)]),
        np.concatenate(tracks) if tracks and len(tracks) == len(parts) else None,
    )


def coco_results(
    table: DetectionTable, images: Sequence[tuple[int | str, str]], category_ids: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yields the rows as COCO results; `images` holds (image_id, file_name) by number.  A row that is tracked has a
    `track_id`."""
    tracks = [None] * len(table) if table.tracks is None else table.tracks.tolist()
    columns = (table.image.tolist(), table.classes.tolist(), table.boxes, table.scores.tolist(), tracks)
    for number, c, box, score, track in zip(*columns, strict=True):
        image_id, file_name = images[number]
        yield {
            "image_id": image_id,
            "file_name": file_name,
            "category_id": category_ids[c],
            "bbox": box.tolist(),
            "score": score,
            **({} if track is None else {"track_id": track}),
        }


def split_results(table: DetectionTable, split: Split) -> Iterator[dict[str, Any]]:
    """The rows of a split's table as COCO results with the user's own ids."""
    images = list(zip(split.records.image_ids, split.records.file_names, strict=True))
    return coco_results(table, images, split.category_ids)


def read_results(split: Split, results: Sequence[Mapping[str, Any]]) -> DetectionTable:
    """COCO result dicts (`image_id`, `category_id`, `bbox` xywh px, `score`) -> rows, in the same order.

    Raises DataError for an image or category id that the split does not have, and for boxes and scores that are none.
    """
    images = {image_id: i for i, image_id in enumerate(split.records.image_ids)}
    categories = {category: i for i, category in enumerate(split.category_ids)}
    try:
        image = [images[d["image_id"]] for d in results]
        classes = [categories[d["category_id"]] for d in results]
        boxes = np.array([d["bbox"] for d in results], np.float64).reshape(len(results), 4)
        scores = np.array([d["score"] for d in results], np.float64).reshape(len(results))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise _unusable(split, results) from None
    return DetectionTable(np.array(image, np.int64), np.array(classes, np.int64), boxes, scores)


def _unusable(split: Split, results: Sequence[Mapping[str, Any]]) -> DataError:
    known: dict[str, set[Any]] = {
        "image_id": set(split.records.image_ids),
        "category_id": set(split.category_ids),
    }
    problems = [problem for row, one in enumerate(results) if (problem := _problem(row, one, known))]
    head = f"Detections that are none, or of images or categories that the split '{split.name}' does not have:"
    return DataError(listed(head, problems, "Use the ids of the split (Record.image_id, Split.category_ids).", 20))


def _problem(row: int, one: object, known: Mapping[str, set[Any]]) -> str:
    """What is wrong with one detection; empty if nothing is."""
    if not isinstance(one, Mapping):
        return f"detection {row}: {shown(one)}, which is no mapping"
    for key in (*known, "bbox", "score"):
        if key not in one:
            return f"detection {row}: no {key} (its keys: {', '.join(shown(k, quoted=False) for k in one)})"
    for key, ids in known.items():
        if not isinstance(one[key], Hashable) or one[key] not in ids:
            return f"detection {row}: {key} {shown(one[key])}"
    for key, shape in (("bbox", (4,)), ("score", ())):
        try:
            right = np.asarray(one[key], np.float64).shape == shape
        except (TypeError, ValueError, OverflowError):
            right = False
        if not right:
            return f"detection {row}: {key} {shown(one[key])}"
    return ""
