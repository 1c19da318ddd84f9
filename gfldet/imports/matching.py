"""Which Conv of an ONNX graph is which convolution of a model of ours, told by what it computes from what.

Layers have no names to rely on in ONNX.  So both graphs become expressions: an operation, its settings and what goes
in.  Equal expressions have equal numbers, whatever their weights.  A feature map of ours is at that value of the file
which has its number.  From there both are walked upwards side by side: what stands at the same place is the same
convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from gfldet.imports.files import OnnxFile
from gfldet.imports.foreign import identity_norm
from gfldet.nn.backbones import Normalise
from gfldet.nn.graph import Graph
from gfldet.nn.heads import DetectionHead
from gfldet.nn.nanodet_blocks import ChannelShuffle
from gfldet.nn.tasks import DetectionModel
from gfldet.store.archive import Refusal

Sides = tuple[int, ...]  # height and width in cells, empty where unknown
THROUGH = ("Identity", "Cast")  # leave values what they are


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A value of a graph.  `number` stands for all below but `origin`, which is a Conv's place: path or node."""

    number: int
    operation: str
    settings: tuple[Any, ...] = ()
    inputs: tuple[Expression, ...] = field(default=(), repr=False)  # shared by many, so that their texts would not end
    origin: Any = field(default=None, repr=False)


