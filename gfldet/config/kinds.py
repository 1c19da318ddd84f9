"""The kinds of value that a setting can have: how each is read, and how it is described to a person.

`read` takes a value from the command line (always text), a YAML file or Python and returns it in one standard form.
For any other value it raises ValueError, and the caller reports what `describe` says is expected.  This file imports
only the standard library: the help is made from it and must appear without heavy imports.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any, Protocol

AUTO_BATCH = -1  # of `batch`: it is chosen when the run is prepared
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_NONE = ("none", "null", "~")


class Kind(Protocol):
    """What a setting needs from its kind."""

    def describe(self) -> str:
        """What is accepted, as text to follow the word "expected"."""

    def read(self, value: Any) -> Any:
        """The value in its standard form; ValueError if it is not of this kind."""


def is_none(value: Any) -> bool:
    """Whether the value is None or one of the words that stand for it."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _NONE)


@dataclass(frozen=True)
class Flag:
    """True or false.  Only the listed words count, so the text "False" never becomes True."""

    def describe(self) -> str:
        return "true or false"

    def read(self, value: Any) -> bool:
        word = str(value).strip().lower() if isinstance(value, (bool, int, str)) else ""
        if word not in _TRUE + _FALSE:
            raise ValueError(value)
        return word in _TRUE


