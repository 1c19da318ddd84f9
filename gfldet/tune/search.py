"""Optuna: which settings the next trial tries, and whether a trial is worth going on with.

The package is an extra and is imported here alone.  The study is made anew for each trial from what was done before,
and its sampler is seeded by the number of the trial: so the search does not depend on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gfldet.errors import ConfigError
from gfldet.tune.records import Run
from gfldet.tune.space import OneOf, Space

RANDOM = 6  # trials, with the default, before the sampler follows what they tell
COMPLETE = 4  # trials that came to their end before one is pruned
UNPRUNED = 1 / 3  # of the epochs: rates and sizes that are better in the end may be worse at first


def check_installed() -> None:
    """ConfigError with the command that installs Optuna, if it is not here."""
    _optuna()


class Trial:
    """The next trial: the settings that it tries, and what becomes of it as its APs come."""

    def __init__(
        self,
        space: Space,
        defaults: Mapping[str, float],
        before: Sequence[Run],
        number: int,
        seed: int,
        epochs: int,
        changes: Mapping[str, float] | None = None,
    ) -> None:
        """`before` are the trials that are over, each with settings of `space`; those that it does not change are the
        `defaults`.  `changes` are the settings of a trial that was begun already."""
        optuna = _optuna()
        forms = {
            name: optuna.distributions.CategoricalDistribution(bounds.values)
            if isinstance(bounds, OneOf)
            else optuna.distributions.FloatDistribution(bounds.low, bounds.high, log=bounds.log)
            for name, bounds in space.items()
        }
        with _silent(optuna):
            study = optuna.create_study(
                direction="maximize",
                sampler=optuna.samplers.TPESampler(seed=(seed + number) % 2**32, n_startup_trials=RANDOM),
                pruner=optuna.pruners.MedianPruner(COMPLETE, n_warmup_steps=round(UNPRUNED * epochs)),
            )
            for run in before:
                if run.ap is not None:  # what failed tells no AP
                    study.add_trial(
                        optuna.trial.create_trial(
                            state=optuna.trial.TrialState[{"done": "COMPLETE"}.get(run.state, "PRUNED")],
                            value=run.ap,
                            params={name: run.changes.get(name, defaults[name]) for name in forms},
                            distributions=forms,
                            intermediate_values=dict(enumerate(run.curve)),
                        )
                    )
            if changes is not None:
                study.enqueue_trial({name: changes[name] for name in forms})
            self._trial = study.ask(forms)
        self.changes = {name: space[name].rounded(self._trial.params[name]) for name in space}

    def hopeless(self, epoch: int, ap: float) -> bool:
        """Whether the best AP so far is below the median of the earlier trials after this epoch (from 0)."""
        self._trial.report(ap, epoch)
        return bool(self._trial.should_prune())


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"tune: the package optuna is not installed, or broken ({error}); pip install 'gfldet[tune]'"
        ) from error
    return optuna


@contextmanager
def _silent(optuna: Any) -> Iterator[None]:
    """Optuna's lines about each study and trial are not for the user of gfldet; its warnings are."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
