"""Texts that know which file and line they are about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Located(str):
    """A text about a place in the user's files, such as "a.txt:3" or "a.txt:3: not a number", with its file and line.

    It is a str, so that messages are made of it as of any text.
    """

    __slots__ = ("file", "line")
    file: Path | None
    line: int | None

    def __new__(cls, text: str, file: Path | None = None, line: int | None = None) -> Located:
        made = super().__new__(cls, text)
        made.file, made.line = file, line
        return made

    def told(self, what: object) -> Located:
        """'a.txt:3: not a number': what is said of this place."""
        return Located(f"{self}: {what}", self.file, self.line)


class Made(Sequence[Located]):
    """Places that are made when they are asked for, by their number from 0."""

    def __init__(self, count: int, make: Callable[[int], Located]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._make(range(self._count)[index])


def location(text: str) -> tuple[Path | None, int | None]:
    """File and line of a `Located` text; of any other none."""
    return (text.file, text.line) if isinstance(text, Located) else (None, None)
