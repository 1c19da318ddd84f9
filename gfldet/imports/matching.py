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
from gfldet.imports.foreign import Refusal, identity_norm
from gfldet.nn.build import Graph
from gfldet.nn.heads import DetectionHead
from gfldet.nn.tasks import DetectionModel

THROUGH = ("Identity", "Cast")  # leave values what they are


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A value of a graph.  `number` stands for all below but `origin`, which is a Conv's place: path or node."""

    number: int
    operation: str
    settings: tuple[Any, ...] = ()
    inputs: tuple[Expression, ...] = ()
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
    ours = features_of(model.graph, expressions)
    there = {value.number: value for value in values_of(file, expressions)}
    for feature in ours:
        for value in upwards(feature):
            if value.operation == "Conv" and value.number not in there:
                shape, strides, *_ = value.settings
                here = called(f"graph.{value.origin}")
                conv = f"Conv {list(shape)} of stride {strides[0]}"
                raise Refusal(f"its graph has no {conv} that computes what {here} does")
        if feature.number not in there:
            raise Refusal("its graph does something else with its convolutions")
    weights: dict[str, Tensor] = {}
    for path, node in paired(ours, [there[feature.number] for feature in ours]).items():
        if len(node.input) < 3 or node.input[2] not in file.values:
            raise Refusal(f"its Conv {node.name:.80} has no bias in the file, so norms are not in it; export again")
        weights[f"graph.{path}.weight"] = file.tensor(node.input[1])
        norm = f"graph.{path.removesuffix('conv')}bn"
        bias = file.tensor(node.input[2])
        if bias.shape != weights[f"graph.{path}.weight"].shape[:1]:
            raise Refusal(f"its Conv {node.name:.80} has a bias {list(bias.shape)}, which is not one a channel")
        weights |= {f"{norm}.{name}": value for name, value in identity_norm(bias).items()}
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


class _Tracer(fx.Tracer):
    """torch's tracer of modules, to which a head and an Upsample are one operation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (DetectionHead, nn.Upsample)) or super().is_leaf_module(m, module_qualified_name)


def features_of(body: Graph, expressions: Expressions) -> list[Expression]:
    """What the head of a graph is given.  Convolutions have their path in `body` as their origin."""
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
    if isinstance(module, nn.MaxPool2d):
        assert isinstance(module.kernel_size, int)
        return expressions.pool(module.kernel_size, x)
    if isinstance(module, nn.Upsample):
        return expressions.of("Resize", (module.scale_factor,), x)
    if isinstance(module, (nn.BatchNorm2d, nn.Identity)):  # norms are in the file's convolutions
        return x
    raise NotImplementedError(f"{type(module).__name__} in a model of ours")


def values_of(file: OnnxFile, expressions: Expressions) -> list[Expression]:
    """Every value of a file's graph.  Convolutions have their node as their origin."""
    image = next((value.name for value in file.graph.input if value.name not in file.values), None)
    values: dict[str, Expression] = {} if image is None else {image: expressions.of("image")}
    for node in file.graph.node:
        inputs = [values[name] for name in node.input if name in values]
        found = _of_node(expressions, node, inputs, file) if inputs else None
        for name in node.output:
            values[name] = found or expressions.unknown()
    return list(values.values())


def _of_node(expressions: Expressions, node: Any, x: Sequence[Expression], file: OnnxFile) -> Expression | None:
    """What a node computes, or None for what no model of ours does."""
    told = {a.name: (a.i, a.s, tuple(a.ints))[(2, 3, 7).index(a.type)] for a in node.attribute if a.type in (2, 3, 7)}
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
        same = window == ((side, side), (1, 1), (side // 2,) * 4, (1, 1))
        return expressions.pool(side, x[0]) if same and side % 2 else None
    if node.op_type == "Resize" and told.get("mode", b"nearest") == b"nearest":
        scales = _numbers(file, node, 2)
        return expressions.of("Resize", scales[2:3], x[0]) if scales[2:] == [scales[2]] * 2 else None
    if node.op_type == "Slice":
        return _slice(expressions, [_numbers(file, node, i) for i in (1, 2, 3, 4)], x[0])
    return None


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
