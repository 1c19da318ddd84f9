"""The check of an export: the file runs on real images and must agree with the torch model before it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gfldet.detect.card import Card
from gfldet.detect.detector import Selection
from gfldet.detect.exported import ExportedDetector
from gfldet.detect.torch_detector import TorchDetector
from gfldet.errors import WorkError, counted
from gfldet.metrics.matching import pairwise_iou
from gfldet.ops import letterbox
from gfldet.ops.boxes import xywh_to_xyxy
from gfldet.ops.decode import Decoded
from gfldet.ops.detections import Detections

MIN_POINT_SCORE = 0.01  # boxes of points with lower scores are background: they are never used, so never compared
MIN_DETECTION_SCORE = 0.05  # detections with lower scores are not compared; a higher `conf` inside the file wins


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest allowed difference of a box side in `px` and of a `score`.  `alone` is the share of detections that
    may have no partner for a reason that `_without_partner` does not recognise (a late effect of a choice of NMS)."""

    px: float
    score: float
    alone: float = 0.0


# float32: two orders of magnitude above the differences measured with other orders of summation (.0005 px, 5e-7).
# float16: it has ten bits.
TOLERANCES = {"float32": Tolerance(0.05, 1e-4, 0.005), "float16": Tolerance(2.0, 0.02, 0.05)}


@dataclass(frozen=True, slots=True)
class Parity:
    """What the comparison found: largest differences, and how much was compared."""

    px: float
    score: float
    frames: int
    detections: int
    shapes: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"equal to torch on {counted(self.frames, 'frame')} ({', '.join(self.shapes)}): boxes within "
            f"{self.px:.2g} px, scores within {self.score:.2g}; {counted(self.detections, 'detection')}"
        )


def compare(
    torch_side: TorchDetector, decoded: ExportedDetector, final: ExportedDetector, images: Sequence[NDArray[np.uint8]]
) -> Parity:
    """Run the torch model and the file on frames of every kind that the file takes.

    `decoded` (layout raw or decoded) gives boxes and scores of all points; they are compared number by number.  `final`
    is the file as it will be used; its detections are compared too.  It may be `decoded` itself.  Raises WorkError at
    the first difference beyond TOLERANCES.
    """
    limit = TOLERANCES[final.card.precision]
    card = final.card
    inside_file = Selection(max(MIN_DETECTION_SCORE, card.conf), card.iou, card.max_det, card.agnostic)
    selection = inside_file if card.max_det else Selection(MIN_DETECTION_SCORE)
    px = score = 0.0
    count = frames = 0
    shapes = []
    for batch in batches(images, card):
        shape = " x ".join(map(str, batch.shape[:3]))
        outputs = torch_side.infer(batch)
        points = _point_differences(outputs.decoded(), decoded, batch)
        theirs, ours = final.select(final.infer(batch), selection), torch_side.select(outputs, selection)
        alone = sum(_without_partner(a, b, limit, selection) for a, b in zip(ours, theirs, strict=True))
        found = sum(len(one.boxes) for one in ours)
        if not (points.px <= limit.px and points.score <= limit.score and alone <= limit.alone * found):
            raise WorkError(
                f"the exported graph differs from the torch model on frames of {shape} (images x height x width): "
                f"boxes by {points.px:.3g} px (at most {limit.px:g}), scores by {points.score:.3g} (at most "
                f"{limit.score:g}), {alone} of {counted(found, 'detection')} without a partner. Nothing was "
                "written; please report this with the versions of torch and onnxruntime"
            )
        px, score = max(px, points.px), max(score, points.score)
        count, frames = count + found, frames + len(batch)
        shapes.append(shape)
    return Parity(px, score, frames, count, tuple(shapes))


def batches(images: Sequence[NDArray[np.uint8]], card: Card) -> Iterator[NDArray[np.uint8]]:
    """The images, letterboxed into batches of every kind that the file takes: several frame and batch sizes."""
    height, width = card.imgsz
    step = card.multiple
    frames = [(height, width)]
    if card.dynamic == "all":
        frames += [(max(step, height - step), width + step), (max(step, height // 2 // step * step), width)]
    counts = (card.batch, card.batch + 1) if card.dynamic == "none" else (1, 3)
    for number, frame in enumerate(frames):
        count = counts[number % 2]
        for start, size in ((0, count), (count, counts[1 - number % 2])) if number == 0 else ((0, count),):
            picked = [images[(start + i) % len(images)] for i in range(size)]
            yield np.stack([letterbox.framed(image, frame, card.pad_colour) for image in picked])


@dataclass(frozen=True, slots=True)
class _Differences:
    px: float
    score: float


def _point_differences(decoded: Decoded, exported: ExportedDetector, batch: NDArray[np.uint8]) -> _Differences:
    """Largest differences over all points of torch's output; not finite if the file's numbers are not."""
    boxes, scores = exported.points(exported.infer(batch))
    corners = xywh_to_xyxy(decoded.boxes.transpose(1, 2)).numpy()
    ours = decoded.scores.transpose(1, 2).numpy()
    compared = ours.max(-1) > MIN_POINT_SCORE
    px = np.abs(corners - boxes)[compared].max(initial=0)
    return _Differences(float(px), float(np.abs(ours - scores).max()))


def _without_partner(ours: Detections, theirs: Detections, limit: Tolerance, selection: Selection) -> int:
    """How many detections have neither a partner (same class, place and score) on the other side nor an excuse.

    One excuse is a score at a threshold: `conf`, or the last of `max_det`.  The other is a choice of NMS that rounding
    decides, between two detections of the same score or two that overlap by about `iou`, or an effect of such a choice:
    an overlap with a detection of the other side that has no partner.
    """
    tied = np.abs(ours.scores[:, None] - theirs.scores) <= limit.score
    close = np.abs(ours.boxes[:, None] - theirs.boxes).max(-1, initial=0) <= limit.px
    partner = tied & close & (ours.classes[:, None] == theirs.classes)
    ours_alone, theirs_alone = ~partner.any(1), ~partner.any(0)
    overlap = pairwise_iou(ours.boxes.astype(np.float64), theirs.boxes.astype(np.float64))
    doubtful = tied | (np.abs(overlap - selection.iou) < 0.01)
    rival = (overlap > selection.iou - 0.01) & (selection.agnostic | (ours.classes[:, None] == theirs.classes))
    ours_excused = _at_threshold(ours, theirs, limit, selection) | (rival & (doubtful | theirs_alone)).any(1)
    theirs_excused = _at_threshold(theirs, ours, limit, selection) | (rival & (doubtful | ours_alone[:, None])).any(0)
    return int((ours_alone & ~ours_excused).sum() + (theirs_alone & ~theirs_excused).sum())


def _at_threshold(some: Detections, others: Detections, limit: Tolerance, selection: Selection) -> NDArray[np.bool_]:
    """Which of `some` have so low a score that rounding may have left them out of the others."""
    full = len(others.scores) >= selection.max_det
    lowest = float(others.scores.min()) if full else selection.conf
    return np.asarray(some.scores <= lowest + limit.score)
