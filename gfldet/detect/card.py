"""The card of an exported file: everything that a program needs to feed it and to read its outputs, as plain text.

It travels inside the file (ONNX metadata, OpenVINO rt_info) under the keys below, and beside a web page as JSON.  Its
format has a number.  A change that makes files which a runner of before would read wrongly is a new VERSION, a step in
MIGRATIONS from the text of the version before, and a file of that version in tests/detect/files.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import gfldet
from gfldet.errors import CheckpointError, counted, shown
from gfldet.ops.letterbox import PAD_COLOUR

FORMAT, VERSION = "gfldet-export", 1
Text = dict[str, str]
MIGRATIONS: Mapping[int, Callable[[Text], Text]] = {}  # version -> what makes a card of the next one of its text
Layout = Literal["raw", "decoded", "detections"]
LAYOUTS: tuple[Layout, ...] = ("raw", "decoded", "detections")
CHANNELS = ("RGB", "BGR")
MAX_CLASSES = 100_000
MAX_SIDE = 1 << 14  # px
MAX_PIXELS = 1 << 27  # of the frames of a run; their planes take 1.6 GB
# Outputs by layout, with shapes: B images, A anchor points, C classes, R bins, D detections (0 beyond `count`).
OUTPUTS: dict[Layout, dict[str, str]] = {
    "raw": {"bins": "B, 4R, A: logits of left, top, right, bottom", "logits": "B, C, A"},
    "decoded": {"boxes": "B, A, 4: x1 y1 x2 y2 in px of the frame", "scores": "B, A, C in [0, 1]"},
    "detections": {
        "boxes": "B, D, 4: x1 y1 x2 y2 in px of the frame, best score first",
        "scores": "B, D",
        "classes": "B, D, int64",
        "count": "B, int64: how many of the D are detections",
    },
}
INPUT = "images"  # (B, 3, H, W) float32, as `channels` and `normalisation` say
WEIGHTS_LICENCE = (
    "gfldet is Apache-2.0. These weights are not part of it: they belong to whoever trained them, under the terms of "
    "the data they were trained on."
)


_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_NUMBERS = rf"\[{_NUMBER}, {_NUMBER}, {_NUMBER}\]"
_NORMALISATION = re.compile(rf"x(?: / (?P<one>{_NUMBER}))?|\(x - (?P<mean>{_NUMBERS})\) / (?P<scale>{_NUMBERS})")


@dataclass(frozen=True, slots=True)
class Values:
    """From grey levels x, 0 to 255, to what a graph takes: (x - mean) / scale, for each channel in the card's order."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, normalisation: str) -> Values:
        """From the card's text: "x", "x / 255" or "(x - [a, b, c]) / [d, e, f]", with any numbers; else ValueError."""
        found = _NORMALISATION.fullmatch(normalisation)
        mean, scale = [0.0] * 3, [1.0] * 3
        if found and found["one"]:
            scale = [float(found["one"])] * 3
        elif found and found["mean"]:
            mean, scale = json.loads(found["mean"]), json.loads(found["scale"])
        if found is None or 0 in scale or not all(map(math.isfinite, (*mean, *scale))):
            raise ValueError(
                f'normalisation {normalisation!r}, expected "x", "x / 255" or "(x - [1, 2, 3]) / [4, 5, 6]" with '
                "numbers of your own"
            )
        return cls(tuple(mean), tuple(scale))


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What an exported file says of itself.

    names        of the classes, in the order of the scores; `category_ids` are their ids in the user's own files
    imgsz        frame (height, width) in px that images are letterboxed into: the only one, unless `dynamic` is `all`
    batch        images of a run; any number if `dynamic` is not `none`
    strides      of the levels; the A points run level by level, row by row
    multiple     what the sides of a frame have to be multiples of
    layout       a key of OUTPUTS
    conf, iou, max_det, agnostic   how detections were chosen, where `layout` is `detections`
    precision    float32, float16 or int8: what the file computes in; inputs and outputs are float32
    pad_colour   the grey, 0 to 255, around an image in its frame
    channels     their order in the input
    normalisation   how grey levels x become the input's values, as `Values.of` reads it
    sample_bits  that 16-bit images were trained with: the upper 8 of them are the grey levels; None: there were none
    tiles        side in px, overlap and `tile_whole` that the model was trained with; None: it was trained without
    licence      of the weights
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    imgsz: tuple[int, int]
    strides: tuple[int, ...]
    multiple: int
    reg_max: int
    layout: Layout
    dynamic: Literal["none", "batch", "all"] = "none"
    batch: int = 1
    end2end: bool = False
    conf: float = 0.0
    iou: float = 1.0
    max_det: int = 0
    agnostic: bool = False
    precision: Literal["float32", "float16", "int8"] = "float32"
    pad_colour: int = PAD_COLOUR
    channels: Literal["RGB", "BGR"] = "RGB"
    normalisation: str = "x / 255"
    sample_bits: int | None = None
    tiles: tuple[int, float, bool] | None = None
    model: str = ""
    licence: str = WEIGHTS_LICENCE
    gfldet: str = gfldet.__version__
    format: str = f"{FORMAT}-{VERSION}"

    @property
    def values(self) -> Values:
        """What `normalisation` says."""
        return Values.of(self.normalisation)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; what is None is left out."""
        values = {
            field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) is not None
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def to_text(self) -> dict[str, str]:
        """Each entry as text: words as they are, all else as JSON."""
        return {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in self.to_dict().items()
        }

    @classmethod
    def from_text(cls, text: Mapping[str, str], file: str) -> Card:
        """What `to_text` wrote, in this version or an older one; CheckpointError, naming `file`, for a card that is
        missing, later or damaged."""
        version = _version(text, file)
        values: dict[str, Any] = {}
        try:
            text = _migrated(text, version)
            for field in fields(cls):
                if field.name in text:
                    kept = text[field.name]
                    value = (
                        kept if field.type in ("str", "Layout") or "Literal" in str(field.type) else json.loads(kept)
                    )
                    values[field.name] = tuple(value) if isinstance(value, list) else value
            card = cls(**values)
            problem = card.problem()
        except (TypeError, ValueError, AttributeError) as error:
            problem = str(error)
        except RecursionError:
            problem = "its lists are nested too deep"
        except KeyError as error:
            problem = f"it has no {error}"
        if problem:
            told = shown(problem, 300, quoted=False)
            raise CheckpointError(f"{file}: its card is damaged ({told}); export it anew with gfldet export")
        return card

    def problem(self) -> str:
        """What contradicts itself in the card, or cannot be obeyed; empty if nothing does."""
        for name, (fits, expected) in _EXPECTED.items():
            value: Any = getattr(self, name)
            if not fits(value):
                return f"{name} {shown(value)}, expected {expected}"
        height, width = self.imgsz
        if self.batch * height * width > MAX_PIXELS:
            return f"{self.batch} frames of {height} x {width} px in a run, expected at most {MAX_PIXELS} px in all"
        if height % self.multiple or width % self.multiple:
            return f"imgsz {self.imgsz} is no multiple of {self.multiple}"
        if len(self.names) != len(self.category_ids):
            return f"{counted(len(self.names), 'name')} and {counted(len(self.category_ids), 'category id')}"
        try:
            Values.of(self.normalisation)
        except ValueError as error:
            return str(error)
        return ""


def _whole(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: type(value) is int and low <= value <= high, f"a whole number from {low} to {high}"


def _wholes(low: int, high: int, least: int, most: int) -> tuple[Callable[[Any], bool], str]:
    one, _ = _whole(low, high)
    count = f"{least}" if least == most else f"{least} to {most}"
    return (
        lambda value: isinstance(value, tuple) and least <= len(value) <= most and all(map(one, value)),
        f"{count} whole numbers from {low} to {high}",
    )


def _one_of(*words: Any) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, type(words[0])) and value in words, f"one of {', '.join(map(str, words))}"


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _tiles(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != 3:
        return value is None
    side, overlap, whole = value
    return _whole(1, MAX_SIDE)[0](side) and _share(overlap) and overlap < 1 and type(whole) is bool


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and 0 < len(value) <= MAX_CLASSES and all(isinstance(name, str) for name in value)


_TEXT: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, str), "text")
# What each entry of a card has to be: whether a value is, and in words.
_EXPECTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "names": (_texts, f"a list of 1 to {MAX_CLASSES} texts"),
    "category_ids": _wholes(-(1 << 62), 1 << 62, 1, MAX_CLASSES),
    "imgsz": _wholes(1, MAX_SIDE, 2, 2),
    "strides": _wholes(1, MAX_SIDE, 1, 64),
    "multiple": _whole(1, MAX_SIDE),
    "reg_max": _whole(1, 256),
    "layout": _one_of(*LAYOUTS),
    "dynamic": _one_of("none", "batch", "all"),
    "batch": _whole(1, 1 << 16),
    "end2end": _one_of(True, False),
    "conf": (_share, "a number from 0 to 1"),
    "iou": (_share, "a number from 0 to 1"),
    "max_det": _whole(0, 1 << 20),
    "agnostic": _one_of(True, False),
    "precision": _one_of("float32", "float16", "int8"),
    "pad_colour": _whole(0, 255),
    "channels": _one_of(*CHANNELS),
    "sample_bits": (lambda value: value is None or _whole(8, 16)[0](value), "none, or a whole number from 8 to 16"),
    "tiles": (_tiles, f"none, or a side of 1 to {MAX_SIDE}, an overlap from 0 to below 1, and true or false"),
    "normalisation": _TEXT,
    "model": _TEXT,
    "licence": _TEXT,
    "gfldet": _TEXT,
}


def _version(text: Mapping[str, str], file: str) -> int:
    """The version of a card's text; CheckpointError where it is no card of ours, or a later one."""
    told = text.get("format", "")
    found = re.fullmatch(rf"{FORMAT}-([1-9][0-9]{{0,8}})", told)
    if found is None:
        reason = f"its format is {told[:50]!r}" if told else "it has no card"
        raise CheckpointError(
            f"{file}: not a file that this gfldet exported ({reason}, expected '{FORMAT}-{VERSION}'). Export it anew "
            "with gfldet export model=best.pt; weights of YOLOv8 come in by gfldet import weights=FILE out=imported.pt"
        )
    version = int(found[1])
    if version > VERSION:
        raise CheckpointError(
            f"{file}: its format is {told!r}, and this gfldet {gfldet.__version__} reads up to '{FORMAT}-{VERSION}'; "
            f"use the gfldet that wrote it ({text.get('gfldet', 'unknown')}) or a newer one, or export it anew with "
            "gfldet export model=best.pt"
        )
    return version


def _migrated(text: Mapping[str, str], version: int) -> Text:
    """A card's text of some version as one of VERSION."""
    of_today = dict(text)
    for number in range(version, VERSION):
        of_today = {**MIGRATIONS[number](of_today), "format": f"{FORMAT}-{number + 1}"}
    return of_today
