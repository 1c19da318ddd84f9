"""What a tune found: the gain of its best settings beside the noise, and the files that tell it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, variance

from gfldet.tune.records import Records, Run
from gfldet.tune.space import VARIED
from gfldet.writing import output_errors, write_text

REPORT = "report.txt"
BEST = "best.yaml"
TABLE = "trials.csv"
STANDARD_ERRORS = 2.0  # that a gain must exceed to be more than noise


@dataclass(frozen=True, slots=True)
class Gain:
    """AP of the default settings and of the best ones, seed by seed; the first seed is that of the search.

    Of many trials the best with one seed owes something to that seed; the other seeds had no part in the choice.
    """

    seeds: tuple[int, ...]
    default: tuple[float, ...]
    best: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean AP of the best settings less that of the default ones."""
        return fmean(self.best) - fmean(self.default)

    @property
    def unchosen(self) -> float:
        """The gain over the seeds that had no part in the choice."""
        return fmean(self.best[1:]) - fmean(self.default[1:])

    @property
    def noise(self) -> float:
        """STANDARD_ERRORS standard errors of the gain, from the variance between seeds of both settings."""
        return STANDARD_ERRORS * sqrt((variance(self.default) + variance(self.best)) / len(self.seeds))

    @property
    def clear(self) -> bool:
        """Whether the settings are better by more than noise, with the seeds that had no part in the choice too."""
        return min(self.gain, self.unchosen) > self.noise

    def __str__(self) -> str:
        head = f"{'AP by seed':<14}" + "".join(f"{seed:>9}" for seed in self.seeds) + f"{'mean':>9}"
        rows = [
            f"{name:<14}" + "".join(f"{ap:9.4f}" for ap in (*aps, fmean(aps)))
            for name, aps in (("default", self.default), ("best trial", self.best))
        ]
        gains = f"gain {self.gain:+.4f}; with the seeds that had no part in the choice {self.unchosen:+.4f}"
        noise = f"noise {self.noise:.4f} ({STANDARD_ERRORS:g} standard errors of the gain)"
        return "\n".join((head, *rows, f"{gains}; {noise}", self._verdict()))

    def _verdict(self) -> str:
        if self.gain <= 0:
            return f"The default settings are the better ones; {BEST} holds them."
        if self.clear:
            return "The gain is larger than the noise."
        return "The gain is within the noise: as far as these runs tell, the default settings are as good."


def best_trial(trials: Sequence[Run]) -> Run | None:
    """The trial of the highest AP beside the default, the earlier of equal ones; None if none came to its end."""
    done = [run for run in trials if run.trial and run.state == "done" and run.ap is not None]
    return max(done, key=lambda run: (run.ap or 0.0, -run.trial), default=None)


def gain_of(records: Records, best: Run | None, seeds: Sequence[int]) -> Gain | None:
    """The gain of the best trial over the seeds with which both it and the default came to their end; None where they
    are too few to tell."""
    if best is None:
        return None
    pairs = [(seed, records.find(0, seed), records.find(best.trial, seed)) for seed in seeds]
    whole = [(s, d.ap, b.ap) for s, d, b in pairs if d and b and d.state == b.state == "done"]
    aps = [(seed, default, ap) for seed, default, ap in whole if default is not None and ap is not None]
    if len(aps) < 2 or aps[0][0] != seeds[0]:
        return None
    columns = tuple(zip(*aps, strict=True))
    return Gain(tuple(int(seed) for seed in columns[0]), columns[1], columns[2])


def in_words(values: Mapping[str, float]) -> str:
    """Settings as a command line has them."""
    return " ".join(f"{name}={value:g}" for name, value in values.items())


def report_text(
    records: Records, trials: int, seeds: Sequence[int], best: Run | None, gain: Gain | None, folder: Path
) -> str:
    """The report of a tune that was to have so many `trials`."""
    over = records.trials(seeds[0])
    states = Counter(run.state for run in over)
    lines = [
        f"{len(over)} of {trials} trials: {states['done']} to their end, {states['pruned']} pruned, "
        f"{states['failed']} failed"
    ]
    if len(over) < trials:
        lines.append("The time was over before the rest of them.")
    if best is None:
        lines.append("No trial but the default came to its end: there is nothing to compare.")
    elif gain is None:
        lines.append("The repetitions with other seeds failed, so the noise is not known.")
    else:
        lines.append(str(gain))
    if taken := taken_over(best, gain):
        lines.append(f"best settings: {in_words(taken)}")
    return "\n".join((*lines, f"gfldet train cfg={folder / BEST}\n"))


def taken_over(best: Run | None, gain: Gain | None) -> Mapping[str, float]:
    """The settings of best.yaml that are not the default: those of the best trial, unless the default is better."""
    return {} if best is None or (gain is not None and gain.gain <= 0) else best.changes


def write_table(records: Records, path: Path) -> None:
    """A row for each run, as CSV; OutputError where that fails."""
    names = [name for name in VARIED if name in records.defaults]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("trial", "seed", "state", "AP", "epochs", "seconds", *names, "folder"))
    for run in records.runs:
        values = [f"{run.changes.get(name, records.defaults[name]):g}" for name in names]
        ap = "" if run.ap is None else f"{run.ap:.6g}"
        numbers = (run.trial, run.seed, run.state, ap, len(run.curve), f"{run.seconds:.1f}")
        writer.writerow((*numbers, *values, f"trials/{run.place}"))
    with output_errors(path):
        write_text(path, text.getvalue())
