"""Model YAML -> layers.  Rows are [from, repeats, module, args]; modules come from the registries below, by name.

A row's `from` is a layer number, -1 for the row above, or a list of them.  Names inside args that are keys of the YAML
(`nc`, `reg_max`) stand for their values.  What a width factor cannot express, a scale says by names of its own, as in
`s: [1.0, 0.5, 1024, {BLOCK: C2f, WIDE: 96}]`: they stand for their values as a row's module and in its args.  Each
scale of a file gives the same names.  To add a block, a backbone (a block that returns a list of maps) or a head: write
its class in a module and enter it in BLOCKS or HEADS, one line.

Beside its layers a YAML may say how it is best trained: settings by their names (PREFERENCES), which the user's own
settings override.  They are read here and judged where settings are (`config`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gfldet.errors import ConfigError, listed, shown
from gfldet.files import read_yaml
from gfldet.nn import blocks, limits
from gfldet.nn.backbones import Normalise, ResNetFPN
from gfldet.nn.blocks import Block, Row
from gfldet.nn.ghost_blocks import C3Ghost, GhostBottleneck, GhostConv
from gfldet.nn.graph import Graph
from gfldet.nn.heads import DetectionHead, EndToEnd, GFLHead, GroupedHead, Head, PlainHead, SharedHead
from gfldet.nn.nanodet_blocks import Add, Halve, Lateral, LeakyConv, MaxPool, SeparableLeaky, ShuffleStage
from gfldet.nn.yolov9_blocks import ELAN, SPPELAN, AConv, ADown, RepNCSPELAN
from gfldet.nn.yolox_blocks import Focus, SeparableC3, SeparableConv

BLOCKS: dict[str, type[Block]] = {
    "Conv": blocks.Conv,
    "DWConv": blocks.DWConv,
    "Bottleneck": blocks.Bottleneck,
    "C2": blocks.C2,
    "C2f": blocks.C2f,
    "C3": blocks.C3,
    "GhostConv": GhostConv,
    "GhostBottleneck": GhostBottleneck,
    "C3Ghost": C3Ghost,
    "SPPF": blocks.SPPF,
    "Concat": blocks.Concat,
    "Upsample": blocks.Upsample,
    "nn.Upsample": blocks.Upsample,
    "ResNetFPN": ResNetFPN,
    "Focus": Focus,
    "SeparableConv": SeparableConv,
    "SeparableC3": SeparableC3,
    "ELAN": ELAN,
    "RepNCSPELAN": RepNCSPELAN,
    "AConv": AConv,
    "ADown": ADown,
    "SPPELAN": SPPELAN,
    "Normalise": Normalise,
    "LeakyConv": LeakyConv,
    "SeparableLeaky": SeparableLeaky,
    "ShuffleStage": ShuffleStage,
    "Lateral": Lateral,
    "Add": Add,
    "MaxPool": MaxPool,
    "Halve": Halve,
}
HEADS: dict[str, type[Head]] = {
    "GFLHead": GFLHead,
    "Detect": GFLHead,  # the name in YAMLs that users of this family already have
    "GroupedHead": GroupedHead,
    "SharedHead": SharedHead,
    "PlainHead": PlainHead,
}
SCALING = ("scales", "scale", "depth_multiple", "width_multiple", "max_channels")
PREFERENCES = ("cls_loss", "cls_target", "iou_loss", "assigner", "box", "cls", "dfl", "lr0")
KEYS = ("nc", "reg_max", "dgqp", "end2end", *PREFERENCES, *SCALING, "backbone", "head")
MAX_REG_MAX = limits.MAX_REG_MAX


@dataclass(frozen=True, slots=True)
class Description:
    """A model YAML, read and checked: plain data, kept in checkpoints, enough to build the model again.

    `depth` multiplies repeats, `width` channels, `max_channels` bounds channels before that.  `dgqp` adds GFLv2's
    quality predictor to the head, `end2end` makes it an end-to-end one.  `preferred` are the settings that the
    YAML prefers.
    """

    name: str
    nc: int
    reg_max: int
    depth: float
    width: float
    max_channels: float
    rows: tuple[tuple[Any, ...], ...] = field(repr=False)
    dgqp: bool = False
    end2end: bool = False
    preferred: Mapping[str, Any] = field(default_factory=dict)

    @property
    def head_prefix(self) -> str:
        """What the names of the head's tensors begin with in a state of the model, as in `graph.layers.22.`."""
        return f"graph.layers.{len(self.rows) - 1}."

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "nc": self.nc,
            "reg_max": self.reg_max,
            "depth": self.depth,
            "width": self.width,
            "max_channels": self.max_channels,
            "rows": [list(row) for row in self.rows],
            "dgqp": self.dgqp,
            "end2end": self.end2end,
            "preferred": dict(self.preferred),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Description:
        """What `to_dict` gave; ConfigError for what no model YAML could have given, TypeError or KeyError for what is
        no description at all."""
        description = cls(**{**data, "rows": tuple(tuple(row) for row in data["rows"])})
        check(description)
        return description