@dataclass(frozen=True)
class Real:
    """A finite number between `low` and `high`; `above` excludes `low` itself."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def describe(self) -> str:
        return f"a number{_between(self.low, self.high, self.above)}"

    def read(self, value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError(value)
        try:
            number = float(value)
        except (TypeError, OverflowError) as error:
            raise ValueError(value) from error
        inside = self.low < number if self.above else self.low <= number
        if not (math.isfinite(number) and inside and number <= self.high):
            raise ValueError(value)
        return number


@dataclass(frozen=True)
class Whole:
    """A whole number between `low` and `high`; 3.0 and "3" become 3; 3.5 and True are refused."""

    low: float = -math.inf
    high: float = math.inf

    def describe(self) -> str:
        return f"a whole number{_between(self.low, self.high)}"

    def read(self, value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
            value = int(value)  # not through float: a long seed keeps every digit
        number = value if isinstance(value, int) else Real().read(value)
        if isinstance(value, bool) or number != int(number) or not self.low <= number <= self.high:
            raise ValueError(value)
        return int(number)


@dataclass(frozen=True)
class BatchSize:
    """A whole number from 1 up; `auto`, in other packages -1, becomes AUTO_BATCH."""

    def describe(self) -> str:
        return "a whole number from 1 up, or auto"

    def read(self, value: Any) -> int:
        word = str(value).strip().lower() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        return AUTO_BATCH if word in ("auto", "-1") else Whole(1).read(value)


@dataclass(frozen=True)
class Text:
    """Any text; a path or a number from Python or YAML becomes text."""

    what: str = "text"
    empty: bool = False

    def describe(self) -> str:
        return self.what

    def read(self, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, os.PathLike, int, float)):
            raise ValueError(value)
        text = str(value)
        if not text and not self.empty:
            raise ValueError(value)
        return text


class Choice:
    """One of a few words.  `same` maps other spellings, also true and false, to these words."""

    def __init__(self, *words: str, **same: str) -> None:
        self.words = words
        self.same = same

    def describe(self) -> str:
        return ", ".join(self.words[:-1]) + f" or {self.words[-1]}"

    def read(self, value: Any) -> str:
        word = str(value).strip().lower() if isinstance(value, (str, bool)) or value is None else ""
        word = self.same.get(word, word)
        if word not in self.words:
            raise ValueError(value)
        return word


class Words(Choice):
    """One or several of a few words, as a tuple in the given order; each once."""

    def describe(self) -> str:
        return f"{super().describe()}, or several of them, as in {','.join(self.words[:2])}"

    def read(self, value: Any) -> Any:
        read = super().read
        return tuple(dict.fromkeys(read(item) for item in _items(value)))


class Augment(Choice):
    """One of a few words or, from Python, a callable (Sample, numpy Generator) -> Sample."""

    def describe(self) -> str:
        return f"{super().describe()}, from Python also a callable"

    def read(self, value: Any) -> Any:
        return value if callable(value) else super().read(value)


@dataclass(frozen=True)
class OrNone:
    """The given kind, or None."""

    kind: Kind

    def describe(self) -> str:
        return f"{self.kind.describe()}, or none"

    def read(self, value: Any) -> Any:
        return None if is_none(value) else self.kind.read(value)


@dataclass(frozen=True)
class NameOrNone(Text):
    """Text that names something, or None.  False names nothing either; true does not tell what, and is refused."""

    def describe(self) -> str:
        return f"{self.what}, or none"

    def read(self, value: Any) -> Any:
        word = str(value).lower() if isinstance(value, (bool, str)) else ""
        return None if is_none(value) or word in _FALSE[:3] else super().read("" if word in _TRUE[:3] else value)


@dataclass(frozen=True)
class ImageSize:
    """A side, or height and width, in pixels: an int or a tuple (height, width), at least 32."""

    def describe(self) -> str:
        return "a side in pixels from 32 up, or height,width"

    def read(self, value: Any) -> int | tuple[int, int]:
        sides = [Whole(32, 16384).read(item) for item in _items(value)]
        if len(sides) not in (1, 2):
            raise ValueError(value)
        return sides[0] if len(sides) == 1 else (sides[0], sides[1])


@dataclass(frozen=True)
class Weights:
    """`auto`, or one number above 0 per class; their count is checked later, when the classes are known."""

    def describe(self) -> str:
        return "auto, or a number above 0 for each class, as in class_weights=1,1,3"

    def read(self, value: Any) -> str | tuple[float, ...]:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return "auto"
        return tuple(Real(0, above=True).read(item) for item in _items(value))


@dataclass(frozen=True)
class Device:
    """Where to compute: auto, cpu, mps, cuda or cuda:N; N alone becomes cuda:N.

    Several: cpu:N for N processes, or GPUs as `0,1`, the standard form of all other ways to write them.
    """

    def describe(self) -> str:
        return "auto, cpu, mps, cuda, cuda:N or N; for several processes 0,1 or cpu:N"

    def read(self, value: Any) -> str:
        listed = value if isinstance(value, (list, tuple)) else [value]
        if not all(self._is_name(item) for item in listed):
            raise ValueError(value)
        word = ",".join(str(item).strip().lower() for item in listed)
        several = re.fullmatch(r"\[?((?:cuda:)?\d+(?:\s*,\s*(?:cuda:)?\d+)*)\]?", word)
        if several:
            numbers = [int(number) for number in re.findall(r"\d+", several[1])]
            if len(set(numbers)) < len(numbers):
                raise ValueError(value)
            return ",".join(map(str, numbers)) if len(numbers) > 1 else f"cuda:{numbers[0]}"
        processes = re.fullmatch(r"cpu:(\d{1,4})", word)
        if processes and int(processes[1]):
            return f"cpu:{int(processes[1])}" if int(processes[1]) > 1 else "cpu"
        if word not in ("auto", "cpu", "mps", "cuda"):
            raise ValueError(value)
        return word

    def _is_name(self, item: Any) -> bool:
        """Whether an item can name a device: text, a number, or what torch has for it, such as torch.device("cpu")."""
        return not isinstance(item, bool) and (isinstance(item, (str, int)) or type(item).__module__ == "torch")


@dataclass(frozen=True)
class FlagOr:
    """True, false, or text such as a path."""

    what: str

    def describe(self) -> str:
        return f"true, false, or {self.what}"

    def read(self, value: Any) -> bool | str:
        if is_none(value):
            return False
        if isinstance(value, (bool, int)) or (isinstance(value, str) and value.strip().lower() in _TRUE + _FALSE):
            return Flag().read(value)
        return Text().read(value)


@dataclass(frozen=True)
class Freeze:
    """A number n for the first n layers, or a tuple of layer numbers."""

    def describe(self) -> str:
        return "how many of the first layers, or a list of layer numbers"

    def read(self, value: Any) -> int | tuple[int, ...]:
        many = not isinstance(value, (int, float, str)) or (
            isinstance(value, str) and bool(re.search(r"[,\[(]", value))
        )
        layers = tuple(Whole(0).read(item) for item in _items(value))
        return layers if many else layers[0]


@dataclass(frozen=True)
class ClassPick:
    """Names or numbers of classes, as a tuple; the names are looked up later, when the model is known."""

    def describe(self) -> str:
        return "names or numbers of classes, as in classes=0,dog"

    def read(self, value: Any) -> tuple[int | str, ...]:
        items = _items(value)
        if any(isinstance(item, bool) or not isinstance(item, (int, str)) for item in items):
            raise ValueError(value)
        return tuple(int(item) if str(item).strip().isdigit() else str(item) for item in items)


@dataclass(frozen=True)
class Source:
    """What to predict on: text or a path or, from Python, an array, a PIL image or a list of any of these."""

    def describe(self) -> str:
        return "an image, a folder, a pattern as in 'images/*.jpg', a .txt list or a video"

    def read(self, value: Any) -> Any:
        return Text().read(value) if value is None or isinstance(value, (str, bool, os.PathLike)) else value


def _items(value: Any) -> list[Any]:
    """The items of a sequence or of text such as `a,b` or `[a, 'b']`; ValueError if there are none."""
    if isinstance(value, str):
        inner = re.sub(r"^\s*[\[(](.*)[\])]\s*$", r"\1", value)
        items: list[Any] = [item.strip().strip("'\"") for item in inner.split(",") if item.strip()]
    else:
        items = list(value) if isinstance(value, (list, tuple)) else [value]
    if not items or None in items:
        raise ValueError(value)
    return items


def _between(low: float, high: float, above: bool = False) -> str:
    """The range in words, with a space before it; empty if there is no bound."""
    if math.isinf(high):
        return "" if math.isinf(low) else f" above {low}" if above else f" from {low} up"
    return f" above {low}, up to {high}" if above else f" from {low} to {high}"
