"""How large a model may be that a file describes: a wrong number in it is told, instead of taking all memory or time.

The bounds are some times what the largest detectors of today need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from gfldet.errors import shown

if TYPE_CHECKING:
    from gfldet.nn.build import Description

MAX_ROWS = 1000
MAX_REPEATS = 2000  # of all rows together, after the depth factor
MAX_CHANNELS = 1 << 15  # of a row's output
MAX_SOURCES = 64  # layers that a row reads
MAX_CLASSES = 100_000
MAX_REG_MAX = 256
MAX_FACTOR = 100.0  # of depth and width
MAX_NUMBERS = 1 << 28  # that a model's weights and its maps of a small image hold together; 1 GB
TIME = 512  # multiplications that count as one number


def problems(description: Description, settings: Collection[str]) -> list[str]:
    """What of a description is of a kind that none has, or too large; it may hold anything.  `settings` are the names
    of those that it may prefer."""
    d: Any = description  # its fields are what a file told
    found = [
        f"{name} {shown(value)}: a whole number from 1 to {most} is expected"
        for name, value, most in (("nc", d.nc, MAX_CLASSES), ("reg_max", d.reg_max, MAX_REG_MAX))
        if type(value) is not int or not 1 <= value <= most
    ]
    factors = (("depth", d.depth, MAX_FACTOR), ("width", d.width, MAX_FACTOR), ("max_channels", d.max_channels, 1e9))
    found += [
        f"{name} {shown(value)}: a number above 0, up to {most:g}, is expected"
        for name, value, most in factors
        if type(value) not in (int, float) or not 0 < value <= most
    ]
    if not isinstance(d.name, str):
        found.append(f"name {shown(d.name)}: text is expected")
    found += [
        f"{name} {shown(value)}: true or false is expected"
        for name, value in (("dgqp", d.dgqp), ("end2end", d.end2end))
        if type(value) is not bool
    ]
    plain = isinstance(d.preferred, Mapping) and all(map(_is_plain, (*d.preferred, *d.preferred.values())))
    if not plain or not d.preferred.keys() <= set(settings):
        found.append(f"settings {shown(d.preferred)}: a word or a number for some of {', '.join(settings)} is expected")
    if not 1 <= len(d.rows) <= MAX_ROWS:
        return [*found, f"{len(d.rows)} rows: 1 to {MAX_ROWS} are expected"]
    wrong = [
        f"row {number} {shown(list(row))}: {_row_problem(row)}"
        for number, row in enumerate(d.rows)
        if _row_problem(row)
    ]
    total = 0 if found or wrong else sum(repeats(row[1], d.depth) for row in d.rows)
    if total > MAX_REPEATS:
        found.append(f"{total} repeats of its rows: at most {MAX_REPEATS} in all are expected")
    return found + wrong


def _row_problem(row: Sequence[Any]) -> str:
    """What of a row is of a kind that no row has; empty if nothing is."""
    if len(row) != 4:
        return "expected [from, repeats, module, args]"
    sources, times, module, args = row
    if not isinstance(module, str):
        return "the name of a module is expected in the third place"
    if isinstance(sources, list) and not 1 <= len(sources) <= MAX_SOURCES:
        return f"from: 1 to {MAX_SOURCES} layers are expected"
    if type(times) is not int or not 1 <= times <= MAX_REPEATS:
        return f"repeats {shown(times)}: a whole number from 1 to {MAX_REPEATS} is expected"
    if not isinstance(args, list) or not _is_plain(args, 2):
        return "args: a short list of numbers, words and short lists of these is expected"
    return ""


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is a word or a number, or down to `depth` a short list of these."""
    if isinstance(value, (list, tuple)):
        return depth > 0 and len(value) <= MAX_SOURCES and all(_is_plain(item, depth - 1) for item in value)
    return value is None or isinstance(value, (str, bool, int, float))


def repeats(times: int, depth: float) -> int:
    """A row's repeats after the depth factor."""
    return max(round(times * depth), 1) if times > 1 else times


class TooLarge(ValueError):
    """A model takes more numbers than it may."""


class AtMost(TorchFunctionMode):
    """While it is entered, what torch makes for a model is counted before it is made; TooLarge where that is more than
    `most` numbers.

    Counted are new tensors, and what convolutions, pools, joins and changes of size give; all else gives as much as it
    takes.  Time counts too: convolutions and pools with windows far larger than the map would take hours.
    """

    def __init__(self, most: int = MAX_NUMBERS) -> None:
        super().__init__()
        self.most = most
        self.made = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        count = COUNTED.get(func)
        if count is not None:
            self.made += max(0, count(*args, **kwargs))
            if self.made > self.most:
                raise TooLarge(f"the model takes more than {self.most:,} numbers; give fewer channels or repeats")
        if func is torch.nn.functional.batch_norm and args[0].is_meta:
            return args[0]  # there, all that a norm gives is a shape, which torch takes its time for
        return func(*args, **kwargs)


def _new(*size: Any, **_: Any) -> int:
    sides = size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    return math.prod(max(0, int(side)) for side in sides)


def _filled(size: Any, *_: Any, **__: Any) -> int:
    return _new(*size)


def _range(*ends: Any, **_: Any) -> int:
    return int(ends[0] if len(ends) == 1 else ends[1] - ends[0])


def _convolved(x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, *_: Any, **__: Any) -> int:
    """Of the map as it were with stride 1."""
    high, wide = (0, 0) if isinstance(padding, str) else _pair(padding)
    out = x.shape[0] * weight.shape[0] * max(0, x.shape[-2] + 2 * high) * max(0, x.shape[-1] + 2 * wide)
    return int(max(out, out * math.prod(weight.shape[1:]) // (math.prod(_pair(stride)) * TIME or 1)))


def _pooled(x: Any, kernel: Any, *_: Any, **__: Any) -> int:
    return int(max(x.numel(), x.numel() * math.prod(_pair(kernel)) // TIME))


def _resized(x: Any, size: Any = None, scale_factor: Any = None, *_: Any, **__: Any) -> int:
    if size is not None:
        return int(x.shape[0] * x.shape[1] * math.prod(_pair(size)))
    return int(x.numel() * math.prod(_pair(scale_factor)))


def _joined(tensors: Any, *_: Any, **__: Any) -> int:
    return sum(x.numel() for x in tensors)


def _pair(value: Any) -> tuple[Any, Any]:
    """One number or two, or a list of them -> two."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    return values[0], values[-1]


COUNTED: Mapping[Any, Callable[..., int]] = {
    torch.empty: _new,
    torch.zeros: _new,
    torch.ones: _new,
    torch.full: _filled,
    torch.arange: _range,
    torch.conv2d: _convolved,
    torch.nn.functional.interpolate: _resized,
    torch.cat: _joined,
    torch.max_pool2d: _pooled,
    torch.nn.functional.max_pool2d: _pooled,
    torch.nn.functional.avg_pool2d: _pooled,
}
