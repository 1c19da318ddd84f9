"""Model YAML -> layers.  Rows are [from, repeats, module, args]; modules come from the registries below, by name.

A row's `from` is a layer number, -1 for the row above, or a list of them.  Names inside args that are keys of the YAML
(`nc`, `reg_max`) stand for their values.  To add a block: write it in `blocks` (or elsewhere) and enter it in BLOCKS.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from gfldet.errors import ConfigError
from gfldet.nn import blocks
from gfldet.nn.blocks import Block, Row
from gfldet.nn.heads import GFLHead

BLOCKS: dict[str, type[Block]] = {
    "Conv": blocks.Conv,
    "DWConv": blocks.DWConv,
    "Bottleneck": blocks.Bottleneck,
    "C2f": blocks.C2f,
    "C3": blocks.C3,
    "SPPF": blocks.SPPF,
    "Concat": blocks.Concat,
    "Upsample": blocks.Upsample,
    "nn.Upsample": blocks.Upsample,
}
HEADS: dict[str, type[GFLHead]] = {
    "GFLHead": GFLHead,
    "Detect": GFLHead,  # the name in YAMLs that users of this family already have
}
KEYS = ("nc", "reg_max", "scales", "scale", "depth_multiple", "width_multiple", "max_channels", "backbone", "head")
MAX_REG_MAX = 256


@dataclass(frozen=True, slots=True)
class Description:
    """A model YAML, read and checked: plain data, kept in checkpoints, enough to build the model again.

    `depth` multiplies repeats, `width` channels, `max_channels` bounds channels before that.
    """

    name: str
    nc: int
    reg_max: int
    depth: float
    width: float
    max_channels: float
    rows: tuple[tuple[Any, ...], ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "nc": self.nc,
            "reg_max": self.reg_max,
            "depth": self.depth,
            "width": self.width,
            "max_channels": self.max_channels,
            "rows": [list(row) for row in self.rows],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Description:
        return cls(**{**data, "rows": tuple(tuple(row) for row in data["rows"])})


def read_description(path: Path, scale: str | None = None, nc: int | None = None) -> Description:
    """A model YAML file -> description.  `scale` names one of its `scales` (None: the first), `nc` replaces its own.

    Raises ConfigError with the file and every mistake found in it.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"model YAML {path}: cannot be read ({error.strerror}); check the path") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"model YAML {path}: is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"model YAML {path}: expected keys such as backbone and head, got {type(data).__name__}")
    problems = _key_problems(data)
    chosen, problem = _chosen_scale(data, scale)
    problems += problem
    rows = [row for part in ("backbone", "head") if isinstance(data.get(part), list) for row in data[part]]
    for number, row in enumerate(rows):
        problems += [
            f"row {number} {row!r}: {problem}" for problem in _row_problems(row, number, number == len(rows) - 1)
        ]
    if problems:
        raise ConfigError("\n".join([f"model YAML {path}:", *(f"  {p}" for p in problems)]))
    named = f"{path.stem}-{chosen.letter}" if chosen.letter else path.stem
    values = {**data, "nc": data.get("nc", 80) if nc is None else nc, "reg_max": data.get("reg_max", 16)}
    resolved = tuple((row[0], row[1], row[2], [_value(a, values) for a in row[3]]) for row in rows)
    return Description(
        named, values["nc"], values["reg_max"], chosen.depth, chosen.width, chosen.max_channels, resolved
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    letter: str
    depth: float
    width: float
    max_channels: float


def _key_problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with the YAML's own keys and their types."""
    problems = []
    for key in data:
        if key == "anchors":
            problems.append("anchors: gfldet is anchor-free; remove the key and end the head with GFLHead")
        elif key not in KEYS:
            close = difflib.get_close_matches(str(key), KEYS, 1)
            problems.append(f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else f"; known: {KEYS}"))
    for key, low, high in (("nc", 1, 100_000), ("reg_max", 2, MAX_REG_MAX)):
        value = data.get(key, low)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            problems.append(f"{key}: {value!r}; a whole number from {low} to {high} is expected")
    for key in ("backbone", "head"):
        if not isinstance(data.get(key), list) or not data[key]:
            problems.append(f"{key}: a list of rows [from, repeats, module, args] is expected")
    return problems


