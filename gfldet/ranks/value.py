"""`Ranks`: the processes that do one run together, as the rooms above see them.  This file is that of one process.

`group.Group` is the same over torch.distributed.  No other room asks torch.distributed itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
S = TypeVar("S")  # a list, a tuple, an array


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, and this one among them.  A run in one process has this class, whose methods do nothing.

    rank        the number of this process, from 0; rank 0 writes and speaks
    size        how many processes there are
    local_size  how many of them are on this machine
    device      where this process computes, as the setting `device` names it

    The methods wait for the other processes, so that all of them must call them in the same order.  They raise
    `errors.LostError` where a process is gone.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: str = "auto"

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, items: S) -> S:
        """The part of a sequence that is this process's: together the parts are all of it, each item in one of them."""
        return items[self.rank :: self.size]  # type: ignore[index]

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor of all processes, the same to the bit in each; it has no gradient."""
        return value

    def stacked(self, value: Tensor) -> Tensor:
        """The tensors (...) of all processes as one (size, ...), in their order; all have one shape."""
        return value[None]

    def near(self) -> Ranks:
        """The same processes, for many small tensors: where they can, they exchange these by memory that they share."""
        return self

    def gathered(self, value: T) -> list[T]:
        """What each process gives, in their order; anything that can be pickled."""
        return [value]

    def of_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes; an exception that it raises is raised in all."""
        return make()

    def together(self, make: Callable[[], T]) -> T:
        """What each process makes for itself; an exception that one of them raises is raised in all.

        `make` calls none of these methods.  Warnings of other ranks than 0 reach the terminal here.
        """
        return make()

    def check_same(self, what: str, values: Callable[[], Mapping[str, object]]) -> None:
        """ConfigError where `values` gives two processes something else; it names what differs.

        `what` says what they are.  Long ones may be given as their hash.  In one process they are not asked for.
        """


ONE = Ranks()
