"""A YOLOv8 detector's ONNX graph -> a description of ours and its weights.

Layers have no names to rely on in ONNX, so they are known by what they compute from what.  Every value gets a number
that stands for its formula: the operation and the numbers of what goes in.  The same is done for the YOLOv8 graph as
we build it; a convolution whose input has the same number, and whose shape is the same, is the same layer.  Anything
that computes something else, even a Concat in another order, has another number and is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gfldet.config.assets import cfg_folder, scales_of
from gfldet.imports.files import OnnxFile
from gfldet.imports.foreign import (
    ForeignModel,
    check_bins,
    class_names,
    identity_norm,
    image_size,
    text,
)
from gfldet.imports.shapes import MAX_CLASSES
from gfldet.nn import blocks
from gfldet.nn.build import MAX_REG_MAX, read_description
from gfldet.nn.heads import GFLHead
from gfldet.nn.tasks import DetectionModel
from gfldet.store.archive import Refusal

OPERATIONS = (
    *("Conv", "MaxPool", "Resize", "Add", "Sub", "Mul", "Div", "Sigmoid", "Softmax"),
    *("Concat", "Split", "Slice", "Gather", "Reshape", "Transpose", "Unsqueeze", "Expand"),
    *("Constant", "ConstantOfShape", "Range", "Shape", "Cast", "Identity"),
)
THROUGH = ("Identity", "Cast")  # leave values what they are
SWAPPABLE = ("Add", "Mul")
SUPPORTED = "the graphs of YOLOv8 detection (scales n, s, m, l and x) without NMS in them are supported"


@dataclass(frozen=True, slots=True)
class Site:
    """A convolution of our model: its module's path, the number of its input, and the channels its branch ends with."""

    path: str
    input: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A Conv of the graph: the node, its weight's shape and bias, and the Convs that read from it (by position)."""

    node: Any
    shape: tuple[int, ...]
    consumers: list[int]


class Formulas:
    """Numbers for formulas: equal formulas have equal numbers."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[Any, ...], int] = {}

    def of(self, *formula: Any) -> int:
        """The number of an operation and what it is given (names of settings, numbers of inputs)."""
        if formula[0] in SWAPPABLE:
            formula = (formula[0], *sorted(formula[1:]))
        return self.numbers.setdefault(formula, len(self.numbers))

    def silu(self, x: int) -> int:
        return self.of("Mul", x, self.of("Sigmoid", x))


def has_bins(file: OnnxFile) -> bool:
    """Whether a convolution over box bins (1, R, 1, 1) without a bias is in the graph."""
    weights = [file.values.get(n.input[1]) for n in file.graph.node if n.op_type == "Conv" and len(n.input) == 2]
    return any(w is not None and len(w.dims) == 4 and (w.dims[0], *w.dims[2:]) == (1, 1, 1) for w in weights)


def read(file: OnnxFile) -> ForeignModel:
    """The detector in an ONNX file; Refusal with the node for which it cannot be taken."""
    told = file.told
    if told.get("task", "detect") != "detect":
        raise Refusal(f"it is a model for {told['task']!r:.50}; {SUPPORTED}")
    for node in file.graph.node:
        if node.op_type not in OPERATIONS or node.domain not in ("", "ai.onnx"):
            raise Refusal(f"its graph has a {node.op_type:.50} ({node.name:.80}); {SUPPORTED}")
    convolutions, bins = _convolutions(file)
    model = _recognised(convolutions, bins.numel())
    weights = _weights(model, _matched(model, file, convolutions), file, bins)
    return ForeignModel(
        model.description,
        class_names(told.get("names"), model.nc) if "names" in told else tuple(model.names.values()),
        weights,
        image_size(told.get("imgsz")),
        model.strides,
        text(told.get("license")),
        "YOLOv8",
    )


def _convolutions(file: OnnxFile) -> tuple[list[Convolution], Tensor]:
    """The convolutions in the graph's order, and the values of the box bins (R,), which are the weight of the last."""
    found: list[Convolution] = []
    bins: list[Tensor] = []
    nearest: dict[str, frozenset[int]] = {}  # value -> the convolutions whose outputs it is made of
    for node in file.graph.node:
        sources = frozenset[int]().union(*(nearest.get(name, frozenset()) for name in node.input))
        if node.op_type == "Conv":
            weight = file.values.get(node.input[1])
            if weight is None or len(weight.dims) != 4:
                raise Refusal(f"the weight of its Conv {node.name:.80} is not in the file as four-sided numbers")
            shape = tuple(int(side) for side in weight.dims)
            if shape[0] == 1 and shape[2:] == (1, 1) and len(node.input) == 2:
                bins.append(file.tensor(node.input[1]).flatten())
                continue
            for source in sources:
                found[source].consumers.append(len(found))
            sources = frozenset((len(found),))
            found.append(Convolution(node, shape, []))
        if node.op_type != "Shape":  # which tells sizes, not values
            nearest.update(dict.fromkeys(node.output, sources))
    if len(bins) != 1:
        raise Refusal(f"its graph has {len(bins)} convolutions over box bins (dfl) instead of one; {SUPPORTED}")
    check_bins(bins[0])
    return found, bins[0]


