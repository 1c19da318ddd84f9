"""What a reader of foreign files gives, how it says no, and the checks that such readers share."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfldet.errors import counted
from gfldet.nn.blocks import BN_EPS
from gfldet.nn.build import Description
from gfldet.store.archive import Refusal


@dataclass(frozen=True, slots=True, eq=False)
class ForeignModel:
    """A detector of another program as a model of ours.

    `weights` is a whole state of `DetectionModel(description, names)`, float32 on the CPU; with `body_only` the part of
    it below the head, since the head of that program is none of ours.  `imgsz` is (height, width) in pixels, `strides`
    one a level; both None where the file tells none.  `licence` is the text that the file itself gives, or the licence
    that the family is published under.  `family` is its name; `left` says in words what of the file was not taken.
    """

    description: Description
    names: tuple[str, ...]
    weights: Mapping[str, Tensor]
    imgsz: tuple[int, int] | None = None
    strides: tuple[int, ...] | None = None
    licence: str | None = None
    family: str = ""
    body_only: bool = False
    left: tuple[str, ...] = ()


def class_names(value: Any, nc: int) -> tuple[str, ...]:
    """The names of `nc` classes, from a list, a dict by number or the text of either."""
    value = _parsed(value)
    if isinstance(value, dict) and sorted(map(str, value)) == sorted(map(str, range(nc))):
        value = [value[i] if i in value else value[str(i)] for i in range(nc)]
    if not isinstance(value, (list, tuple)) or len(value) != nc or not all(isinstance(n, str) and n for n in value):
        raise Refusal(f"the names of its {counted(nc, 'class')} are missing or of another number")
    return tuple(value)


def image_size(value: Any) -> tuple[int, int] | None:
    """(height, width) from one number or two, or from the text of these; None for anything else."""
    value = _parsed(value)
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, (list, tuple)) or len(sides) != 2:
        return None
    if not all(isinstance(side, int) and 0 < side <= 100_000 for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def text(value: Any) -> str | None:
    """A line of text as a file gives it, if that is what it is."""
    return " ".join(value.split())[:200] or None if isinstance(value, str) else None


def identity_norm(bias: Tensor, eps: float = BN_EPS) -> dict[str, Tensor]:
    """The state of a batch norm (C,) that only adds `bias`: for convolutions with the norm folded into them."""
    return {
        "weight": torch.ones_like(bias),
        "bias": bias,
        "running_mean": torch.zeros_like(bias),
        "running_var": torch.full_like(bias, 1 - eps),
        "num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }


def check_bins(bins: Tensor) -> None:
    """Refusal unless the values of the box bins are 0, 1, ..., R - 1, by which boxes are learnt and decoded."""
    if not torch.equal(bins.flatten().float(), torch.arange(bins.numel(), dtype=torch.float32)):
        raise Refusal("the values of its box bins (dfl) are not 0, 1, 2, ...")


def shown(value: Any) -> str:
    """A value of a file in a message: numbers, text and short tuples of them, the type alone of anything else."""
    parts = value if isinstance(value, (tuple, list)) else (value,)
    if len(parts) <= 8 and all(isinstance(part, (int, float, str, type(None))) for part in parts):
        return repr(value)[:60]
    return f"a {type(value).__name__}"


def _parsed(value: Any) -> Any:
    """ONNX metadata are text: a literal of Python in it becomes its value, nothing is run."""
    if not isinstance(value, str) or len(value) > 1_000_000:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value