class Expressions:
    """Makes expressions; equal ones get equal numbers.  Each method writes one computation in one way."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {}

    def of(self, operation: str, settings: Iterable[Any] = (), *inputs: Expression, origin: Any = None) -> Expression:
        settings = tuple(settings)
        key = (operation, settings, *(x.number for x in inputs))
        return Expression(self._numbers.setdefault(key, len(self._numbers)), operation, settings, inputs, origin)

    def unknown(self) -> Expression:
        """A value that equals no other."""
        return self.of("unknown", (len(self._numbers),))

    def product(self, a: Expression, b: Expression) -> Expression:
        """a * b, which is SiLU where one is the sigmoid of the other."""
        a, b = sorted((a, b), key=lambda x: x.operation == "Sigmoid")
        silu = b.operation == "Sigmoid" and b.inputs[0].number == a.number
        return self.of("SiLU", (), a) if silu else self.unknown()

    def sum(self, a: Expression, b: Expression) -> Expression:
        return self.of("Add", (), *sorted((a, b), key=lambda x: x.number))

    def pool(self, side: int, x: Expression) -> Expression:
        """The maximum over `side` x `side` cells around each.  One after another is one over more cells."""
        if x.operation == "Pool":
            return self.pool(side + x.settings[0] - 1, x.inputs[0])
        return self.of("Pool", (side,), x)

    def halves(self, x: Expression) -> tuple[Expression, Expression]:
        """The first half of the channels and the second."""
        return self.of("Half", (0,), x), self.of("Half", (1,), x)

    def reshaped(self, shape: Sequence[int], x: Expression) -> Expression:
        """In another shape.  Channels in two groups, turned and joined again, are shuffled."""
        if x.operation == "Transpose" and x.settings == (0, 2, 1, 3, 4) and x.inputs[0].operation == "Reshape":
            batch, groups, each, *sides = x.inputs[0].settings
            if tuple(shape) in ((batch, groups * each, *sides), (batch, -1, *sides)):
                return self.of("Shuffle", (groups,), x.inputs[0].inputs[0])
        return self.of("Reshape", shape, x)

    def resized(self, mode: str, factor: float, x: Expression) -> Expression:
        return self.of("Resize", (mode, float(factor)), x)

    def slice(self, steps: Mapping[int, tuple[int, int]], x: Expression) -> Expression:
        """Every n-th cell from one on to the end, (first, n) by axis.  Slices along other axes are one slice."""
        if x.operation == "Slice" and not {axis for axis, _ in x.settings} & set(steps):
            return self.slice({**dict(x.settings), **steps}, x.inputs[0])
        return self.of("Slice", sorted(steps.items()), x)


def body_weights(model: DetectionModel, file: OnnxFile, called: Callable[[str], str]) -> dict[str, Tensor]:
    """The state of a model of ours below its head, from a file that has its norms folded into its convolutions.

    `called` is what messages call the convolution at a path.  Raises Refusal that names the first one which the file
    does not have.
    """
    expressions = Expressions()
    return weights_of(model, nodes_of(features_of(model.graph, expressions), file, expressions, called), file)


def nodes_of(
    ends: Sequence[Expression], file: OnnxFile, expressions: Expressions, called: Callable[[str], str]
) -> dict[str, Any]:
    """Path of each convolution that `ends` of ours are made of -> the node of the file that is the same convolution.

    Raises Refusal as `body_weights` does.
    """
    there = {value.number: value for value in values_of(file, expressions)}
    for end in ends:
        for value in upwards(end):
            if value.operation == "Conv" and value.number not in there:
                shape, strides, *_ = value.settings
                here = called(f"graph.{value.origin}")
                conv = f"Conv {list(shape)} of stride {strides[0]}"
                raise Refusal(f"its graph has no {conv} that computes what {here} does")
        if end.number not in there:
            raise Refusal("its graph does something else with its convolutions")
    nodes = paired(ends, [there[end.number] for end in ends])
    for node in nodes.values():
        if len(node.input) < 3 or node.input[2] not in file.values:
            raise Refusal(f"its Conv {node.name:.80} has no bias in the file, so norms are not in it; export again")
        bias = list(file.values[node.input[2]].dims)
        if bias != list(file.values[node.input[1]].dims)[:1]:
            raise Refusal(f"its Conv {node.name:.80} has a bias {bias}, which is not one a channel")
    return nodes


def weights_of(model: DetectionModel, nodes: Mapping[str, Any], file: OnnxFile) -> dict[str, Tensor]:
    """The state of convolutions of a model of ours, by their paths, and of the norms after them, which only add."""
    weights: dict[str, Tensor] = {}
    for path, node in nodes.items():
        weights[f"graph.{path}.weight"], bias = file.tensor(node.input[1]), file.tensor(node.input[2])
        norm = model.graph.get_submodule(path.rpartition(".")[0])._modules.get("bn")
        if isinstance(norm, nn.BatchNorm2d):
            state = identity_norm(bias, norm.eps)
            weights |= {f"graph.{path.removesuffix('conv')}bn.{name}": value for name, value in state.items()}
        else:
            weights[f"graph.{path}.bias"] = bias
    return weights


def upwards(end: Expression) -> Iterator[Expression]:
    """An expression and all that it is made of, each once and after what goes into it."""
    done: set[int] = set()
    waiting = [(end, False)]
    while waiting:
        value, ready = waiting.pop()
        if ready:
            yield value
        elif id(value) not in done:
            done.add(id(value))
            waiting += [(value, True), *((x, False) for x in reversed(value.inputs))]


def paired(ours: Sequence[Expression], theirs: Sequence[Expression]) -> dict[str, Any]:
    """Path of each convolution of ours -> the node of the file at its place.  Both of a pair have the same number."""
    found: dict[str, Any] = {}
    done: set[tuple[int, int]] = set()
    waiting = list(zip(ours, theirs, strict=True))
    while waiting:
        mine, other = waiting.pop()
        if (id(mine), id(other)) in done:
            continue
        done.add((id(mine), id(other)))
        if mine.operation == "Conv" and found.setdefault(mine.origin, other.origin) is not other.origin:
            raise Refusal(f"its Conv {other.origin.name:.80} stands where one other Conv is used as well")
        waiting += zip(mine.inputs, other.inputs, strict=True)
    return found


WHOLE = (DetectionHead, nn.Upsample, nn.MaxPool2d, nn.AvgPool2d, Normalise, ChannelShuffle)


class _Tracer(fx.Tracer):
    """torch's tracer of modules, to which those of WHOLE are one operation each."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, WHOLE) or super().is_leaf_module(m, module_qualified_name)


def features_of(body: Graph, expressions: Expressions) -> list[Expression]:
    """What the head of a graph is given.  Convolutions have their path in `body`, now in eval mode, as their origin."""
    body.eval()
    values: dict[Any, Any] = {}
    for node in _Tracer().trace(body).nodes:
        inputs = fx.node.map_arg(node.args, values.__getitem__)
        if node.op == "placeholder":
            values[node] = expressions.of("image")
        elif node.op == "call_module":
            module = body.get_submodule(node.target)
            if isinstance(module, DetectionHead):
                return list(inputs[0])
            values[node] = _of_module(expressions, module, inputs[0], node.target)
        elif node.target is torch.cat:
            values[node] = expressions.of("Concat", (), *inputs[0])
        elif node.op == "call_function" and node.target.__name__ == "add":
            values[node] = expressions.sum(*inputs)
        elif node.op == "call_method" and node.target == "split":
            values[node] = expressions.halves(inputs[0])
        elif node.op == "call_function" and node.target.__name__ == "getitem" and isinstance(inputs[1], int):
            values[node] = inputs[0][inputs[1]]
        elif node.op == "call_function" and node.target.__name__ == "getitem":
            steps = [(slice.start or 0, slice.step) for slice in inputs[1][1:]]
            values[node] = expressions.slice({4 - len(steps) + i: step for i, step in enumerate(steps)}, inputs[0])
        else:
            raise NotImplementedError(f"{node.target} in a model of ours")
    raise NotImplementedError("a model of ours without a head")