def _recognised(convolutions: list[Convolution], reg_max: int) -> DetectionModel:
    """The YOLOv8 model, on the meta device, that has convolutions of the same shapes."""
    shapes = Counter(c.shape for c in convolutions)
    ends = Counter(c.shape[0] for c in convolutions if not c.consumers)
    ends.subtract({4 * reg_max: 3})
    classes = [channels for channels, count in ends.items() if count]
    yaml = cfg_folder() / "models" / "gfldet.yaml"
    if len(classes) == 1 and ends[classes[0]] == 3 and reg_max <= MAX_REG_MAX and classes[0] <= MAX_CLASSES:
        for letter in scales_of(yaml):
            description = read_description(yaml, letter, classes[0])
            description = replace(description, name=f"yolov8{letter}", reg_max=reg_max, preferred={})
            with torch.device("meta"):  # shapes without memory
                model = DetectionModel(description)
            if Counter(tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Conv2d)) == shapes:
                return model
    raise Refusal(f"its {len(convolutions)} convolutions have shapes of no known model; {SUPPORTED}")


def sites(model: DetectionModel, formulas: Formulas) -> list[Site]:
    """Every convolution of a model of Conv, C2f, SPPF, Upsample and Concat layers, and of its head."""
    found: list[Site] = []

    def conv(path: str, x: int, end: int = 0) -> int:
        found.append(Site(f"{path}.conv", x, end))
        return formulas.silu(formulas.of("Conv", f"{path}.conv"))

    outputs = {-1: formulas.of("image")}
    for number, (layer, sources) in enumerate(zip(model.graph.layers, model.graph.sources, strict=True)):
        path, inputs = f"graph.layers.{number}", [outputs[s] for s in sources]
        x = inputs[0]
        if isinstance(layer, blocks.Conv):
            x = conv(path, x)
        elif isinstance(layer, blocks.C2f):
            x = conv(f"{path}.cv1", x)
            parts = [formulas.of("Split", 0, x), formulas.of("Split", 1, x)]
            for step, block in enumerate(layer.m):
                out = conv(f"{path}.m.{step}.cv2", conv(f"{path}.m.{step}.cv1", parts[-1]))
                parts.append(formulas.of("Add", parts[-1], out) if block.add else out)
            x = conv(f"{path}.cv2", formulas.of("Concat", *parts))
        elif isinstance(layer, blocks.SPPF):
            parts = [conv(f"{path}.cv1", x)]
            for _ in range(3):
                parts.append(formulas.of("MaxPool", parts[-1]))
            x = conv(f"{path}.cv2", formulas.of("Concat", *parts))
        elif isinstance(layer, blocks.Upsample):
            x = formulas.of("Resize", x)
        elif isinstance(layer, blocks.Concat):
            x = formulas.of("Concat", *inputs)
        elif isinstance(layer, GFLHead):
            for level, x in enumerate(inputs):
                for name, end in (("box", 4 * model.reg_max), ("cls", model.nc)):
                    branch = f"{path}.{name}.{level}"
                    out = conv(f"{branch}.1", conv(f"{branch}.0", x, end), end)
                    found.append(Site(f"{branch}.2", out, end))
        outputs[number] = x
    return found


