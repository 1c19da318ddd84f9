"""int8: a float ONNX file -> one that computes in 8-bit integers.  Images calibrate it, and its AP is checked.

Weights are rounded per channel.  Activations are rounded by their range on training images, from minimum to maximum:
measured on bccd, percentiles (which cut off the tails) cost .007 AP, and a search by entropy gained nothing in three
times the time.  The prediction layers and everything after them (integral, boxes, scores, selection) stay in float,
because boxes and scores need the precision.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gfldet.config.schema import ExportSettings
from gfldet.data.gather import open_image
from gfldet.data.load import LoadedSplit, eval_set, load_images, tell_findings
from gfldet.data.records import spread
from gfldet.data.spec import DataSpec
from gfldet.data.split import index_split
from gfldet.detect import exported
from gfldet.detect.card import INPUT, Card
from gfldet.detect.detector import Selection
from gfldet.detect.validate import validate
from gfldet.errors import WorkError
from gfldet.export.onnx import import_onnx, save
from gfldet.machine.memory import memory_budget
from gfldet.machine.shared import pool
from gfldet.messages import teller
from gfldet.ops import letterbox
from gfldet.ops.tiles import Tiles

if TYPE_CHECKING:
    import onnx

# Operators that onnxruntime computes in integers: between convolutions, activations then stay in integers.
INTEGER_OPS = ["Conv", "Sigmoid", "Relu", "Mul", "Add", "Concat", "MaxPool", "Resize", "Split", "Slice"]


def quantised(
    file: Path, card: Card, predicting: Sequence[str], images: Iterator[NDArray[np.uint8]], target: Path
) -> Path:
    """Write `file` (float, ONNX) as `target` in int8.

    `predicting` names the weights of the layers that stay in float; `images` (H, W, 3) RGB are for the calibration.
    """
    onnx = import_onnx()
    exported.import_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            some = (image for _, image in zip(range(card.batch), images, strict=False))
            batch = [letterbox.framed(image, card.imgsz, card.pad_colour) for image in some]
            if not batch:
                return None
            batch += [batch[-1]] * (card.batch - len(batch))
            return {INPUT: exported.planes(np.stack(batch), card)}

    graph = onnx.load(str(file))
    root = logging.getLogger()
    level = root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root.setLevel(logging.ERROR)  # it advises to fold batch norms first; they are folded already
            quantize_static(
                str(file),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=INTEGER_OPS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=float_nodes(graph, predicting),
            )
    finally:
        root.setLevel(level)
    save(onnx.load(str(target)), card, target)
    return target


def float_nodes(graph: onnx.ModelProto, predicting: Sequence[str]) -> list[str]:
    """Names of the nodes that take the weights called `predicting`, and of all nodes after them."""
    behind = set(predicting)
    names = []
    for node in graph.graph.node:  # in the order of computation
        if behind & set(node.input):
            behind |= set(node.output)
            names.append(node.name)
    return names


def calibration_images(
    spec: DataSpec, count: int, bits: int | None = None, tiles: Tiles | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Images spread over the train split, or tiles spread over these, 16-bit files by `bits`; DataError if there are
    none.  There are `count` of them, or fewer where the split has fewer."""
    items = index_split(spec, "train").items
    chosen = spread(items, count)
    each = -(-count // len(chosen))
    parts = (part for item in chosen for part in _parts(open_image(item.path, bits=bits), tiles, each))
    return islice(parts, count)


def _parts(image: NDArray[np.uint8], tiles: Tiles | None, most: int) -> list[NDArray[np.uint8]]:
    """Up to `most` tiles spread over an image, or the image itself where it is not cut."""
    if tiles is None or not tiles.cut(*image.shape[:2]):
        return [image]
    return [window.of(image) for window in spread(tiles.grid(*image.shape[:2]).windows, most)]


def check_drop(before: Path, after: Path, spec: DataSpec, settings: ExportSettings, tiles: Tiles | None = None) -> None:
    """Measure the AP of both files on the val split and report it; WorkError if the drop is above `max_drop`."""
    tell = teller(settings.verbose)
    loaded = load_images(
        spec,
        "val",
        settings.height_width if tiles is None else None,
        pool(memory_budget("auto")),
        settings.on_bad,
        lambda line: None,
        False,
        settings.sample_bits,
        check=settings.check_images,
    )
    tell_findings(loaded.split.findings)
    ap = [_measured(file, loaded, settings, tiles) for file in (before, after)]
    drop = ap[0] - ap[1]
    size = [file.stat().st_size / 1e6 for file in (before, after)]
    change = f"a drop of {drop:.4f}" if drop >= 0 else f"a gain of {-drop:.4f}"
    measured = f"AP {ap[0]:.4f} in float, {ap[1]:.4f} in int8 ({change}); {size[0]:.1f} -> {size[1]:.1f} MB"
    if not drop <= settings.max_drop:
        raise WorkError(
            f"int8: {measured}, but only max_drop={settings.max_drop:g} is allowed. Nothing was written; give more "
            f"images (calibration={settings.calibration} now), or a larger max_drop"
        )
    tell(f"int8: {measured}")


def _measured(file: Path, loaded: LoadedSplit, settings: ExportSettings, tiles: Tiles | None) -> float:
    """The AP of an exported file on a split."""
    detector = exported.load(file, "cpu", settings.threads)
    rect = detector.frame is None
    size, batch = settings.height_width, settings.batch
    data = eval_set(loaded, size, batch, detector.multiple, rect, detector.pad_colour, tiles)
    return validate(detector, data, Selection(**settings.selection()), workers=0, detailed=False).metrics.map
