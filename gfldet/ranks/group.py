"""`Ranks` over torch.distributed: gloo for tensors on the CPU and all that is no tensor, nccl for those on a GPU."""

from __future__ import annotations

import os
import platform
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from gfldet.errors import ConfigError, GfldetError, LostError, WorkError, listed, shown
from gfldet.ranks.near import ROOM, Near, near_of
from gfldet.ranks.place import Place
from gfldet.ranks.value import Ranks
from gfldet.ranks.voice import Voice, speaking
from gfldet.ranks.watch import watching

T = TypeVar("T")
JOIN = timedelta(minutes=5)  # for all processes to have started
WAIT = timedelta(minutes=30)  # for a process that lives but is behind; one that is gone is noticed by `watch`
LOOK = 0.1  # s between two chances to hear a signal
TOLD = "told"  # in the store: how many processes have told why they end


@dataclass(frozen=True)
class Group(Ranks):
    """See `Ranks`; the processes are those of torch's default group."""

    voice: Voice = field(default_factory=Voice, compare=False)

    def sum(self, value: Tensor) -> Tensor:
        with _connected():
            total = value.detach().clone(memory_format=torch.contiguous_format)
            dist.all_reduce(total)
        return total

    def stacked(self, value: Tensor) -> Tensor:
        sent = value.detach().contiguous().reshape(-1).view(torch.uint8)  # not every backend knows every type
        found = [torch.empty_like(sent) for _ in range(self.size)]
        with _connected():
            dist.all_gather(found, sent)
        return torch.stack(found).view(value.dtype).reshape(self.size, *value.shape)

    def near(self) -> Group:
        exchange = near_of(self.rank, self.size, self.gathered) if self.device == "cpu" else None
        if exchange is None:
            return self
        return NearGroup(self.rank, self.size, self.local_size, self.device, self.voice, exchange=exchange)

    def gathered(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.size
        with _connected():
            dist.all_gather_object(found, value)
        return found

    def of_first(self, make: Callable[[], T]) -> T:
        made, error = _tried(make) if self.leads else (None, None)
        sent: list[Any] = [made, _failure(error)]
        with _connected():
            dist.broadcast_object_list(sent, src=0)
        made, failure = sent
        if failure is not None:
            raise self._agreed(error or failure.error(""))
        return made

    def together(self, make: Callable[[], T]) -> T:
        made, error = _tried(make)
        told = self.gathered((_failure(error), self.voice.taken()))
        if self.leads:
            self.voice.tell([warnings for _, warnings in told])
        failures = [(rank, failure) for rank, (failure, _) in enumerate(told) if failure is not None]
        if failures:
            rank, failure = failures[0]
            raise self._agreed(error or failure.error(f"rank {rank} on {failure.host}: "))
        return made  # type: ignore[return-value]

    def check_same(self, what: str, values: Callable[[], Mapping[str, object]]) -> None:
        told = self.gathered((platform.node(), {name: shown(value) for name, value in values().items()}))
        first, problems = told[0][1], []
        for rank, (host, own) in enumerate(told):
            for name in {**first, **own}:
                here, there = (side.get(name, "nothing") for side in (own, first))
                if here != there:
                    problems.append(f"{name}: {here} for rank {rank} on {host}, {there} for rank 0")
        if problems:
            tail = "Start all of them with one command, on the same files and with the same version of gfldet."
            raise self._agreed(ConfigError(listed(f"The processes of the run differ in {what}:", problems, tail, 20)))

    def _agreed(self, error: Exception) -> Exception:
        """An error that all processes raise, and rank 0 alone tells."""
        if isinstance(error, GfldetError):
            error.agreed, error.told = True, not self.leads
        return error


@dataclass(frozen=True)
class NearGroup(Group):
    """The same on one machine: small tensors go by memory that its processes share."""

    exchange: Near = field(kw_only=True, compare=False)

    def sum(self, value: Tensor) -> Tensor:
        return self.stacked(value).sum(0) if value.nbytes <= ROOM else super().sum(value)

    def stacked(self, value: Tensor) -> Tensor:
        if value.nbytes > ROOM:
            return super().stacked(value)
        own = value.detach().contiguous()
        found = torch.from_numpy(self.exchange.exchange(own.reshape(-1).view(torch.uint8).numpy()))
        return found.view(value.dtype).reshape(self.size, *value.shape)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error on its way to the other processes."""

    kind: type[GfldetError]
    text: str
    host: str

    def error(self, head: str) -> GfldetError:
        return self.kind(f"{head}{self.text}")


def _tried(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What `make` returns or raises."""
    try:
        return make(), None
    except Exception as error:  # whatever it is, the others must not wait for this process
        return None, error


def _failure(error: Exception | None) -> _Failure | None:
    if error is None:
        return None
    if isinstance(error, GfldetError):
        of_text = Exception.__init__  # of those kinds that are made of a text alone
        kind = next(one for one in type(error).__mro__ if one.__init__ is of_text)  # type: ignore[misc]
        return _Failure(kind, str(error), platform.node())
    return _Failure(WorkError, f"{type(error).__name__}: {error}", platform.node())


@contextmanager
def _connected() -> Iterator[None]:
    """What torch raises where another process is gone, as LostError."""
    try:
        yield
    except RuntimeError as error:  # those of torch.distributed are of this kind
        first = re.sub(r"^\[[^]]*\] ", "", str(error).strip().split("\n")[0])  # gloo begins with a line of its source
        reason = first.split(". ")[0][:200]
        raise LostError(f"another process of the run has ended, or cannot be reached ({reason})") from error


@contextmanager
def group_of(place: Place, device: str, then: str = "") -> Iterator[Group]:
    """The group of all processes while this lasts; they begin and end together.

    A group that the caller's program has started is used, and left to it.  `then` says how to go on where one is gone.
    Raises ConfigError where the port is taken, and LostError where not all processes come.
    """
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device))
    if dist.is_initialized():
        with speaking(place.rank == 0) as voice:
            yield Group(place.rank, place.size, place.local_size, device, voice)
        return
    store = _heard(partial(_start, place, device))
    with speaking(place.rank == 0) as voice, watching(store, place.rank, place.size, then):
        group = Group(place.rank, place.size, place.local_size, device, voice)
        try:
            yield group
            group.together(lambda: None)
        except BaseException as error:
            _say_why(error, place, store)
            raise
        finally:
            if device == "cpu":  # what a GPU was asked for may never come to an end
                dist.destroy_process_group()
    if device != "cpu":
        dist.destroy_process_group()


