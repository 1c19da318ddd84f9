"""Public weights of NanoDet -> `cfg/models/gfldet-nanodet.yaml` and its weights, whole: NanoDet has a GFL head itself.

Its points lie in the middle of their cells and its distributions are sides first, as ours.  Three things differ.
NanoDet takes BGR, so the filters of the first convolution are turned round for RGB; both take images with ImageNet's
mean and deviation taken out.  It predicts classes and bins with one convolution, whose rows are dealt out.  Its ONNX
files have the norms in the convolutions, and the probabilities of classes beside the bins' logits as outputs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gfldet.errors import counted
from gfldet.imports import matching
from gfldet.imports.coco_names import names_of
from gfldet.imports.files import ForeignFile, OnnxFile, StateDict
from gfldet.imports.foreign import ForeignModel, check_bins, image_size
from gfldet.imports.shapes import MAX_CLASSES, Shape, body_shapes, check_shapes, size_of, unfilled
from gfldet.nn.build import MAX_REG_MAX, Description
from gfldet.nn.nanodet_blocks import ShuffleStage
from gfldet.nn.tasks import DetectionModel
from gfldet.store.archive import Refusal

READS = "weights of NanoDet-m (also 0.5x and 1.5x) as its authors publish them (.pth, .ckpt or .onnx)"
LICENCE = "Apache-2.0 if it is a file that NanoDet's authors published; the file itself tells none"
AVERAGE = "avg_model."  # before the names of averaged weights, which are those that NanoDet validates
FIRST = "backbone.stage2.0.branch2.0.weight"  # its shape tells the size
HEAD = "head.gfl_cls.{}.weight"
PROJECT = "head.distribution_project.project"  # the values of the bins
UNUSED = ("head.gfl_reg.", PROJECT)  # a second convolution for boxes is there, but the shared one makes them
STAGES = {3: "stage2", 4: "stage3", 5: "stage4"}
LATERALS = {6: 0, 7: 1, 8: 2}
TOWERS = {17: 0, 18: 1, 19: 2}
# Where a unit's convolutions and norms stand in NanoDet's branches.
UNITS = {"side.0": ("branch1", 0), "side.1": ("branch1", 2), "main.0": ("branch2", 0), "main.1": ("branch2", 3)}
UNITS["main.2"] = ("branch2", 5)


def recognises(file: ForeignFile) -> bool:
    """A state dict with the names of ShuffleNetV2 and of NanoDet's head; a graph that begins as such a detector."""
    if file.onnx is not None:
        shapes = file.onnx.conv_shapes()
        leaky = any(node.op_type == "LeakyRelu" for node in file.onnx.graph.node)
        return leaky and shapes[:1] == [(24, 3, 3, 3)] and (24, 1, 3, 3) in shapes
    names = {} if file.state is None else file.state.shapes
    return any(f"{before}{FIRST}" in names and before + HEAD.format(0) in names for before in ("", "model.", AVERAGE))


def read(file: ForeignFile) -> ForeignModel:
    """A NanoDet-m; Refusal with the first tensor or convolution for which it cannot be taken."""
    return _from_state(file.tensors()) if file.onnx is None else _from_graph(file.onnx)


def their_name(name: str) -> str:
    """What NanoDet calls a tensor or module of ours: `graph.layers.6.conv` is `fpn.lateral_convs.0.conv`.

    Both the rows for boxes and those for classes of our head are in the one tensor of NanoDet's.
    """
    _, _, number, *rest = name.split(".")
    layer, last = int(number), rest[1:] if rest[0] in ("conv", "bn") else []
    if layer == 1:
        return ".".join(["backbone.conv1", "0" if rest[0] == "conv" else "1", *last])
    if layer in STAGES:
        unit, part, place, kind, *last = rest
        branch, position = UNITS[f"{part}.{place}"]
        return ".".join(["backbone", STAGES[layer], unit, branch, str(position + (kind == "bn")), *last])
    if layer in LATERALS:
        return ".".join(["fpn.lateral_convs", str(LATERALS[layer]), *rest])
    if layer in TOWERS:
        place, part, kind, *last = rest
        norm = {"depthwise": "dwnorm", "pointwise": "pwnorm"}
        return ".".join(["head.cls_convs", str(TOWERS[layer]), place, part if kind == "conv" else norm[part], *last])
    return ".".join(["head.gfl_cls", *rest[1:]])


def _from_state(state: StateDict) -> ForeignModel:
    before = next((p for p in (AVERAGE, "model.", "") if p + FIRST in state.shapes), "")
    shapes = {name.removeprefix(before): shape for name, shape in state.shapes.items() if name.startswith(before)}
    _refuse_plus("fpn.reduce_layers.0.conv.weight" in shapes)
    reg_max = shapes[PROJECT][0] if len(shapes.get(PROJECT, ())) == 1 else 8
    rows = shapes[HEAD.format(0)][0] if shapes[HEAD.format(0)] else 0
    model = model_of(shapes[FIRST], rows - 4 * reg_max, reg_max)
    expected = {their_name(name): shape for name, shape in body_shapes(model).items()}
    widths = [shape[1] for name, shape in _head(model).items() if name.endswith("weight") and "cls_out" in name]
    for level, width in enumerate(widths):
        expected |= {HEAD.format(level): (rows, width, 1, 1), f"head.gfl_cls.{level}.bias": (rows,)}
    check_shapes(shapes, expected, _size(model), lambda name: name.startswith(UNUSED))
    if PROJECT in shapes:
        check_bins(state.tensor(before + PROJECT))
    weights = {name: state.tensor(before + their_name(name)) for name in body_shapes(model)}
    for level in range(len(widths)):
        weights |= _dealt(
            model, level, *(state.tensor(f"{before}head.gfl_cls.{level}.{k}") for k in ("weight", "bias"))
        )
    unused = sum(name.startswith("head.gfl_reg.") for name in shapes)
    left = [f"a second convolution for boxes ({unused} tensors), which its head never uses"] if unused else []
    others = len(state.shapes) - len(shapes)
    left += [f"its weights beside their average ({others} tensors)"] if before == AVERAGE and others else []
    return _foreign(model, weights, tuple(left))