def _of_module(expressions: Expressions, module: nn.Module, x: Expression, path: str) -> Expression:
    if isinstance(module, nn.Conv2d):
        shape = tuple(module.weight.shape)
        settings = (shape, module.stride, tuple(module.padding) * 2, module.dilation, module.groups)
        return expressions.of("Conv", settings, x, origin=path)
    if isinstance(module, nn.SiLU):
        return expressions.of("SiLU", (), x)
    if isinstance(module, nn.LeakyReLU):
        return expressions.of("LeakyReLU", (round(module.negative_slope, 6),), x)
    if isinstance(module, nn.MaxPool2d):
        assert isinstance(module.kernel_size, int)
        if module.stride == 1:
            return expressions.pool(module.kernel_size, x)
        return expressions.of("MaxPool", (module.kernel_size, module.stride, module.padding), x)
    if isinstance(module, nn.Upsample):
        assert isinstance(module.scale_factor, (int, float))
        return expressions.resized(module.mode, module.scale_factor, x)
    if isinstance(module, nn.AvgPool2d) and (module.kernel_size, module.stride, module.padding) == (2, 2, 0):
        return expressions.resized("bilinear", 0.5, x)
    if isinstance(module, ChannelShuffle):
        return expressions.of("Shuffle", (2,), x)
    # Norms are in the file's convolutions, and files take images that are normalised.
    if isinstance(module, (nn.BatchNorm2d, nn.Identity, Normalise)):
        return x
    raise NotImplementedError(f"{type(module).__name__} in a model of ours")


def values_of(file: OnnxFile, expressions: Expressions) -> list[Expression]:
    """Every value of a file's graph.  Convolutions have their node as their origin."""
    image = next((value for value in file.graph.input if value.name not in file.values), None)
    values: dict[str, Expression] = {} if image is None else {image.name: expressions.of("image")}
    sides: dict[str, Sides] = {}  # height and width of a value
    if image is not None:
        sides[image.name] = tuple(side.dim_value for side in image.type.tensor_type.shape.dim)[2:]
    for node in file.graph.node:
        given = [name for name in node.input if name in values]
        here = sides.get(given[0], ()) if given else ()
        found = _of_node(expressions, node, [values[name] for name in given], file, here) if given else None
        several = found if isinstance(found, tuple) else (found,) * len(node.output)
        for name, value in zip(node.output, several, strict=True):
            values[name] = value or expressions.unknown()
            sides[name] = _sides_after(node, here, file)
    return list(values.values())


