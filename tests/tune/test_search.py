"""The real Optuna: what a trial tries follows from what was done before, and when a trial is given up."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from gfldet.errors import ConfigError
from gfldet.tune.records import Run, State
from gfldet.tune.search import COMPLETE, RANDOM, Trial, check_installed
from gfldet.tune.space import VARIED, space_around

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="the package optuna is not installed")

DEFAULTS = {"lr0": 0.003, "mosaic": 1.0, "scale": 0.5, "fliplr": 0.5, "flipud": 0.0}
SPACE = space_around(DEFAULTS, VARIED)


def run(trial: int, *curve: float, state: State = "done") -> Run:
    changes = {"lr0": 0.002, "mosaic": 0.5, "scale": 0.1 * (trial % 5), "fliplr": 0.0, "flipud": 0.5} if trial else {}
    return Run(trial, 7, changes, state, max(curve) if curve else None, curve)


def trial(number: int, before: list[Run], epochs: int = 6, changes: dict[str, float] | None = None) -> Trial:
    return Trial(SPACE, DEFAULTS, before, number, 7, epochs, changes)


@needs_optuna
def test_a_trial_follows_from_its_number_and_what_was_before() -> None:
    before = [run(0, 0.1, 0.5), run(1, 0.1, 0.4), run(2, 0.1, state="pruned"), run(3, state="failed")]
    once, again, other = trial(4, before), trial(4, before), trial(5, before)
    assert once.changes == again.changes != other.changes
    assert once.changes.keys() == SPACE.keys()
    assert 0.001 <= once.changes["lr0"] <= 0.009
    assert once.changes["fliplr"] in (0.0, 0.5)


@needs_optuna
def test_what_was_found_bears_on_what_is_tried() -> None:
    """After RANDOM trials the sampler follows them."""
    good = [Run(n, 7, {**DEFAULTS, "mosaic": 0.02 * n}, "done", 1 - 0.02 * n, (0.5,)) for n in range(RANDOM)]
    bad = [Run(n, 7, {**DEFAULTS, "mosaic": 0.4 + 0.05 * n}, "done", 0.1, (0.5,)) for n in range(RANDOM, 12)]
    tried = [trial(number, good + bad).changes["mosaic"] for number in range(12, 24)]
    assert sum(tried) / len(tried) < 0.4
    assert sum(trial(number, good[:2]).changes["mosaic"] for number in range(12, 24)) / 12 > 0.5


@needs_optuna
def test_a_trial_that_was_begun_is_tried_again() -> None:
    begun = trial(1, [run(0, 0.1, 0.5)]).changes
    odd = {**begun, "mosaic": 0.37, "lr0": 0.00123}
    assert trial(1, [run(0, 0.1, 0.5)], changes=odd).changes == odd


@needs_optuna
def test_a_trial_below_the_median_is_given_up_after_a_third_of_the_epochs() -> None:
    ends = (0.2, 0.4, 0.5, 0.8)
    before = [run(number, *(end * (epoch + 1) / 6 for epoch in range(6))) for number, end in enumerate(ends)]
    assert len(before) == COMPLETE
    low = trial(4, before)
    # The median after epoch e (from 0) is .45 (e + 1) / 6: .075 .15 .225 .3; no trial is given up in epochs 0 and 1.
    assert [low.hopeless(0, 0.0), low.hopeless(1, 0.0), low.hopeless(2, 0.224)] == [False, False, True]
    high = trial(4, before)
    assert [high.hopeless(0, 0.1), high.hopeless(1, 0.1), high.hopeless(2, 0.226)] == [False, False, False]
    assert high.hopeless(3, 0.29)
    few = trial(3, before[: COMPLETE - 1])
    assert not any(few.hopeless(epoch, 0.0) for epoch in range(6))


@needs_optuna
def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    level = optuna.logging.get_verbosity()
    trial(4, [run(0, 0.1, 0.5), run(1, 0.1, state="pruned")], changes=run(1).changes | {}).hopeless(0, 0.1)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == level


def test_without_optuna_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"^tune: the package optuna is not .*; pip install 'gfldet\[tune\]'$"):
        check_installed()