def read_description(path: Path, scale: str | None = None, nc: int | None = None) -> Description:
    """A model YAML file -> description.  `scale` names one of its `scales` (None: the first), `nc` replaces its own.

    Raises ConfigError with the file and every mistake found in it.
    """
    data = read_yaml(path, ConfigError).value
    if not isinstance(data, dict):
        raise ConfigError(f"model YAML {path}: expected keys such as backbone and head, got {type(data).__name__}")
    problems = _key_problems(data)
    chosen, problem = _chosen_scale(data, scale)
    problems += problem
    written = [row for part in ("backbone", "head") if isinstance(data.get(part), list) for row in data[part]]
    problems += _name_problems(data, written)
    rows = [_named(row, chosen.names) for row in written]
    for number, row in enumerate(rows):
        problems += [
            f"row {number} {shown(row)}: {problem}" for problem in _row_problems(row, number, number == len(rows) - 1)
        ]
    if problems:
        raise ConfigError(listed(f"model YAML {path}:", problems, "Correct the file and try again."))
    named = f"{path.stem}-{chosen.name}" if chosen.name else path.stem
    values = {**data, "nc": data.get("nc", 80) if nc is None else nc, "reg_max": data.get("reg_max", 16)}
    resolved = tuple((row[0], row[1], row[2], [_value(a, values) for a in row[3]]) for row in rows)
    return Description(
        named,
        values["nc"],
        values["reg_max"],
        chosen.depth,
        chosen.width,
        chosen.max_channels,
        resolved,
        data.get("dgqp", False),
        data.get("end2end", False),
        {key: data[key] for key in PREFERENCES if key in data},
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    name: str
    depth: float
    width: float
    max_channels: float
    names: Mapping[str, Any] = field(default_factory=dict)


def _key_problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with the YAML's own keys and their types."""
    problems = []
    for key in data:
        if key == "anchors":
            problems.append("anchors: gfldet is anchor-free; remove the key and end the head with GFLHead")
        elif key not in KEYS:
            close = difflib.get_close_matches(shown(key, quoted=False), KEYS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {KEYS}"
            problems.append(f"unknown key {shown(key)}; {hint}")
    for key, low, high in (("nc", 1, 100_000), ("reg_max", 1, MAX_REG_MAX)):
        value = data.get(key, low)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            problems.append(f"{key}: {shown(value)}; a whole number from {low} to {high} is expected")
    for key in ("dgqp", "end2end"):
        if not isinstance(data.get(key, False), bool):
            problems.append(f"{key}: {shown(data[key])}; true or false is expected")
    for key in ("backbone", "head"):
        if not isinstance(data.get(key), list) or not data[key]:
            problems.append(f"{key}: a list of rows [from, repeats, module, args] is expected")
    return problems


def _chosen_scale(data: Mapping[str, Any], scale: str | None) -> tuple[_Scale, list[str]]:
    """The scale asked for, else the YAML's `scale`, else its first, else depth_multiple and width_multiple."""
    scales, fallback = data.get("scales"), _Scale("", 1.0, 1.0, 1e9)
    if not scales:
        factors = {key: data.get(key, 1.0) for key in ("depth_multiple", "width_multiple")}
        factors["max_channels"] = data.get("max_channels", 1e9)
        problems = [f"{key}: {shown(v)}; a number above 0 is expected" for key, v in factors.items() if not _factor(v)]
        if scale:
            problems.append(f"scale {shown(scale)} was asked for, but the file has no `scales`")
        return fallback if problems else _Scale("", *factors.values()), problems
    if not isinstance(scales, dict):
        return fallback, ["scales: expected name: [depth, width, max_channels]"]
    scale = scale or data.get("scale") or next(iter(scales))
    if not isinstance(scale, Hashable) or scale not in scales:
        there = ", ".join(shown(one, quoted=False) for one in islice(scales, 100))
        return fallback, [f"scale {shown(scale)} is not there; the file has {there}"]
    values = scales[scale]
    numbers, names = (values[:3], values[3:]) if isinstance(values, list) else ([], [])
    place = f"scales.{shown(scale, quoted=False)}"
    if len(numbers) != 3 or not all(map(_factor, numbers)) or len(names) > 1:
        return fallback, [f"{place}: {shown(values)}; expected three numbers [depth, width, max_channels] above 0"]
    if names and not (isinstance(names[0], dict) and all(isinstance(v, (str, int, float)) for v in names[0].values())):
        return fallback, [f"{place}: {shown(names[0])}; expected names in the rows, each with a word or a number"]
    return _Scale(str(scale), *values), []


def _factor(value: object) -> bool:
    """Whether a value is a finite number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _name_problems(data: Mapping[str, Any], rows: Sequence[Any]) -> list[str]:
    """Names that a scale lacks and another has, and names of which no row makes use."""
    scales = data.get("scales")
    given = {
        scale: set(values[3])
        if isinstance(values, list) and len(values) == 4 and isinstance(values[3], dict)
        else set()
        for scale, values in (scales.items() if isinstance(scales, dict) else ())
    }
    every: set[Any] = set().union(*given.values())
    used: set[Any] = set()
    for row in rows:
        if isinstance(row, list) and len(row) == 4:
            used |= {word for word in (row[2], *(row[3] if isinstance(row[3], list) else ())) if isinstance(word, str)}
    problems = [
        f"scales.{shown(scale, quoted=False)}: no value for {_listed(every - names)}, which other scales name"
        for scale, names in given.items()
        if every - names
    ]
    unused = _listed(every - used, quoted=True)
    return problems + ([f"scales: {unused} stands in no row, neither as module nor in args"] if unused else [])


def _listed(names: Iterable[Any], quoted: bool = False) -> str:
    return ", ".join(shown(name, quoted=quoted) for name in islice(sorted(names, key=str), 100))


def _named(row: Any, names: Mapping[str, Any]) -> Any:
    """A row with the names that a scale gives, as its module or in its args, replaced by their values."""
    if not isinstance(row, list) or len(row) != 4:
        return row

    def value(word: Any) -> Any:
        return names.get(word, word) if isinstance(word, str) else word

    return [*row[:2], value(row[2]), [value(a) for a in row[3]] if isinstance(row[3], list) else row[3]]


def _row_problems(row: Any, number: int, last: bool) -> list[str]:
    """What is wrong with one row, given that only the last may (and must) be a head."""
    if not isinstance(row, list) or len(row) != 4:
        return ["expected [from, repeats, module, args]"]
    sources, repeats, module, args = row
    problems = []
    for source in sources if isinstance(sources, list) else [sources]:
        if (
            not isinstance(source, int)
            or not -number - 1 <= source < number
            or (source < 0 and number == 0 and source != -1)
        ):
            problems.append(f"from {shown(source)}: a layer number below {number}, or a negative one counted back")
    if not isinstance(repeats, int) or repeats < 1:
        problems.append(f"repeats {shown(repeats)}: a whole number of 1 or more is expected")
    if not isinstance(args, list):
        problems.append(f"args {shown(args)}: a list is expected")
    known, other = (HEADS, BLOCKS) if last else (BLOCKS, HEADS)
    if isinstance(module, str) and module in other:
        problems.append("the last row must be a detection head, and only it: " + ", ".join(HEADS))
    elif not isinstance(module, str) or module not in known:
        close = difflib.get_close_matches(shown(module, quoted=False), list(known), 1)
        problems.append(
            f"unknown module {shown(module)}"
            + (f"; did you mean {close[0]!r}?" if close else "")
            + f" (known: {', '.join(known)})"
        )
    return problems


def _value(argument: Any, values: Mapping[str, Any]) -> Any:
    return values[argument] if isinstance(argument, str) and argument in ("nc", "reg_max") else argument


def check(description: Description) -> None:
    """ConfigError with every value of a description that is of a wrong kind, or beyond what `limits` allows."""
    rows = description.rows
    problems = limits.problems(description, PREFERENCES) or [
        f"row {number} {shown(list(row))}: {problem}"
        for number, row in enumerate(rows)
        for problem in _row_problems(list(row), number, number == len(rows) - 1)
    ]
    if problems:
        raise ConfigError("\n".join([f"model {shown(description.name, quoted=False)}:", *(f"  {p}" for p in problems)]))


def build(description: Description) -> Graph:
    """Description -> layers with fresh weights, strides measured, biases at their prior.

    Raises ConfigError naming the row whose arguments its block refuses, or with which the model becomes larger than
    `limits` allows.
    """
    check(description)
    with limits.AtMost():
        graph = _graph(description)
        _measure_strides(graph, description.name)
    return graph


def _graph(description: Description) -> Graph:
    """The layers of a description; the strides of its head are not known yet."""
    layers: list[nn.Module] = []
    sources: list[tuple[int, ...]] = []
    channels: list[int | tuple[int, ...]] = []
    for number, (origin, repeats, name, args) in enumerate(description.rows):
        given = origin if isinstance(origin, list) else [origin]
        absolute = tuple(s if s >= 0 else number + s for s in given)
        inputs = _flat(3 if s < 0 else channels[s] for s in absolute)
        scaled = limits.repeats(repeats, description.depth)
        row = Row(inputs, scaled, tuple(args), description.width, description.max_channels)
        try:
            if name in HEADS:
                layers.append(_head(description, name, inputs))
                channels.append(0)
            else:
                made = BLOCKS[name].from_row(row)
                layers.append(made.module)
                channels.append(made.channels)
            if sum(_flat(channels[-1:])) > limits.MAX_CHANNELS:
                raise limits.TooLarge(f"{sum(_flat(channels[-1:]))} channels; at most {limits.MAX_CHANNELS} of a row")
        except Exception as error:  # torch raises almost anything for arguments that it does not expect
            place = f"model {description.name}, row {number} {shown([origin, repeats, name, args])}"
            raise ConfigError(f"{place}: {_reason(error)}") from error
        sources.append(absolute)
    return Graph(layers, sources)


def _flat(channels: Iterable[int | tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(c for given in channels for c in (given if isinstance(given, tuple) else (given,)))


def _head(description: Description, name: str, channels: tuple[int, ...]) -> DetectionHead:
    """The head of a description, for levels of `channels`."""
    d = description
    one = HEADS[name](d.nc, d.reg_max, channels, d.dgqp)
    return EndToEnd(one, HEADS[name](d.nc, d.reg_max, channels, d.dgqp)) if d.end2end else one


def _measure_strides(graph: Graph, name: str) -> None:
    """Run a small blank image and compare sizes: each level's stride follows from the graph, not from a list."""
    side = 128
    training = graph.training
    graph.eval()
    try:
        with torch.no_grad():
            maps = graph(torch.zeros(1, 3, side, side))
        graph.train(training)
        graph.head.strides = tuple(side // m.shape[-1] for m in maps)
        graph.head.init_biases()
    except limits.TooLarge as error:
        raise ConfigError(f"model {name}: {error}") from error
    except Exception as error:  # as above: a stride of 1.5 is found here
        raise ConfigError(f"model {name}: the layers do not fit together: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return shown(" ".join(str(error).split()) or type(error).__name__, 300, quoted=False)