def _matched(model: DetectionModel, file: OnnxFile, convolutions: list[Convolution]) -> dict[str, Any]:
    """Path of each convolution of ours -> its node in the graph."""
    formulas = Formulas()
    left = sites(model, formulas)
    position = {id(c.node): i for i, c in enumerate(convolutions)}
    matched: dict[str, Any] = {}
    # Weights may be listed as inputs too.
    image = next(value.name for value in file.graph.input if value.name not in file.values)
    numbers: dict[str, int] = {image: formulas.of("image")}
    for node in file.graph.node:
        inputs = [numbers.get(name, -1) for name in node.input]  # -1: constants, of which no layer is made
        settings = _settings(node)
        if node.op_type == "Conv" and id(node) in position:
            site = _site(model, left, convolutions, position[id(node)], inputs[0])
            left.remove(site)
            matched[site.path] = node
            numbers[node.output[0]] = formulas.of("Conv", site.path)
        elif node.op_type in THROUGH:
            numbers[node.output[0]] = inputs[0]
        elif node.op_type == "Split" and settings.get("axis") == 1 and len(node.output) == 2:
            numbers.update({name: formulas.of("Split", i, inputs[0]) for i, name in enumerate(node.output)})
        elif node.op_type == "Concat" and settings.get("axis") == 1 and -1 not in inputs:
            numbers[node.output[0]] = formulas.of("Concat", *inputs)
        elif node.op_type in ("Add", "Mul", "Sigmoid") and -1 not in inputs:
            numbers[node.output[0]] = formulas.of(node.op_type, *inputs)
        elif node.op_type == "MaxPool" and _is(settings, kernel_shape=[5, 5], pads=[2] * 4, strides=[1, 1]):
            numbers[node.output[0]] = formulas.of("MaxPool", inputs[0])
        elif node.op_type == "Resize" and settings.get("mode", b"nearest") == b"nearest":
            numbers[node.output[0]] = formulas.of("Resize", inputs[0])
    return matched


def _site(model: DetectionModel, left: Iterable[Site], convolutions: list[Convolution], position: int, x: int) -> Site:
    """The convolution of ours that one of the graph's is; Refusal if there is none."""
    here = convolutions[position]
    settings = _settings(here.node)
    fitting = []
    for site in left:
        ours = model.get_submodule(site.path)
        assert isinstance(ours, nn.Conv2d)
        same = tuple(ours.weight.shape) == here.shape and _is(
            settings, strides=list(ours.stride), pads=[*ours.padding, *ours.padding], group=1, dilations=[1, 1]
        )
        if site.input == x and same:
            fitting.append(site)
    if len(fitting) > 1:  # the box and the class branch of a level may begin alike
        end = position
        while convolutions[end].consumers:
            end = convolutions[end].consumers[0]
        fitting = [site for site in fitting if site.end == convolutions[end].shape[0]]
    if len(fitting) > 1:
        names = f"{here.node.input[1]} {here.node.name}"
        fitting = [site for site in fitting if (".cv3." in names) == (".cls." in site.path) and "cv" in names]
    if len(fitting) != 1:
        raise Refusal(f"its Conv {here.node.name:.80} {list(here.shape)} is at no place known; {SUPPORTED}")
    return fitting[0]


def _settings(node: Any) -> dict[str, Any]:
    """The attributes of a node that are numbers, lists of them or text."""
    kinds = {2: lambda a: a.i, 3: lambda a: a.s, 7: lambda a: list(a.ints)}
    return {a.name: kinds[a.type](a) for a in node.attribute if a.type in kinds}


def _is(settings: Mapping[str, Any], **expected: Any) -> bool:
    """Whether a Conv or MaxPool has these attributes, or ONNX's default where it tells none."""
    defaults = {
        "group": 1,
        "strides": [1, 1],
        "pads": [0] * 4,
        "dilations": [1, 1],
        "auto_pad": b"NOTSET",
        "ceil_mode": 0,
    }
    told = {**defaults, **settings}
    return all(told.get(name) == value for name, value in {"auto_pad": b"NOTSET", "ceil_mode": 0, **expected}.items())


def _weights(model: DetectionModel, matched: Mapping[str, Any], file: OnnxFile, bins: Tensor) -> dict[str, Tensor]:
    """The whole state of ours: the batch norms are in the convolutions already, so ours only add the biases."""
    weights: dict[str, Tensor] = {}
    for path, node in matched.items():
        if len(node.input) < 3 or node.input[2] not in file.values:
            raise Refusal(
                f"its Conv {node.name:.80} has no bias in the file, so batch norms are not in it; export again"
            )
        bias = file.tensor(node.input[2])
        weights[f"{path}.weight"] = file.tensor(node.input[1])
        if path.endswith(".conv"):
            norm = f"{path.removesuffix('conv')}bn"
            weights |= {f"{norm}.{name}": value for name, value in identity_norm(bias).items()}
        else:
            weights[f"{path}.bias"] = bias
    weights[f"{model.description.head_prefix}bins"] = bins
    own = model.state_dict()
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
        raise Refusal(f"it lacks layers, or has biases of another length; {SUPPORTED}")
    return {name: weights[name] for name in own}
