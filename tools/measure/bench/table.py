"""What was measured, as a markdown table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from measure.bench import PEER

ULTRALYTICS = f"ultralytics {PEER}"


@dataclass(frozen=True)
class Row:
    """One comparison: samples of both sides in `unit`; `theirs` may be empty.

    `target`    what the ratio has to reach; the ratio is above 1 where ours is better
    `at_least`  what our own figure has to reach, whatever the peer's
    `note`      what a reader should know beside the figures
    `peer`      whose figures `theirs` are
    `broken`    a promise beside the figures that is not kept: then the target is missed, whatever the ratio
    """

    what: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    more_is_better: bool = False
    target: float | None = None
    at_least: float | None = None
    note: str = ""
    broken: str = ""
    peer: str = ULTRALYTICS

    @property
    def ratio(self) -> float | None:
        """How many times better our median is than theirs; None where that says nothing."""
        if not self.theirs:
            return None
        ours, theirs = median(self.ours), median(self.theirs)
        above, below = (ours, theirs) if self.more_is_better else (theirs, ours)
        return above / below if above and below else None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none, or nothing to compare with."""
        if self.broken:
            return False
        if self.at_least is not None:
            return median(self.ours) >= self.at_least
        if self.target is None or self.ratio is None:
            return None
        return self.ratio >= self.target

    def cells(self) -> list[str]:
        """The row's cells, in the order of `HEADER`."""
        target = "" if self.target is None else f"{self.target:g}x"
        target = target if self.at_least is None else f"{self.at_least:g}"
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        ratio = "" if self.ratio is None else f"{self.ratio:.3g}x"
        return [
            self.what,
            self._samples(self.ours),
            self._samples(self.theirs),
            ratio,
            target,
            met,
            self.broken or self.note,
        ]

    def _samples(self, values: Sequence[float]) -> str:
        if not values:
            return ""
        best = max(values) if self.more_is_better else min(values)
        several = f" ({_short(best)})" if len(values) > 1 else ""
        return f"{_short(median(values))}{several} {self.unit}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


HEADER = ("what", "gfldet", "", "ratio", "at least", "met", "")  # the third is the peer


def markdown(rows: Sequence[Row], about: Mapping[str, str]) -> str:
    """A table for each peer, under the lines that say where and how it was measured."""
    lines = [f"{name}: {value}  " for name, value in about.items()]
    for peer in dict.fromkeys(row.peer for row in rows):
        lines += ["", _line([*HEADER[:2], peer, *HEADER[3:]]), _line(["---"] * len(HEADER))]
        lines += [_line(row.cells()) for row in rows if row.peer == peer]
    lines += ["", "Median (best) of the repeats; the ratio is that of the medians, above 1 where gfldet is better."]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plain(rows: Sequence[Row], about: Mapping[str, str]) -> dict[str, Any]:
    """All of it as plain data, every sample included."""
    found = [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows]
    return {"about": dict(about), "rows": found}