def _chosen_scale(data: Mapping[str, Any], letter: str | None) -> tuple[_Scale, list[str]]:
    """The scale asked for, else the YAML's `scale`, else its first, else depth_multiple and width_multiple."""
    scales = data.get("scales")
    if not scales:
        plain = _Scale(
            "", data.get("depth_multiple", 1.0), data.get("width_multiple", 1.0), data.get("max_channels", 1e9)
        )
        return plain, [f"scale {letter!r} was asked for, but the file has no `scales`"] if letter else []
    fallback = _Scale("", 1.0, 1.0, 1e9)
    if not isinstance(scales, dict):
        return fallback, ["scales: expected letter: [depth, width, max_channels]"]
    letter = letter or data.get("scale") or next(iter(scales))
    if letter not in scales:
        return fallback, [f"scale {letter!r} is not there; the file has {', '.join(map(str, scales))}"]
    values = scales[letter]
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, (int, float)) for v in values):
        return fallback, [f"scales.{letter}: {values!r}; expected three numbers [depth, width, max_channels]"]
    return _Scale(str(letter), *values), []


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
            problems.append(f"from {source!r}: a layer number below {number}, or a negative one counted back")
    if not isinstance(repeats, int) or repeats < 1:
        problems.append(f"repeats {repeats!r}: a whole number of 1 or more is expected")
    if not isinstance(args, list):
        problems.append(f"args {args!r}: a list is expected")
    known, other = (HEADS, BLOCKS) if last else (BLOCKS, HEADS)
    if module in other:
        problems.append("the last row must be a detection head, and only it: " + ", ".join(HEADS))
    elif module not in known:
        close = difflib.get_close_matches(str(module), list(known), 1)
        problems.append(
            f"unknown module {module!r}"
            + (f"; did you mean {close[0]!r}?" if close else "")
            + f" (known: {', '.join(known)})"
        )
    return problems


def _value(argument: Any, values: Mapping[str, Any]) -> Any:
    return values[argument] if isinstance(argument, str) and argument in ("nc", "reg_max") else argument


class Graph(nn.Module):
    """Layers in order, each with the numbers of those it reads.  The last is the head."""

    def __init__(self, layers: Sequence[nn.Module], sources: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sources = tuple(sources)
        self._needed = frozenset(s for i, row in enumerate(sources) for s in row if s != i - 1)

    def forward(self, x: Tensor) -> Any:
        """Images (B, 3, H, W) -> what the last layer returns."""
        kept: dict[int, Any] = {-1: x}
        out: Any = x
        for number, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            inputs = [out if s == number - 1 else kept[s] for s in sources]
            out = layer(inputs[0] if len(inputs) == 1 and not isinstance(layer, GFLHead) else inputs)
            if number in self._needed:
                kept[number] = out
        return out


def build(description: Description) -> Graph:
    """Description -> layers with fresh weights, strides measured, biases at their prior.

    Raises ConfigError naming the row whose arguments its block refuses.
    """
    layers: list[nn.Module] = []
    sources: list[tuple[int, ...]] = []
    channels: list[int] = []
    for number, (origin, repeats, name, args) in enumerate(description.rows):
        given = origin if isinstance(origin, list) else [origin]
        absolute = tuple(s if s >= 0 else number + s for s in given)
        inputs = tuple(3 if s < 0 else channels[s] for s in absolute)
        scaled = max(round(repeats * description.depth), 1) if repeats > 1 else repeats
        row = Row(inputs, scaled, tuple(args), description.width, description.max_channels)
        try:
            if name in HEADS:
                layers.append(HEADS[name](description.nc, description.reg_max, inputs))
                channels.append(0)
            else:
                made = BLOCKS[name].from_row(row)
                layers.append(made.module)
                channels.append(made.channels)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ConfigError(
                f"model {description.name}, row {number} {[origin, repeats, name, args]}: {error}"
            ) from error
        sources.append(absolute)
    graph = Graph(layers, sources)
    _measure_strides(graph, description.name)
    return graph


def _measure_strides(graph: Graph, name: str) -> None:
    """Run a small blank image and compare sizes: each level's stride follows from the graph, not from a list."""
    side = 128
    head = graph.layers[-1]
    assert isinstance(head, GFLHead)
    training = graph.training
    graph.eval()
    try:
        with torch.no_grad():
            maps = graph(torch.zeros(1, 3, side, side))
    except RuntimeError as error:
        raise ConfigError(f"model {name}: the layers do not fit together: {error}") from error
    graph.train(training)
    head.strides = tuple(side // m.shape[-1] for m in maps)
    head.init_biases()
