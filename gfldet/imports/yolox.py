"""Public weights of YOLOX -> the body of `cfg/models/gfldet-yolox.yaml` and its weights.

Its head has no bins and an objectness, so it is none of ours and stays behind.  YOLOX takes BGR from 0 to 255, ours RGB
from 0 to 1: the filters of the first convolution are turned round and multiplied by 255, which is the same computation.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gfldet.imports import matching
from gfldet.imports.coco_names import names_of
from gfldet.imports.files import ForeignFile, OnnxFile, StateDict
from gfldet.imports.foreign import ForeignModel, image_size
from gfldet.imports.shapes import Shape, body_shapes, check_classes, check_shapes, four_sides, size_of, unfilled
from gfldet.nn.blocks import Row
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.store.archive import Refusal

READS = "weights of YOLOX (nano, tiny, s, m, l, x) as its authors publish them (.pth or .onnx)"
LICENCE = "Apache-2.0 (as its authors publish it; the file tells none)"
STEM = "backbone.backbone.stem.conv.conv.weight"
CLASSES = "head.cls_preds.0.weight"
PLACES = {  # layer of ours -> its name in YOLOX
    0: "backbone.stem",
    1: "backbone.dark2.0",
    2: "backbone.dark2.1",
    3: "backbone.dark3.0",
    4: "backbone.dark3.1",
    5: "backbone.dark4.0",
    6: "backbone.dark4.1",
    7: "backbone.dark5.0",
    8: "backbone.dark5.1",
    9: "backbone.dark5.2",
    10: "lateral_conv0",
    13: "C3_p4",
    14: "reduce_conv1",
    17: "C3_p3",
    18: "bu_conv2",
    20: "C3_n3",
    21: "bu_conv1",
    23: "C3_n4",
}
NECK = tuple(f"backbone.{place}." for layer, place in PLACES.items() if layer >= 10)
PARTS = {"cv1": "conv1", "cv2": "conv2", "cv3": "conv3", "depthwise": "dconv", "pointwise": "pconv"}


def recognises(file: ForeignFile) -> bool:
    """A state dict with the names of YOLOX's neck; a graph that starts with Focus and ends in three objectnesses."""
    if file.onnx is not None:
        shapes = file.onnx.conv_shapes()
        outputs = [shape[:1] for shape in shapes]
        return shapes[:1] != [] and shapes[0][1:] == (12, 3, 3) and outputs.count((1,)) == 3
    return file.state is not None and any(name.startswith(NECK) for name in file.state.shapes)


def read(file: ForeignFile) -> ForeignModel:
    """The body of a YOLOX; Refusal with the first tensor or convolution for which it cannot be taken."""
    return _from_state(file.tensors()) if file.onnx is None else _from_graph(file.onnx)


def their_name(name: str) -> str:
    """What YOLOX calls a tensor or module of ours.  `graph.layers.14.conv` is `backbone.reduce_conv1.conv`."""
    _, _, layer, *rest = name.split(".")
    return ".".join(["backbone", PLACES[int(layer)], *(PARTS.get(part, part) for part in rest)])


def _from_state(state: StateDict) -> ForeignModel:
    model = model_of(four_sides(state.shapes, STEM), four_sides(state.shapes, CLASSES)[0])
    body = body_shapes(model)
    expected = {their_name(name): shape for name, shape in body.items()}
    check_shapes(
        state.shapes,
        expected,
        f"YOLOX-{model.description.name.rpartition('-')[2]}",
        lambda name: name.startswith("head."),
    )
    weights = {name: state.tensor(their_name(name)) for name in body}
    head = sum(name.startswith("head.") for name in state.shapes)
    return _foreign(model, weights, (f"its head ({head} tensors), which has an objectness and no bins",))


def _from_graph(file: OnnxFile) -> ForeignModel:
    shapes = file.conv_shapes()
    output = _sides(file.graph.output[0]) if file.graph.output else ()
    if len(output) != 3:
        raise Refusal(f"its output is {list(output)}; images, points and 5 + classes are expected")
    model = model_of(shapes[0], output[2] - 5)
    weights = matching.body_weights(model, file, their_name)
    taken = sum(name.endswith("conv.weight") for name in weights)
    sides = _sides(next(value for value in file.graph.input if value.name not in file.values))
    left = (
        f"its head ({len(shapes) - taken} convolutions), which has an objectness and no bins",
        "the statistics of its norms, which the export has folded away (to train from these weights, take the .pth)",
    )
    return _foreign(model, weights, left, image_size(list(sides[2:])))


def _foreign(
    model: DetectionModel, weights: dict[str, Tensor], left: tuple[str, ...], imgsz: tuple[int, int] | None = None
) -> ForeignModel:
    first = "graph.layers.0.conv.conv.weight"
    weights[first] = 255 * weights[first].unflatten(1, (4, 3)).flip(2).flatten(1, 2)  # (c_out, phase, colour, 3, 3)
    return ForeignModel(
        model.description,
        names_of(model.nc),
        {name: weights[name] for name in body_shapes(model)},
        imgsz,
        model.strides,
        LICENCE,
        "YOLOX",
        body_only=True,
        left=left,
    )


def model_of(stem: Shape, nc: int) -> DetectionModel:
    """The model of ours whose first convolution has the shape `stem`, as each size has another."""
    check_classes(nc)

    def first(description: Description) -> Shape:
        row = Row((3,), 1, (), description.width, description.max_channels)
        return row.width(description.rows[0][3][0]), 12, 3, 3

    return unfilled(size_of("YOLOX", "gfldet-yolox.yaml", nc, f"first convolution ({STEM})", stem, first))


def _sides(value: Any) -> tuple[int, ...]:
    """The sides of an input or output of a graph; 0 for those that it leaves open."""
    return tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
