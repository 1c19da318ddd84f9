"""Where the words of a run go: its own lines to the terminal, its warnings to the error stream."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TextIO

from gfldet.errors import plain

Tell = Callable[[str], None]


def teller(verbose: bool) -> Tell:
    """What prints a run's own lines; one that is not `verbose` prints none."""
    return (lambda line: print(plain(line), flush=True)) if verbose else (lambda line: None)


def warn(message: str) -> None:
    """Print a warning, whether or not the run is verbose."""
    print(f"warning: {plain(message)}", file=sys.stderr)


class EachOnce(io.TextIOBase):
    """A stream that passes each line on once, for work that is done many times over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._begun = stream, ""
        self._told: set[str] = set()

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line not in self._told:
                self._told.add(line)
                self._stream.write(f"{line}\n")
        return len(text)