def _from_graph(file: OnnxFile) -> ForeignModel:
    shapes = file.conv_shapes()
    _refuse_plus(any(shape[1:] == (1, 5, 5) for shape in shapes))
    classes, bins = _rows(file)
    first = next((shape for shape in shapes if shape[1:] == (24, 1, 1)), ())
    model = model_of(first, classes, bins // 4 if bins % 4 == 0 else 0)
    expressions = matching.Expressions()
    ends = []
    for level, feature in enumerate(matching.features_of(model.graph, expressions)):
        width = model.graph.head.box_out[level].in_channels  # type: ignore[index, union-attr]
        settings = ((classes + bins, width, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)
        ends.append(expressions.of("Conv", settings, feature, origin=_out(model, level)))
    nodes = matching.nodes_of(ends, file, expressions, their_name)
    outs = [nodes.pop(_out(model, level)) for level in range(len(ends))]
    weights = matching.weights_of(model, nodes, file)
    for level, node in enumerate(outs):
        weights |= _dealt(model, level, file.tensor(node.input[1]), file.tensor(node.input[2]))
    sides = [d.dim_value for v in file.graph.input if v.name not in file.values for d in v.type.tensor_type.shape.dim]
    left = "the statistics of its norms, which the export has folded away (to train from these weights, take the .pth)"
    return _foreign(model, weights, (left,), image_size(sides[2:4]))


def _rows(file: OnnxFile) -> tuple[int, int]:
    """How many rows of the last convolutions are for classes and how many for bins: they are split, classes first."""
    convs = {node.output[0] for node in file.graph.node if node.op_type == "Conv"}
    scored = {node.input[0] for node in file.graph.node if node.op_type == "Sigmoid"}
    found = set()
    for node in file.graph.node:
        if node.op_type == "Split" and node.input[0] in convs and len(node.output) == 2:
            told = [tuple(a.ints) for a in node.attribute if a.name == "split"]
            if len(node.input) > 1 and node.input[1] in file.values:
                told.append(tuple(file.tensor(node.input[1]).tolist()))
            if node.output[0] not in scored or not told or len(told[0]) != 2:
                raise Refusal(f"its {node.name or 'Split'} of classes and bins is not that of NanoDet; export it again")
            found.add((int(told[0][0]), int(told[0][1])))
    if len(found) != 1:
        raise Refusal("its graph has no convolutions whose outputs are split into classes and bins, as NanoDet's are")
    return found.pop()


def _refuse_plus(plus: bool) -> None:
    """NanoDet-Plus measures boxes from the upper left corners of cells; our heads do from their middles."""
    if plus:
        raise Refusal(
            "it is a NanoDet-Plus, whose boxes are measured from the corners of cells, which no head of ours does; "
            "take a NanoDet-m"
        )


def _dealt(model: DetectionModel, level: int, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The one convolution of a level (C + 4R rows, classes first) as the two of ours."""
    head = model.description.head_prefix
    weights: dict[str, Tensor] = {}
    for part, rows in (("cls_out", slice(None, model.nc)), ("box_out", slice(model.nc, None))):
        weights |= {f"{head}{part}.{level}.weight": weight[rows], f"{head}{part}.{level}.bias": bias[rows]}
    return weights


def _foreign(
    model: DetectionModel, weights: dict[str, Tensor], left: tuple[str, ...], imgsz: tuple[int, int] | None = None
) -> ForeignModel:
    first = "graph.layers.1.conv.weight"
    weights[first] = weights[first].flip(1)  # BGR to RGB
    weights[f"{model.description.head_prefix}bins"] = torch.arange(model.reg_max, dtype=torch.float32)
    own = {name: weights[name].contiguous() for name in model.state_dict()}
    return ForeignModel(model.description, names_of(model.nc), own, imgsz, model.strides, LICENCE, "NanoDet", left=left)


def model_of(first: tuple[int, ...], nc: int, reg_max: int) -> DetectionModel:
    """The model of ours whose first unit has a convolution of that shape, as each size has another."""
    if not 1 <= nc <= MAX_CLASSES or not 1 < reg_max <= MAX_REG_MAX:
        raise Refusal(f"its head is for {counted(nc, 'class')} and {counted(reg_max, 'bin')} a side")

    def unit(description: Description) -> Shape:
        width = next(row[3][0] for row in description.rows if row[2] == ShuffleStage.__name__)
        return width // 2, 24, 1, 1

    return unfilled(replace(size_of("NanoDet", "gfldet-nanodet.yaml", nc, FIRST, first, unit), reg_max=reg_max))


def _size(model: DetectionModel) -> str:
    return (
        f"NanoDet-{model.description.name.rpartition('-')[2]} of {counted(model.nc, 'class')} and {model.reg_max} bins"
    )


def _out(model: DetectionModel, level: int) -> str:
    return f"{model.description.head_prefix.removeprefix('graph.')}out.{level}"


def _head(model: DetectionModel) -> dict[str, tuple[int, ...]]:
    body = body_shapes(model)
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in body}