def _heard(work: Callable[[], T]) -> T:
    """What `work` gives, done by a thread: torch waits for other processes in C, where no signal is heard."""
    done: list[tuple[T | None, Exception | None]] = []
    thread = threading.Thread(target=lambda: done.append(_tried(work)), name="gfldet-start", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK)
    ((found, error),) = done
    if error is not None:
        raise error
    return found  # type: ignore[return-value]


def _start(place: Place, device: str) -> Store:
    """Torch's default group, and the store that its processes share."""
    if device.startswith("cuda"):
        torch.cuda.set_device(torch.device(device))  # each thread has its own
    try:
        store = next(iter(rendezvous("env://", place.rank, place.size, timeout=JOIN)))[0]
        # A program may train twice: the second group must not find what the first one left in the store.
        times = store.add(f"gfldet/starts/{place.rank}", 1)
        store = PrefixStore(f"gfldet/{times}", store)
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=WAIT)
    except (RuntimeError, ValueError, OSError) as error:
        raise _not_started(place, error) from error
    return store


def _not_started(place: Place, error: Exception) -> GfldetError:
    """What is said where the processes do not find each other."""
    at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    reason = str(error).strip().split("\n")[0][:300]
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        return ConfigError(f"{at}: this port is in use; choose another with --master_port of torchrun (MASTER_PORT)")
    return LostError(
        f"rank {place.rank}: the {place.size} processes of the run did not meet at {at} ({reason}); see that all are "
        "started, and that this address and port can be reached from every machine"
    )


def _say_why(error: BaseException, place: Place, store: Store) -> None:
    """Mark an error with whether this process tells it: one that concerns all is told by the first that gets there."""
    if isinstance(error, GfldetError) and error.agreed:
        return
    first = place.rank == 0
    with suppress(RuntimeError):  # the store went with its process
        first = store.add(TOLD, 1) == 1
    if isinstance(error, (LostError, KeyboardInterrupt)):
        error.told = not first  # type: ignore[union-attr]
    elif isinstance(error, GfldetError):
        error.told = False
        if place.rank:
            error.args = (f"rank {place.rank} on {platform.node()}: {error}",)
