"""A tune from beginning to end: the default, the trials, and both the default and the best again with other seeds."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gfldet.config.load import dump, resolve
from gfldet.config.schema import TuneSettings
from gfldet.config.show import settings_yaml
from gfldet.data.spec import load_spec
from gfldet.errors import ConfigError, DataError, GfldetError, WorkError, worded
from gfldet.messages import EachOnce, teller, warn
from gfldet.ranks.place import check_one_process
from gfldet.store import runs
from gfldet.train.events import EpochReport, Observer, RunFacts
from gfldet.train.timing import HOUR
from gfldet.train.timing import in_words as time_in_words
from gfldet.tune import report
from gfldet.tune.folder import LENGTH, OWN, agreed, folder_to_go_on, given_settings
from gfldet.tune.records import Records, Run, State, load, save
from gfldet.tune.search import Trial, check_installed
from gfldet.tune.space import AUGMENTATIONS, LR, VARIED, space_around
from gfldet.writing import output_errors, write_aside

Train = Callable[[Mapping[str, Any], Observer], float]
"""Train with these settings, of which one is `model`, and this observer; the AP of the best weights."""

SEEDS = 3  # with which the default and the best trial are compared
REPEATED = 2 * (SEEDS - 1)  # runs at the end
WEIGHTS = "best.pt"  # of the run with the highest AP; those of the others are removed


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a tune left: its folder, the settings of best.yaml that are not the default, the gain beside its noise (None
    where there is nothing to compare), and all runs."""

    folder: Path
    best: Mapping[str, float]
    gain: report.Gain | None
    runs: tuple[Run, ...]


class Pruned(GfldetError):
    """Ends the run of a trial that is not worth going on with."""


class Watch(Observer):
    """Follows the run of a trial, and ends it where `hopeless` says so of an epoch (from 0) and its AP."""

    def __init__(self, begun: Callable[[RunFacts], None], hopeless: Callable[[int, float], bool]) -> None:
        self._begun, self._hopeless = begun, hopeless
        self.curve: list[float] = []

    def begin(self, facts: RunFacts) -> None:
        self._begun(facts)

    def epoch(self, report: EpochReport) -> None:
        ap = math.nan if report.metrics is None else report.metrics.map
        if math.isnan(ap):
            raise DataError("tune: the val split has no boxes, so there is no AP by which trials could be compared")
        self.curve.append(ap)
        if self._hopeless(report.epoch, ap):
            raise Pruned


def tune(settings: TuneSettings, cfg: str | None, train: Train) -> TuneResult:
    """Tune by means of `train`; `cfg` is the file that some of the settings come from.

    Raises ConfigError or DataError for what cannot be tuned, OutputError, and what a training raises.
    """
    check_installed()
    check_one_process("tune", settings.device)
    given = given_settings(settings, cfg)
    folder = folder_to_go_on(settings, given, report.REPORT)
    records = Records(given)
    if folder is not None:
        records = load(folder)
        records = replace(records, settings=agreed(records, given, folder, settings.resume is not False))
    # What only Python can hold, as a function, stands in the records by its name alone.
    values = {**records.settings, **{name: getattr(settings, name) for name in given if name != "cfg"}}
    settings = resolve("tune", {**{name: getattr(settings, name) for name in OWN}, **values})
    _check(settings)
    with ExitStack() as held:
        if folder is None:
            where = (settings.project, settings.name, "tune", settings.exist_ok)
            folder = held.enter_context(runs.claimed(*where))
        held.enter_context(runs.trained_here(folder))
        return Course(folder, records, settings, values, train).run()


def varied(settings: TuneSettings) -> set[str]:
    """The settings that vary: those of VARIED that are not given, and that have an effect."""
    own = callable(settings.augment) and settings.augment_at != "instead"
    idle = set() if settings.augment == "default" or own else set(AUGMENTATIONS)
    return set(VARIED) - settings.explicit - idle


def _check(settings: TuneSettings) -> None:
    """Refuse what leaves nothing to vary, or nothing to compare by."""
    if not varied(settings):
        raise ConfigError(f"tune: all settings that it varies are given; leave one of {', '.join(VARIED)} open")
    if not settings.val:
        raise ConfigError("val=false: tune compares its trials by their AP on the val split; leave it out")
    spec = load_spec(settings.data, settings.val_share)
    if spec.val is None:
        raise DataError(f"{spec.source}: no val split, by which tune compares its trials; name one, or set val_share")