def _sides_after(node: Any, sides: Sides, file: OnnxFile) -> Sides:
    """Height and width of what a node gives, of those of what it is given; empty where they are not known."""
    told = _told(node)
    if node.op_type == "Resize":
        factor = _factor(file, node, sides)
        return tuple(round(side * factor) for side in sides) if factor else ()
    if node.op_type not in ("Conv", "MaxPool"):
        return sides
    kernel = (
        tuple(file.values[node.input[1]].dims)[2:] if node.op_type == "Conv" and node.input[1] in file.values else ()
    )
    kernel = told.get("kernel_shape", kernel)
    pads, strides = told.get("pads", (0, 0, 0, 0)), told.get("strides", (1, 1))
    if not len(sides) == len(kernel) == len(strides) == 2 or len(pads) != 4 or 0 in strides:
        return ()
    return tuple((sides[i] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in (0, 1))


def _factor(file: OnnxFile, node: Any, sides: Sides) -> float:
    """How many times as large a Resize makes a map, told by it or by the sides that it makes; 0 if this is unknown."""
    scales, sizes = _numbers(file, node, 2), _numbers(file, node, 3)
    if not scales and len(sizes) == 4 and len(sides) == 2 and 0 not in sides:
        scales = [1, 1, sizes[2] / sides[0], sizes[3] / sides[1]]
    return scales[2] if len(scales) == 4 and scales == [1, 1, scales[2], scales[2]] else 0.0


def _of_node(
    expressions: Expressions, node: Any, x: Sequence[Expression], file: OnnxFile, here: Sides
) -> Expression | tuple[Expression, Expression] | None:
    """What a node computes, or None for what no model of ours does.  `here` are the sides of its first input."""
    told = _told(node)
    plain = told.get("auto_pad", b"NOTSET") == b"NOTSET"
    strides, pads = told.get("strides", (1, 1)), told.get("pads", (0, 0, 0, 0))
    if node.op_type in THROUGH:
        return x[0]
    if node.op_type == "Conv" and plain and node.input[1] in file.values:
        shape = tuple(file.values[node.input[1]].dims)
        settings = (shape, strides, pads, told.get("dilations", (1, 1)), told.get("group", 1))
        return expressions.of("Conv", settings, x[0], origin=node)
    if node.op_type == "Sigmoid":
        return expressions.of("Sigmoid", (), x[0])
    if node.op_type in ("Mul", "Add") and len(x) == len(node.input) == 2:
        return expressions.product(*x) if node.op_type == "Mul" else expressions.sum(*x)
    if node.op_type == "Concat" and len(x) == len(node.input) and told.get("axis") in (1, -3):
        return expressions.of("Concat", (), *x)
    if node.op_type == "MaxPool" and plain and not told.get("ceil_mode"):
        side = told.get("kernel_shape", (0,))[0]
        window = (told.get("kernel_shape"), strides, pads, told.get("dilations", (1, 1)))
        if window == ((side, side), (2, 2), (side // 2,) * 4, (1, 1)):
            return expressions.of("MaxPool", (side, 2, side // 2), x[0])
        same = window == ((side, side), (1, 1), (side // 2,) * 4, (1, 1))
        return expressions.pool(side, x[0]) if same and side % 2 else None
    if node.op_type == "Resize":
        return _resize(expressions, told, _factor(file, node, here), x[0])
    if node.op_type == "Slice":
        return _slice(expressions, [_numbers(file, node, i) for i in (1, 2, 3, 4)], x[0])
    return _of_channels(expressions, node, x[0], file, here)


def _of_channels(
    expressions: Expressions, node: Any, x: Expression, file: OnnxFile, here: Sides
) -> Expression | tuple[Expression, Expression] | None:
    """What a node computes that rectifies, parts or moves channels."""
    told = _told(node)
    if node.op_type == "LeakyRelu":
        return expressions.of("LeakyReLU", (round(told.get("alpha", 0.01), 6),), x)
    if node.op_type == "Split" and told.get("axis") in (1, -3) and len(node.output) == 2:
        sizes = told.get("split") or tuple(_numbers(file, node, 1)) or (1, 1)
        return expressions.halves(x) if len(sizes) == 2 and sizes[0] == sizes[1] else None
    if node.op_type == "Transpose":
        return expressions.of("Transpose", told.get("perm", ()), x)
    if node.op_type == "Reshape":
        shape = [int(side) for side in _numbers(file, node, 1)]
        return expressions.reshaped(shape, x) if shape and tuple(shape[-2:]) == here else None
    return None


def _told(node: Any) -> dict[str, Any]:
    """The attributes of a node that are a number, text or whole numbers."""
    kinds = {1: lambda a: a.f, 2: lambda a: a.i, 3: lambda a: a.s, 7: lambda a: tuple(a.ints)}
    return {a.name: kinds[a.type](a) for a in node.attribute if a.type in kinds}


def _resize(expressions: Expressions, told: Mapping[str, Any], factor: float, x: Expression) -> Expression | None:
    mode = {b"nearest": "nearest", b"linear": "bilinear"}.get(told.get("mode", b"nearest"))
    halfway = told.get("coordinate_transformation_mode", b"half_pixel") in (b"half_pixel", b"pytorch_half_pixel")
    if mode is None or not factor or (mode == "bilinear" and not halfway):
        return None
    return expressions.resized(mode, factor, x)


def _numbers(file: OnnxFile, node: Any, position: int) -> list[float]:
    """The numbers that a node is given as its input at `position`, if the file has them."""
    name = node.input[position] if position < len(node.input) else ""
    return [float(v) for v in file.tensor(name).flatten().tolist()] if name in file.values else []


def _slice(expressions: Expressions, given: Sequence[Sequence[float]], x: Expression) -> Expression | None:
    starts, ends, axes, steps = given
    if not len(starts) == len(ends) == len(axes) == len(steps) > 0 or min(ends) < 2**31 - 1:  # to the very end
        return None
    return expressions.slice(
        {int(axis) % 4: (int(start), int(step)) for start, axis, step in zip(starts, axes, steps, strict=True)}, x
    )
