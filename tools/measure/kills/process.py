"""A training in processes of its own: how far it is, when it is killed, and how long it then takes to end.

The command is a copy of this process, which has torch loaded already: that saves seconds at each start.  The ranks that
it starts are new processes, as torch's launcher makes them.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch.distributed.launcher.api  # noqa: F401

import gfldet
import gfldet.train.run
from gfldet.cli import main
from gfldet.store import checkpoint as checkpoints
from measure.kills.subject import EPOCHS, RUN
from measure.processes import environment_of

MARK = "GFLDET_KILLS"  # in the environment of a training's ranks
LIMIT = 60.0  # s in which all of them have to be gone
LONGEST = 300.0  # s of a whole training
EPOCH = re.compile(rf"^ +\d+/{EPOCHS} ", re.MULTILINE)
BEGINS = re.compile(r"^writing to ", re.MULTILINE)
MOMENTS = ("epoch", "writing", "start", "end")
ROOT = Path(gfldet.__file__).parents[1]
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Pace:
    """Of a training that nobody kills: how many epochs it does; seconds that its start, an epoch and its end take."""

    epochs: int
    start: float
    epoch: float
    end: float


@dataclass(frozen=True, slots=True)
class Death:
    """A kill: in which part of the training, of which process, seconds until all were gone, what they said."""

    moment: str
    victim: str
    seconds: float
    told: str

    @property
    def hung(self) -> bool:
        return self.seconds > LIMIT

    @property
    def unclear(self) -> bool:
        """Whether it is not told that a rank was killed and how to go on, or more than a user wants to read."""
        said = f"rank {self.victim} of 2 was ended by SIGKILL" in self.told and "gfldet train resume=" in self.told
        return bool(self.victim) and (not said or "Traceback" in self.told)


def command(folder: Path, words: Sequence[str], mark: str, log: Path) -> None:
    """`gfldet WORDS` in a folder, in a process that is a copy of another; its output goes to a log there."""
    os.chdir(folder)
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    os.environ.update({MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": paths})
    sys.exit(main(words))


class Training:
    """`gfldet WORDS` in a folder."""

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        self.folder, self.mark = folder, secrets.token_hex(8)
        self.log = folder.resolve() / f"log{len(list(folder.glob('log*')))}.txt"
        self.log.touch()
        self.process = FORK.Process(target=command, args=(folder, words, self.mark, self.log))
        self.process.start()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def epochs(self) -> int:
        """Epochs that it has done since it was started."""
        return len(EPOCH.findall(self.said()))

    def wait_for(self, due: Callable[[], bool]) -> bool:
        """Whether the moment comes before the training ends."""
        limit = time.monotonic() + LONGEST
        while time.monotonic() < limit:
            if self.process.exitcode is not None:
                return False
            if due():
                return True
            time.sleep(0.002)
        raise SystemExit(f"{self.folder}: nothing goes on after {LONGEST:.0f} s:\n{self.said()[-2000:]}")

    def ranks(self) -> dict[int, str]:
        """Its living ranks: the number of the process, and that of the rank as text."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            environment = environment_of(int(place.name))
            if environment.get(MARK) == self.mark:
                found[int(place.name)] = environment.get("RANK", "?")
        return found

    def kill(self, victim: str) -> None:
        """SIGKILL for the process that was started ("") or for a rank, as soon as that is there."""
        chosen: list[int] = []

        def there() -> bool:
            chosen[:] = [pid for pid, rank in self.ranks().items() if rank == victim]
            return bool(chosen)

        if victim == "":
            self.process.kill()
        elif self.wait_for(there):
            with suppress(ProcessLookupError):
                os.kill(min(chosen), signal.SIGKILL)

    def gone(self) -> float:
        """Seconds until all its processes have ended; those that have not after LIMIT are killed."""
        began = time.monotonic()
        while self.process.exitcode is None or self.ranks():
            if time.monotonic() - began > LIMIT:
                for pid in self.ranks():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.kill()
                return time.monotonic() - began
            time.sleep(0.02)
        return time.monotonic() - began


def undisturbed(folder: Path, words: Sequence[str]) -> Pace:
    """Do the training without a kill; how long its parts take."""
    training = Training(folder, words)
    began = time.monotonic()
    at = [began]
    if training.wait_for(lambda: bool(BEGINS.search(training.said()))):
        at.append(time.monotonic())
    while training.wait_for(lambda: training.epochs() >= len(at) - 1):
        at.append(time.monotonic())
    if training.process.exitcode or len(at) < 3:
        raise SystemExit(f"{folder}: exit code {training.process.exitcode}:\n{training.said()[-3000:]}")
    epochs = len(at) - 2
    return Pace(epochs, at[1] - began, (at[-1] - at[1]) / epochs, time.monotonic() - at[-1])


def killed(
    folder: Path, words: Sequence[str], moment: str, victim: str, pace: Pace, chance: random.Random
) -> Death | None:
    """Begin or resume the training, and kill a process of it at a random point of this part of it.

    None where it came to its end before.
    """
    training = Training(folder, words)
    left = pace.epochs - done(folder)
    wait, after = chance.random(), chance.randrange(max(left, 1))
    began = time.monotonic()
    reached: list[float] = []

    def late(epochs: int, seconds: float) -> bool:
        """Whether so many seconds have gone by since so many epochs were done, or the next one is done already."""
        if not reached and BEGINS.search(training.said()) and training.epochs() >= epochs:
            reached.append(time.monotonic())
        return bool(reached) and (time.monotonic() - reached[0] >= seconds or training.epochs() > epochs)

    due: dict[str, Callable[[], bool]] = {
        "start": lambda: time.monotonic() - began >= wait * pace.start or late(0, 0),
        "epoch": lambda: late(after, wait * pace.epoch),
        "writing": lambda: training.epochs() >= after and any((folder / RUN / "weights").glob(".*.part")),
        "end": lambda: late(left, wait * pace.end),
    }
    if not training.wait_for(due[moment]):
        return None
    training.kill(victim)
    seconds = training.gone()
    return Death(moment, victim, seconds, training.said())


def done(folder: Path) -> int:
    """Epochs that last.pt has."""
    last = folder / RUN / "weights" / "last.pt"
    return checkpoints.load(last).epoch + 1 if last.is_file() else 0
