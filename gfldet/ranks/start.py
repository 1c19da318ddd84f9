"""From torchrun's environment to the `Ranks` of a command; without torchrun that is one process, and no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gfldet.ranks.place import device_at, place_of
from gfldet.ranks.value import Ranks
from gfldet.ranks.watch import bound_to_launcher


@contextmanager
def joined(device: str, then: str = "") -> Iterator[Ranks]:
    """The processes that do a command together, of which each computes on its own part of the setting `device`.

    `then` says how to go on where one is gone.  Raises ConfigError where `device` does not fit the processes that were
    started; see also `group.group_of`.
    """
    place, own = place_of(), own_device(device)
    if place.size == 1:
        yield Ranks(device=own)
        return
    from gfldet.ranks.group import group_of

    with bound_to_launcher(place.rank, place.local_rank == 0, then), group_of(place, own, then) as group:
        yield group


def own_device(device: str) -> str:
    """This process's part of the setting `device`; ConfigError where that does not fit the processes."""
    place = place_of()
    if place.size == 1:
        return device_at(place, device, 0)
    import torch

    return device_at(place, device, torch.cuda.device_count())


def alone(device: str) -> Ranks:
    """This process by itself, on its part of the machine, whatever other processes of torchrun do."""
    return Ranks(local_size=place_of().local_size, device=own_device(device))
