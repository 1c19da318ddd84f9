"""What a source gives to each of several processes, and how what they found comes into the order of one."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from gfldet.data.sources import Entry, Remark
from gfldet.detect.lists import Noted
from gfldet.ranks.value import Ranks


@dataclass(frozen=True, slots=True)
class Found:
    """What a process found since the last time: its predictions in order, and whether there are to be more.

    remarks  what there is to warn of
    bad      what is wrong with entries that it could not read, by position; known at its end
    failed   the entry at which it ended, if it did so by an error
    """

    noted: Sequence[Noted]
    done: bool
    remarks: Sequence[Remark] = ()
    bad: dict[int, str] = field(default_factory=dict)
    failed: float = math.inf


def own_entries(entries: Sequence[Entry], track: bool, ranks: Ranks) -> Container[int]:
    """Positions of the entries that this process reads.  Pictures are dealt out, and so are videos, each as a whole.

    With `track`, pictures are the frames of one video, so a source that has any goes to rank 0 alone.
    """
    videos = [number for number, entry in enumerate(entries) if entry.moves]
    pictures = [number for number, entry in enumerate(entries) if not entry.moves]
    if track and pictures:
        return range(len(entries) if ranks.leads else 0)
    return {*ranks.share(pictures), *ranks.share(videos)}


class Order:
    """Brings the predictions of all processes into the order of the source, as soon as none before them can come.

    failed  the first entry at which a process failed: what comes after it is not wanted
    bad     what is wrong with entries, by position
    """

    def __init__(self, processes: int) -> None:
        self._at = [-1.0] * processes  # the entry that each has come to
        self._waiting: list[Noted | Remark] = []
        self._kinds: set[str] = set()  # of remarks that were told
        self.failed = math.inf
        self.bad: dict[int, str] = {}

    @property
    def done(self) -> bool:
        """Whether all processes are, or have come to the first failure."""
        return min(self._at) >= self.failed

    def add(self, shares: Sequence[Found]) -> list[Noted | Remark]:
        """Take what each process found; the predictions and remarks whose turn it is."""
        for rank, found in enumerate(shares):
            self._waiting += [*found.remarks, *found.noted]
            self.bad |= found.bad
            self.failed = min(self.failed, found.failed)
            if found.done:
                self._at[rank] = math.inf
            elif found.noted:
                self._at[rank] = found.noted[-1].entry
        # A process goes through its entries in order, so what it has passed is complete.
        last = min(*self._at, self.failed)
        self._waiting.sort(key=lambda one: one.entry)  # keeps the order within an entry
        count = sum(one.entry <= last for one in self._waiting)
        ready, self._waiting = self._waiting[:count], self._waiting[count:]
        return [one for one in ready if isinstance(one, Noted) or self._is_new(one)]

    def _is_new(self, remark: Remark) -> bool:
        if remark.kind in self._kinds:
            return False
        self._kinds |= {remark.kind} - {""}
        return True
