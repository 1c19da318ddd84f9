"""Where the words of a run go: its own lines to the terminal, its warnings to the error stream."""

from __future__ import annotations

import sys
from collections.abc import Callable

from gfldet.errors import plain

Tell = Callable[[str], None]


def teller(verbose: bool) -> Tell:
    """What prints a run's own lines; one that is not `verbose` prints none."""
    return (lambda line: print(plain(line), flush=True)) if verbose else (lambda line: None)


def warn(message: str) -> None:
    """Print a warning, whether or not the run is verbose."""
    print(f"warning: {plain(message)}", file=sys.stderr)
