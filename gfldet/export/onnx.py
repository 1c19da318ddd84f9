"""torch model -> ONNX graph, with the card in its metadata; the selection of detections as ONNX operators.

maps -> bins, logits              layout raw
     -> boxes, scores             layout decoded
     -> NMS, the best max_det     layout detections
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gfldet.detect.card import INPUT, OUTPUTS, Card
from gfldet.errors import ConfigError, WorkError
from gfldet.nn.tasks import DetectionModel
from gfldet.ops.boxes import xywh_to_xyxy
from gfldet.writing import write_aside

if TYPE_CHECKING:
    import onnx

OPSET = 17  # runs in onnxruntime >= 1.12 and OpenVINO >= 2022.3; the highest that torch 2.4 exports
IR_VERSION = 8  # the oldest with this opset, so that old readers can read the file


class GraphModule(nn.Module):
    """A fused model as the graph has it: images (B, 3, H, W) float32 in [0, 1] -> the outputs of a layout, float32.

    With `half` the convolutions compute in float16.  Boxes are still decoded in float32, because the steps of float16
    are half a pixel from 512 px on and a whole pixel from 1024 px on.
    """

    def __init__(self, model: DetectionModel, raw: bool, half: bool) -> None:
        super().__init__()
        self.model = model.half() if half else model
        self.raw = raw
        self.half_precision = half

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        decoded, maps = self.model.predict(images.half() if self.half_precision else images)
        if self.raw:
            flat = torch.cat([m.flatten(2) for m in maps], dim=2).float()
            bins, logits = flat.split((4 * self.model.reg_max, self.model.nc), dim=1)
            return bins, logits
        rows = decoded.transpose(1, 2)
        return xywh_to_xyxy(rows[..., :4]), rows[..., 4:]


def to_graph(model: DetectionModel, card: Card) -> onnx.ModelProto:
    """A fused model in eval mode on the CPU -> its graph, of layout raw or decoded.  Do not use `model` afterwards.

    This uses torch's TorchScript exporter.  The newer exporter (torch.export) needs onnxscript, takes ten times as
    long, and is only experimental in torch 2.4.  Raises ConfigError if the package onnx is missing, WorkError if torch
    cannot export the model.
    """
    onnx = import_onnx()
    raw = card.layout == "raw"
    names = list(OUTPUTS["raw" if raw else "decoded"])
    outputs = GraphModule(model, raw, card.precision == "float16").eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        file = Path(folder) / "graph.onnx"
        try:
            warnings.simplefilter("ignore")  # the exporter is deprecated, and the trace fixes shapes
            torch.onnx.export(
                outputs,
                (torch.zeros(card.batch, 3, *card.imgsz),),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_axes=_dynamic_axes(card, names),
            )
            return onnx.load(str(file))
        except (RuntimeError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WorkError(f"torch {torch.__version__} could not export this model ({reason})") from error


def save(graph: onnx.ModelProto, card: Card, path: Path) -> None:
    """Check a graph and write it with its card."""
    onnx = import_onnx()
    graph.ir_version = IR_VERSION
    graph.producer_name, graph.producer_version = "gfldet", card.gfldet
    onnx.helper.set_model_props(graph, card.to_text())
    onnx.checker.check_model(graph)
    write_aside(path, lambda out: out.write(graph.SerializeToString()))


def import_onnx():  # type: ignore[no-untyped-def]
    """The package onnx; ConfigError if it is missing."""
    try:
        import onnx
        import onnx.checker
        import onnx.compose
        import onnx.helper
        import onnx.parser
    except ImportError as error:
        raise ConfigError("format=onnx: the package onnx is not installed; pip install 'gfldet[onnx]'") from error
    return onnx


def _dynamic_axes(card: Card, names: list[str]) -> dict[str, dict[int, str]]:
    """Names of the dimensions that may differ from run to run."""
    if card.dynamic == "none":
        return {}
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in (INPUT, *names)}
    if card.dynamic == "all":
        axes[INPUT].update({2: "height", 3: "width"})
        for name in names:
            axes[name][2 if card.layout == "raw" else 1] = "points"
    return axes


# The names in this graph stay as in the first exported files, because readers may use them.
SELECTION = """
<ir_version: 8, opset_import: ["" : 17]>
choice (float[batch, points, 4] all_boxes, float[batch, points, classes] all_scores)
    => (float[batch, kept, 4] boxes, float[batch, kept] scores, int64[batch, kept] classes, int64[batch] count)
