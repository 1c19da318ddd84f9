"""Only rank 0 speaks: what the other processes print is dropped, but for their warnings, which rank 0 tells once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

MARK = "warning: "


class Voice:
    """The warnings that this process wrote to its error stream, and that rank 0 does not know of yet."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._told: set[str] = set()

    def hear(self, text: str) -> None:
        if text.startswith(MARK):
            self._heard.append(text.strip("\n"))

    def taken(self) -> list[str]:
        """The warnings since the last call, each once."""
        found, self._heard = self._heard, []
        return list(dict.fromkeys(found))

    def tell(self, of_each: Sequence[Sequence[str]]) -> None:
        """Print what the other processes warn of (`of_each`, by rank), unless it was told already."""
        self._told.update(of_each[0])
        for rank, warnings in enumerate(of_each[1:], 1):
            for warning in warnings:
                if warning not in self._told:
                    self._told.add(warning)
                    print(f"{MARK}rank {rank}: {warning.removeprefix(MARK)}", file=sys.stderr)


class _Heard:
    """A stream for people; a `Voice` hears what is written to it."""

    def __init__(self, voice: Voice, stream: TextIO) -> None:
        self._voice, self._stream = voice, stream

    def write(self, text: str) -> int:
        self._voice.hear(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def speaking(leads: bool) -> Iterator[Voice]:
    """While this lasts, a process that does not lead prints nothing; at an error it tells what nobody has taken."""
    voice, stream = Voice(), sys.stderr
    if leads:
        with redirect_stderr(cast(TextIO, _Heard(voice, stream))):
            yield voice
        return
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(cast(TextIO, _Heard(voice, nowhere))),
        ):
            yield voice
    except BaseException:
        with suppress(OSError):
            for warning in voice.taken():
                print(warning, file=stream)
        raise
