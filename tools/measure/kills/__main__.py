"""tools/kills: trainings that are killed (SIGKILL) at random moments and resumed, beside the same ones left alone.

Each row trains a tiny model on 17 of the built-in shapes for 6 epochs.  It is killed while it starts, at any point of
an epoch, while it writes a checkpoint, and while it measures its best weights; in two processes one of the ranks is
killed, or torch's launcher.  What it leaves in the end has to be equal to the bit: weights, the state of the optimiser,
results.csv (but for the time), metrics.json, predictions.json, args.yaml.  A training counts as hung where a process of
it is left 60 s after the kill.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from measure.kills.compare import differing_bits
from measure.kills.process import MOMENTS, Death, Training, done, killed, undisturbed
from measure.kills.subject import EPOCHS, ROWS, RUN, WORDS, make

VICTIMS = {"any": ("", "0", "1"), "ranks": ("0", "1")}
ENDED = re.compile("resume: .* (has done its|stopped at epoch)")
NAMES = {"": "the command", "0": "rank 0", "1": "rank 1"}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a row: its kills, and what differs from the training that was left alone, in bits."""

    name: str
    processes: int
    deaths: list[Death]
    differs: dict[str, int]

    @property
    def good(self) -> bool:
        return not self.differs and not any(death.hung or death.unclear for death in self.deaths)

    def __str__(self) -> str:
        counts = (sum(death.moment == moment for death in self.deaths) for moment in MOMENTS)
        longest = max((death.seconds for death in self.deaths), default=0.0)
        hung = sum(death.hung for death in self.deaths)
        cells = "".join(f"{count:>9}" for count in counts)
        return f"{self.name:<15}{self.processes:>9}{cells}{longest:>9.1f}{hung:>7}{sum(self.differs.values()):>10}"


HEAD = (
    f"{'row':<15}{'processes':>9}{''.join(f'{moment:>9}' for moment in MOMENTS)}{'longest':>9}{'hung':>7}{'bits':>10}"
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser("tools/kills", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="default: all")
    parser.add_argument("--processes", nargs="+", type=int, choices=(1, 2), default=[1, 2], help="default: 1 and 2")
    parser.add_argument("--victims", choices=list(VICTIMS), default="any", help="of two processes (default: any)")
    parser.add_argument("--kills", type=int, default=4, help="of a training (default: 4)")
    parser.add_argument("--repeat", type=int, default=1, help="trainings of each row that are killed (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--out", type=Path, default=Path("runs/kills"), help="default: runs/kills, made anew")
    return parser.parse_args(argv)


def row(name: str, processes: int, given: argparse.Namespace) -> list[Result]:
    """A row of the table: one training left alone, and those that are killed."""
    words = (*WORDS, *ROWS[name], f"device={'cpu' if processes == 1 else f'cpu:{processes}'}")
    alone = fresh(given.out / f"{name}-{processes}")
    pace = undisturbed(alone, words)
    results = []
    for number in range(given.repeat):
        chance = random.Random(f"{given.seed} {name} {processes} {number}")
        folder = fresh(given.out / f"{name}-{processes}-killed{number or ''}")
        deaths = []
        for moment in sorted((MOMENTS[n % len(MOMENTS)] for n in range(given.kills)), key=MOMENTS.index):
            victim = chance.choice(VICTIMS[given.victims]) if processes > 1 else ""
            death = killed(folder, to_go_on(folder, words), moment, victim, pace, chance)
            if death is not None:
                deaths.append(death)
                tell(folder, death)
        to_its_end(folder, words)
        results.append(Result(name, processes, deaths, differing_bits(alone / RUN, folder / RUN)))
    return results


def fresh(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def to_go_on(folder: Path, words: tuple[str, ...]) -> tuple[str, ...]:
    """What a user types after a kill: the same command again where no epoch was done, else resume."""
    return ("train", f"resume={RUN}") if done(folder) else words


def tell(folder: Path, death: Death) -> None:
    """A line for each kill; the last words of the training where they do not tell how to go on."""
    what = f"{folder.name}: {NAMES[death.victim]} killed ({death.moment}), {death.seconds:.1f} s to the end"
    print(f"{what}{', HUNG' if death.hung else ''}", flush=True)
    for line in death.told.splitlines():
        if line.startswith(("gfldet:", "Traceback")):
            print(f"    {line}", flush=True)


def to_its_end(folder: Path, words: tuple[str, ...]) -> None:
    """Let the training end.  One that was killed after its end has nothing left to do, and says so."""
    training = Training(folder, to_go_on(folder, words))
    training.wait_for(lambda: False)
    if training.process.exitcode and not ENDED.search(training.said()):
        print(f"{folder}: exit code {training.process.exitcode}:\n{training.said()[-3000:]}", flush=True)


def main() -> int:
    """The command; 1 if anything differs or hangs."""
    given = arguments()
    os.environ.pop("WORLD_SIZE", None)
    cv2.setNumThreads(1)  # a copy of a process has none of its threads, and would wait for them
    torch.set_num_threads(1)
    make(given.out / "set")
    results = []
    for processes in given.processes:
        for name in given.rows:
            results += row(name, processes, given)
            for result in results[-given.repeat :]:
                for part, count in list(result.differs.items())[:10]:
                    print(f"    {part}: {count} bits")
                print(f"{HEAD}\n{result}", flush=True)
    print(f"\n{EPOCHS} epochs, seed {given.seed}; kills by the part of the training, seconds until all had ended:")
    print("\n".join((HEAD, *map(str, results))))
    deaths = [death for result in results for death in result.deaths]
    ranks = [death for death in deaths if death.victim]
    print(
        f"{len(deaths)} kills, {sum(d.hung for d in deaths)} hung, longest {max(d.seconds for d in deaths):.1f} s; "
        f"{sum(d.unclear for d in ranks)} of {len(ranks)} that were of ranks not told clearly"
    )
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