<float conf = {{{conf}}}, float iou = {{{iou}}}, int64[1] max_det = {{{max_det}}}, int64[1] nought = {{0}},
 int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] last = {{-1}}, int64[2] rows = {{0, -1}}, float zero = {{0}}>
{{
    by_class = Transpose<perm = [0, 2, 1]>(all_scores)
{survivors}
    flat = Reshape(surviving, rows)
    shape = Shape(all_boxes)
    points = Slice(shape, one, two)
    size = Shape(flat)
    candidates = Slice(size, one, two)
    kept = Min(max_det, candidates)
    scores, place = TopK<axis = 1, largest = 1, sorted = 1>(flat, kept)
    classes = Div(place, points)
    point = Mod(place, points)
    index = Unsqueeze(point, last)
    boxes = GatherND<batch_dims = 1>(all_boxes, index)
    found = Greater(scores, zero)
    ones = Cast<to = 7>(found)
    count = ReduceSum<keepdims = 0>(ones, one)
}}
"""
# `picked` (P, 3) holds image, class and point of what NMS keeps; all other scores become 0.
SUPPRESSION = """
    picked = NonMaxSuppression({boxes}, {scores}, max_det, iou, conf)
    values = GatherND({scores}, picked)
    extent = Shape({scores})
    blank = ConstantOfShape(extent)
    surviving = ScatterND(blank, picked, values)
"""
BY_NMS = SUPPRESSION.format(boxes="all_boxes", scores="by_class")
# The same for class-agnostic NMS: every class of a point becomes a box of one class "object".
BY_AGNOSTIC_NMS = """
    whole = Shape(by_class)
    classes_ = Slice(whole, one, two)
    images = Slice(whole, nought, one)
    repeats = Concat<axis = 0>(one, classes_, one)
    box_rows = Tile(all_boxes, repeats)
    score_shape = Concat<axis = 0>(images, one, last)
    score_rows = Reshape(by_class, score_shape)
""" + SUPPRESSION.format(boxes="box_rows", scores="score_rows")
BY_SCORE = """
    above = Greater(by_class, conf)
    surviving = Where(above, by_class, zero)
"""


def with_selection(graph: onnx.ModelProto, card: Card) -> onnx.ModelProto:
    """A decoded graph -> one that selects its detections, by the rule of `ops.nms`."""
    onnx = import_onnx()
    survivors = BY_SCORE if card.end2end else BY_AGNOSTIC_NMS if card.agnostic else BY_NMS
    text = SELECTION.format(conf=card.conf, iou=card.iou, max_det=card.max_det, survivors=survivors.strip("\n"))
    selection = onnx.parser.parse_model(text)
    used = {name for node in selection.graph.node for name in node.input}
    for constant in [c for c in selection.graph.initializer if c.name not in used]:
        selection.graph.initializer.remove(constant)
    graph.ir_version = selection.ir_version = IR_VERSION
    joined = onnx.compose.merge_models(
        graph, selection, io_map=[("boxes", "all_boxes"), ("scores", "all_scores")], prefix2="choice/"
    )
    del joined.opset_import[1:]  # both graphs have the same opset
    return _renamed(joined, {f"choice/{name}": name for name in OUTPUTS["detections"]})


def _renamed(graph: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """Rename values of the graph in place; a value that already has one of the new names gets the suffix `_all`."""
    moved = {new: f"{new}_all" for new in names.values()} | dict(names)
    for node in graph.graph.node:
        node.input[:] = [moved.get(name, name) for name in node.input]
        node.output[:] = [moved.get(name, name) for name in node.output]
    for value in (*graph.graph.output, *graph.graph.value_info):
        value.name = moved.get(value.name, value.name)
    return graph