class Course:
    """What is done in the folder of a tune, from where its records stand."""

    def __init__(
        self, folder: Path, records: Records, settings: TuneSettings, values: Mapping[str, Any], train: Train
    ) -> None:
        """`values` are what the user gives."""
        self.folder, self.records, self.settings = folder, records, settings
        self._values = {name: value for name, value in values.items() if name not in LENGTH}  # of all trainings
        self._train, self._tell = train, teller(settings.verbose)
        self._errors = EachOnce(sys.stderr)  # what is odd about the data is told by each training
        self._seeds = [(settings.seed + more) % 2**32 for more in range(SEEDS)]

    def run(self) -> TuneResult:
        """Do what is left to do, and report."""
        trials = self.settings.trials
        self._tell(
            f"tune: {trials} trials with epochs={self.settings.epochs}, {len(self._over())} of them done; then the "
            f"default and the best again with {SEEDS - 1} more seeds; writing to {self.folder}"
        )
        try:
            self._search()
            best = report.best_trial(self._over())
            for seed in self._seeds[1:]:
                if best is not None:
                    self._run(0, seed, {})
                    self._run(best.trial, seed, best.changes)
        except KeyboardInterrupt as error:
            kept = worded(len(self._over()), f"of {trials} trials [is|are] kept")
            kept = f"{kept}; gfldet tune resume={self.folder} goes on"
            error.args = (kept if self._over() else "no trial was done yet, so nothing is kept",)
            raise
        return self._report(best)

    def _over(self) -> list[Run]:
        return [run for run in self.records.trials(self._seeds[0]) if run.over]

    def _search(self) -> None:
        """The default, then the trials, as many as are wanted and as fit into the time."""
        seed = self._seeds[0]
        self._run(0, seed, {})
        space = space_around(self.records.defaults, varied(self.settings))
        self._tell(f"varied: {', '.join(f'{name} {bounds}' for name, bounds in space.items())}")
        for number in range(1, self.settings.trials):
            known = self.records.find(number, seed)
            if known is not None and known.over:
                continue
            if not self._has_time():
                return
            before = [run for run in self._over() if run.trial < number]
            begun = None if known is None else known.changes
            trial = Trial(space, self.records.defaults, before, number, seed, self.settings.epochs, begun)
            self._run(number, seed, trial.changes, trial.hopeless)

    def _has_time(self) -> bool:
        """Whether one more trial fits into `time`, and the repetitions after it."""
        if self.settings.time is None:
            return True
        used = [run.seconds for run in self.records.runs]
        return sum(used) + max(used) * (1 + REPEATED) <= HOUR * self.settings.time

    def _run(
        self,
        trial: int,
        seed: int,
        changes: Mapping[str, float],
        hopeless: Callable[[int, float], bool] = lambda epoch, ap: False,
    ) -> None:
        """Train a trial with a seed, unless that was done, and keep what it gave."""
        known = self.records.find(trial, seed)
        if known is not None and known.over:
            return
        run = Run(trial, seed, changes)

        def begun(facts: RunFacts) -> None:  # nothing is written before the data have been found good
            found = {LR: facts.plan.lr0, **{name: facts.settings[name] for name in AUGMENTATIONS}}
            self.records = replace(self.records, defaults=self.records.defaults or found).with_run(run)
            save(self.records, self.folder)

        watch, began = Watch(begun, hopeless), time.monotonic()
        place = {"project": str(self.folder / "trials"), "name": run.place, "exist_ok": True}
        own = {**place, "seed": seed, "time": None, "verbose": False}
        ap: float | None = None
        how: State = "done"
        try:
            with redirect_stderr(self._errors):
                ap = self._train({"plots": False, **self._values, **changes, **own}, watch)
        except Pruned:
            ap, how = watch.curve[-1], "pruned"
        except WorkError as error:
            if not self._over():  # what the default cannot do, no trial will
                raise
            warn(f"trial {trial}: {error}")
            how = "failed"
        seconds = round(time.monotonic() - began, 1)
        run = replace(run, state=how, ap=ap, curve=tuple(watch.curve), seconds=seconds)
        self._keep_weights(run)
        self.records = self.records.with_run(run)
        save(self.records, self.folder)
        report.write_table(self.records, self.folder / report.TABLE)
        self._tell_of(run)

    def _keep_weights(self, run: Run) -> None:
        """The weights of the best run so far are kept; those of all, and their detections, would fill a disk."""
        place = self.folder / "trials" / run.place
        before = max((other.ap or 0.0 for other in self.records.runs if other.state == "done"), default=-1.0)
        with output_errors(self.folder / WEIGHTS):
            if run.state == "done" and (run.ap or 0.0) > before:
                os.replace(place / "weights" / "best.pt", self.folder / WEIGHTS)
            shutil.rmtree(place / "weights", ignore_errors=True)
            (place / "predictions.json").unlink(missing_ok=True)

    def _tell_of(self, run: Run) -> None:
        ap = "-" if run.ap is None else f"{run.ap:.4f}"
        more = max(0, self.settings.trials + REPEATED - len(self.records.runs))
        left = time_in_words(more * max(run.seconds for run in self.records.runs))
        self._tell(
            f"trial {run.trial:>3}, seed {run.seed}: AP {ap}, {run.state} at epoch {len(run.curve)} in "
            f"{time_in_words(run.seconds)}, at most {left} left; {report.in_words(run.changes) or 'the default'}"
        )

    def _report(self, best: Run | None) -> TuneResult:
        """Write what was found."""
        gain = report.gain_of(self.records, best, self._seeds)
        taken = report.taken_over(best, gain)
        trained = resolve("train", {**self._values, **taken})
        values = {name: value for name, value in dump(trained).items() if name in trained.origins.keys() - OWN}
        text = report.report_text(self.records, self.settings.trials, self._seeds, best, gain, self.folder)
        best_yaml = settings_yaml(values, f"Found by gfldet tune:\n{text}")
        write_aside(self.folder / report.BEST, lambda file: file.write(best_yaml.encode()))
        write_aside(self.folder / report.REPORT, lambda file: file.write(text.encode()))
        self._tell(text)
        return TuneResult(self.folder, taken, gain, self.records.runs)
