"""Memory that processes share: what one writes all read; who cannot share has a part of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gfldet.machine import shared
from gfldet.machine.shared import Offer, Pool, pool

needs_memfd = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd_create")


@pytest.mark.parametrize("file", [False, True])
def test_a_fork_writes_into_the_same_memory(file: bool) -> None:
    whole = pool(1 << 20) if file else Pool(1 << 20)
    first, second = whole.take(5000), whole.take(3)
    child = os.fork()
    if child == 0:
        first[4999], second[:] = 7, 8
        os._exit(0)
    os.waitpid(child, 0)
    assert (first[4999], first.sum(), second.tolist()) == (7, 7, [8, 8, 8])
    assert not len(whole.take(0))


@needs_memfd
def test_another_process_opens_what_is_offered() -> None:
    offers: list[Offer | None] = []
    whole = pool(1 << 20, 2, lambda own: offers.append(own) or [own])
    whole.take(100)[:] = 1
    script = f"""
import os
from gfldet.machine.shared import Offer, pool
theirs = pool(1 << 30, 2, lambda own: [{offers[0]!r}, own])
assert theirs.left == 1 << 20
first, second = theirs.take(100), theirs.take(50)
assert first.sum() == 100
second[:] = 9
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert whole.take(50).sum() == 450


@needs_memfd
def test_who_cannot_open_it_has_a_part_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def second(**changes: object) -> int:
        """The budget of the second of two processes; the first offers what is changed so."""
        told = {"machine": shared.platform.node(), "process": os.getpid(), "file": 0, "name": "gfldet-0", "budget": 800}
        return pool(400, 2, lambda own: [Offer(**{**told, **changes}), own]).left  # type: ignore[arg-type]

    assert second() == 200  # the file of that number is another
    assert second(process=2**22 + 1) == 200
    assert second(machine="another") == 400
    assert pool(0, 2, lambda own: [own, own]).left == 0
    monkeypatch.delattr(os, "memfd_create")
    assert pool(400, 2, lambda own: [own, own]).left == 200
