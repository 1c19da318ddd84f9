"""The gain beside its noise, by numbers that were worked out by hand; the texts and the table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gfldet.tune.records import Records, Run, State
from gfldet.tune.report import Gain, best_trial, gain_of, report_text, taken_over, write_table

DEFAULTS = {"lr0": 0.003, "mosaic": 1.0, "scale": 0.5, "fliplr": 0.5, "flipud": 0.0}


def run(trial: int, ap: float | None, seed: int = 7, state: State = "done") -> Run:
    changes = {"lr0": 0.001 * trial, "fliplr": 0.0} if trial else {}
    return Run(trial, seed, changes, state, ap, (0.1, ap or 0.0), 60.0)


def records(*runs: Run) -> Records:
    return Records({"model": "gfldet-n", "lrf": 0.1}, DEFAULTS, runs)


def test_gain_and_noise_by_hand() -> None:
    gain = Gain((7, 8, 9), (0.50, 0.52, 0.54), (0.60, 0.58, 0.62))
    assert gain.gain == pytest.approx(0.60 - 0.52)
    assert gain.unchosen == pytest.approx(0.60 - 0.53)
    # Variances .0004 and .0004: a standard error of sqrt(.0008 / 3) = .01633, twice that is .03266.
    assert gain.noise == pytest.approx(0.0326599, abs=1e-7)
    assert gain.clear


@pytest.mark.parametrize(
    ("best", "clear", "words"),
    [
        ((0.60, 0.58, 0.62), True, "larger than the noise"),
        ((0.53, 0.55, 0.51), False, "within the noise"),
        ((0.70, 0.53, 0.53), False, "within the noise"),  # the seed that chose it alone is better
        ((0.51, 0.50, 0.52), False, "default settings are the better ones"),
    ],
)
def test_the_verdict(best: tuple[float, float, float], clear: bool, words: str) -> None:
    gain = Gain((7, 8, 9), (0.50, 0.52, 0.54), best)
    assert gain.clear is clear
    assert words in str(gain).splitlines()[-1]


def test_the_best_trial_is_no_default_and_came_to_its_end() -> None:
    trials = [run(0, 0.9), run(1, 0.4), run(2, 0.6), run(3, 0.6), run(4, 0.8, state="pruned")]
    assert best_trial([*trials, run(5, None, state="failed")]) == trials[2]
    assert best_trial([trials[0], trials[4]]) is None


def test_the_gain_is_that_of_the_seeds_that_both_have() -> None:
    trials = (run(0, 0.5), run(1, 0.6), run(0, 0.52, 8), run(1, None, 8, "failed"), run(0, 0.54, 9), run(1, 0.62, 9))
    gain = gain_of(records(*trials), trials[1], (7, 8, 9))
    assert gain == Gain((7, 9), (0.5, 0.54), (0.6, 0.62))
    assert gain_of(records(*trials[:4]), trials[1], (7, 8, 9)) is None
    assert gain_of(records(*trials), None, (7, 8, 9)) is None


def test_the_default_is_taken_where_it_is_better() -> None:
    best = run(1, 0.6)
    assert taken_over(None, None) == {}
    assert taken_over(best, None) == best.changes
    assert taken_over(best, Gain((7, 8), (0.5, 0.5), (0.6, 0.5))) == best.changes
    assert taken_over(best, Gain((7, 8), (0.5, 0.5), (0.6, 0.4))) == {}


def test_the_report_tells_what_was_done_and_how_to_use_it() -> None:
    runs = (run(0, 0.5), run(1, 0.6), run(2, 0.3, state="pruned"), run(3, None, state="failed"))
    gain = Gain((7, 8, 9), (0.50, 0.52, 0.54), (0.60, 0.58, 0.62))
    text = report_text(records(*runs), 6, (7, 8, 9), runs[1], gain, Path("runs/tune"))
    assert text.splitlines() == [
        "4 of 6 trials: 2 to their end, 1 pruned, 1 failed",
        "The time was over before the rest of them.",
        "AP by seed            7        8        9     mean",
        "default          0.5000   0.5200   0.5400   0.5200",
        "best trial       0.6000   0.5800   0.6200   0.6000",
        "gain +0.0800; with the seeds that had no part in the choice +0.0700; "
        "noise 0.0327 (2 standard errors of the gain)",
        "The gain is larger than the noise.",
        "best settings: lr0=0.001 fliplr=0",
        "gfldet train cfg=runs/tune/best.yaml",
    ]
    alone = report_text(records(runs[0], runs[2]), 2, (7, 8, 9), None, None, Path("x"))
    assert "nothing to compare" in alone
    assert "best settings" not in alone


def test_the_table_has_a_row_for_each_run(tmp_path: Path) -> None:
    write_table(records(run(0, 0.5), run(1, 0.625, 8), run(2, None, state="running")), tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["seed"], row["state"], row["AP"]) for row in rows] == [
        ("0", "7", "done", "0.5"),
        ("1", "8", "done", "0.625"),
        ("2", "7", "running", ""),
    ]
    assert [row["lr0"] for row in rows] == ["0.003", "0.001", "0.002"]
    assert rows[1]["mosaic"] == "1"
    assert rows[1]["folder"] == "trials/001-seed8"
