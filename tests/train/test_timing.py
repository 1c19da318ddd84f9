"""Runs with `time=`, on a clock that the test moves: how many epochs, what becomes of the schedule, and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gfldet.config.load import dump, resolve
from gfldet.data.train_set import TrainSet
from gfldet.errors import ConfigError
from gfldet.imports.start import read_start
from gfldet.ranks.value import Ranks
from gfldet.train import prepare, resume
from gfldet.train.events import ITEMS, Observer, Observers, PlanReport
from gfldet.train.observers import told_of_length
from gfldet.train.schedule import Joint, Plan, with_epochs
from gfldet.train.timing import Length, Pace, epochs_to_do, in_words, length_in_time
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]


class Clock:
    """A clock that stands still until it is moved, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class Told(Observer):
    """What a run says of its length, of its epochs, and its warnings."""

    def __init__(self) -> None:
        self.plans: list[PlanReport] = []
        self.reports: list[Any] = []
        self.warnings: list[str] = []

    def planned(self, report: PlanReport) -> None:
        self.plans.append(report)

    def epoch(self, report: Any) -> None:
        self.reports.append(report)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def on_clock(
    trainer: Trainer, training: Callable[[int], float], validation: float = 1.0, saving: float = 0.0
) -> tuple[Clock, Told, list[float]]:
    """Let an epoch do nothing but take `training(epoch)` seconds and `validation` after it; its steps' rates."""
    clock, told, rates = Clock(), Told(), []
    names = ("map", "map50", "map75", "precision", "recall")
    trainer.pace, trainer.observers = Pace(now=clock), Observers((told,))

    def train(epoch: int, batches: Any) -> dict[str, float]:
        clock.wait(training(epoch))
        for _ in range(trainer.plan.steps_per_epoch):
            rates.append(trainer.plan.learning_rate(trainer.progress.step))
            trainer.progress.step += 1
        return dict.fromkeys(ITEMS, 0.0)

    def validate() -> Any:
        clock.wait(validation)
        return SimpleNamespace(**dict.fromkeys(names, 0.5 + trainer.progress.epoch / 1e6))

    trainer._train_epoch = train  # type: ignore[method-assign]
    trainer._validate = validate  # type: ignore[method-assign]
    trainer._save = lambda best: clock.wait(saving)  # type: ignore[method-assign]
    return clock, told, rates


def timed(seconds: float) -> dict[str, Any]:
    return {"time": seconds / 3600, "patience": 0}


# ------------------------------------------------------------------------------------------------- the number of epochs


@pytest.mark.parametrize(
    ("room", "planned", "expected"),
    [
        (7.9, 0, 7),
        (7.85, 8, 7),
        (7.95, 8, 8),  # within the slack
        (8.95, 8, 8),
        (9.0, 8, 9),
        (0.4, 0, 0),
        (0.6, 1, 1),  # or the schedule would end before its end
        (0.4, 1, 0),
        (1.4, 3, 1),
        (-3.0, 2, 0),
    ],
)
def test_as_many_epochs_as_fit(room: float, planned: int, expected: int) -> None:
    assert epochs_to_do(room, planned) == expected


def test_a_pace_is_that_of_the_last_epochs_with_their_saving() -> None:
    clock = Clock()
    pace = Pace(drawing=2, now=clock)
    clock.wait(9)
    assert pace.begin_epochs() == 9
    assert math.isnan(pace.epoch)
    for seconds in (30, 10, 10, 10, 10, 20, 20):
        clock.wait(seconds)
        assert pace.end_epoch(validation=4) == seconds
    assert pace.epoch == (10 + 10 + 10 + 20 + 20) / 5  # without the first, and what is long ago
    assert pace.left(3) == 3 * 14 + 4 + 2
    assert pace.left(0) == 6
    assert pace.room(6 + 28) == 2


def test_a_pace_goes_by_steps_until_an_epoch_was_measured() -> None:
    clock = Clock()
    pace = Pace(now=clock)
    due = []
    for done in range(1, 17):
        clock.wait(5 if done == 1 else 0.5)  # the first one waits for memory and batches
        if pace.end_step(done, 16, validated=0.3):
            due.append(done)
            assert pace.epoch == pytest.approx(16 * 0.5 * (1 + 0.3 / 3))
    assert due == [2, 4, 8]
    clock.wait(100)
    pace.end_epoch(0)
    assert not pace.end_step(2, 16, 0.3)


def test_words_of_times() -> None:
    assert [in_words(s) for s in (0.4, 62.5, 5025, -3, math.nan)] == ["0:00", "1:02", "1:23:45", "0:00", "-"]


# -------------------------------------------------------------------------------------------------------- the schedule


def a_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {"epochs": 100, "steps_per_epoch": 10, "lr0": 0.1, "lrf": 0.01, "flat": 0.5}
    rest = {"momentum": 0.9, "weight_decay": 0.0, "warmup_steps": 25, "close_epoch": 85, "half_side": None}
    return Plan(**{**values, **rest, **changes})


@pytest.mark.parametrize("done", [3, 40, 60, 80, 95])
@pytest.mark.parametrize("epochs", [96, 98, 105, 130, 200])
def test_a_schedule_goes_on_without_a_jump_and_is_whole_at_the_end(done: int, epochs: int) -> None:
    settings = resolve("train", {"time": 1})
    old, step = a_plan(), 10 * done
    new = with_epochs(old, settings, epochs, done, old.joint_at(step))
    rates = [old.learning_rate(s) for s in range(step)] + [new.learning_rate(s) for s in range(step, 10 * epochs)]
    steepest = max(1.0, (100 - done) / (epochs - done)) * 0.1 * math.pi / 2 / 499 * 1.1
    assert max(abs(b - a) for a, b in pairwise(rates[25:])) <= steepest
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 * 0.01, abs=1e-9)
    assert new.share(step) == pytest.approx(old.share(step))
    assert new.share(10 * epochs) == 1


def test_a_schedule_of_one_epoch_is_whole_too() -> None:
    """Found within the epoch: the hundred epochs that were assumed are one."""
    old = a_plan(steps_per_epoch=1000, warmup_steps=25)
    new = with_epochs(old, resolve("train", {"time": 1}), 1, 0, old.joint_at(125))
    rates = [new.learning_rate(step) for step in range(125, 1000)]
    assert rates[0] == 0.1
    assert rates[437] < 0.1  # half of the epoch is done, and so is the flat half of the schedule
    assert rates[-1] == pytest.approx(0.001)


def test_a_plan_that_was_not_changed_has_the_rates_that_it_had() -> None:
    plan = a_plan()
    for step in range(1000):
        warm = min(1.0, (step + 1) / 25)
        progress = min(1.0, max(0.0, (step - 500.0) / max(1000 - 1 - 500.0, 1.0)))
        assert plan.learning_rate(step) == 0.1 * warm * (0.01 + (1 - 0.01) * (1 + math.cos(math.pi * progress)) / 2)
    assert [plan.share(10 * epoch) for epoch in range(101)] == [epoch / 100 for epoch in range(101)]


def test_what_has_happened_is_not_taken_back() -> None:
    settings = resolve("train", {"time": 1, "assigner": "tal-after-atss"})
    old = a_plan(epochs=20, close_epoch=17, tal_epoch=7)
    assert with_epochs(old, settings, 40, 5, Joint(50, 0.25, 1)).close_epoch == 34
    later = with_epochs(old, settings, 40, 18, Joint(180, 0.9, 1))
    assert (later.close_epoch, later.tal_epoch) == (17, 7)
    shorter = with_epochs(old, settings, 10, 5, Joint(50, 0.25, 1))
    assert (shorter.close_epoch, shorter.tal_epoch) == (8, 3)


# --------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("seconds", [3, 5.9, 12, 12.5, 100, 1000, 1234])
def test_a_run_fits_into_its_time(prepared: Prepared, seconds: float) -> None:
    """An epoch takes 11 s: 9 of training, 1 of validation, 1 of saving; at the end the best weights take 1."""
    trainer = prepared(**timed(seconds))
    clock, told, rates = on_clock(trainer, lambda epoch: 9, saving=1)
    trainer.run()
    epochs = trainer.progress.epoch
    spent = clock.now - 1000 + 1
    assert epochs == max(1, round(seconds // 11))
    assert spent <= seconds or epochs == 1
    assert spent + 11 > seconds
    assert rates[-1] == pytest.approx(0.003 * 0.01, abs=1e-9) or epochs < 3
    assert told.reports[-1].left == 1
    assert told.plans[0].too_long == (seconds < 11)
    assert not any(plan.too_long for plan in told.plans[1:])
    assert len(told.plans) <= 3
    assert trainer.progress.share == 1


@pytest.mark.parametrize(
    "training",
    [
        lambda epoch: 10 if epoch < 20 else 15,
        lambda epoch: 10 if epoch < 20 else 5,
        lambda epoch: 10 + 3 * math.sin(epoch),
        lambda epoch: 60 if epoch == 0 else 10,
        lambda epoch: 10 if epoch < 45 else 40,
    ],
    ids=["slower", "faster", "uneven", "a long first", "slow at the end"],
)
def test_estimates_that_change(prepared: Prepared, training: Callable[[int], float]) -> None:
    trainer = prepared(**timed(600))
    clock, told, rates = on_clock(trainer, training)
    trainer.run()
    epochs = trainer.progress.epoch
    assert 600 - 2 * (training(epochs) + 1) < clock.now - 1000 + 1 <= 600 + 0.5 * (training(epochs) + 1)
    assert told.plans[-1].plan.epochs == epochs == trainer.progress.planned
    counts = [plan.plan.epochs for plan in told.plans]
    assert all(a != b for a, b in pairwise(counts))
    assert rates[-1] == pytest.approx(0.003 * 0.01, rel=1e-6)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])  # it warms up once
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[peak] == 0.003
    assert max(a - b for a, b in pairwise(rates)) < 0.003 * 0.35
    assert trainer.plan.close_epoch <= epochs


def test_time_that_is_used_up_ends_a_run_before_its_schedule(prepared: Prepared) -> None:
    trainer = prepared(**timed(100))
    clock, told, _ = on_clock(trainer, lambda epoch: 9 if epoch < 5 else 60)
    trainer.run()
    assert trainer.progress.epoch == 6
    assert clock.now - 1000 <= 100 + 0.5 * 61
    assert [plan.plan.epochs for plan in told.plans] == [9, 6]
    assert told.warnings == []


def test_patience_still_ends_a_run(prepared: Prepared) -> None:
    trainer = prepared(**{**timed(1000), "patience": 3})
    on_clock(trainer, lambda epoch: 9)
    trainer._is_best = lambda epoch, metrics: setattr(trainer.progress, "improved", 0) or False  # type: ignore
    assert trainer.run().epoch == 4


def test_time_before_the_first_epoch_counts(prepared: Prepared) -> None:
    trainer = prepared(**timed(100))
    clock, _, _ = on_clock(trainer, lambda epoch: 9)
    clock.wait(50)  # reads its images
    trainer.run()
    assert trainer.progress.epoch == 4
    assert trainer.progress.seconds == 90


def test_the_steps_of_a_long_epoch_tell_before_it_ends(
    prepared: Prepared, dataset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 steps an epoch, 1 s each; two epochs fit: known after two steps, and kept to."""
    trainer = prepared(data=str(dataset("many", train=16, val=3).yaml), batch=1, **timed(40))
    clock, told = Clock(), Told()
    trainer.pace, trainer.observers = Pace(now=clock), Observers((told,))
    rates: list[float] = []

    def step(batch: Any) -> None:
        clock.wait(1)
        rates.append(trainer.plan.learning_rate(trainer.progress.step))
        trainer.progress.step += 1

    trainer._step = step  # type: ignore[method-assign]
    trainer.run()
    assert trainer.progress.epoch == 2
    assert [report.plan.epochs for report in told.plans] == [2]
    assert told.plans[0].plan.joint.step == 2
    assert told.plans[0].plan.joint.share == 2 / 1600
    assert told.plans[0].epoch_seconds == pytest.approx(16 + 1)  # 3 images to validate cost a third of theirs
    assert rates[-1] == pytest.approx(0.003 * 0.01)
    assert len(rates) == 32


def test_an_epoch_that_does_not_fit_is_told_while_it_runs(prepared: Prepared, dataset: Callable[..., Any]) -> None:
    trainer = prepared(data=str(dataset("many", train=16, val=3).yaml), batch=1, **timed(10))
    clock, told = Clock(), Told()
    trainer.pace, trainer.observers = Pace(now=clock), Observers((told,))
    steps: list[int] = []

    def step(batch: Any) -> None:
        clock.wait(1)
        steps.append(len(told.plans))
        trainer.progress.step += 1

    trainer._step = step  # type: ignore[method-assign]
    trainer.run()
    assert trainer.progress.epoch == 1
    assert steps[:3] == [0, 0, 1]
    assert told_of_length(told.plans[0]) == (
        "time=0.00277778: an epoch takes 0:17 and does not fit into that, with what comes before and after it; the run "
        "ends after one epoch"
    )


def test_all_ranks_take_the_number_of_the_first(prepared: Prepared) -> None:
    class Second(Ranks):
        """A rank whose rank 0 found seven epochs, whatever this one has measured."""

        def of_first(self, make: Callable[[], Any]) -> Any:
            assert isinstance(make(), Length)
            return Length(7)

    trainer = prepared(**timed(1000))
    trainer.ranks = Second()
    on_clock(trainer, lambda epoch: 90)
    assert trainer.run().epoch == 7


def test_length_counts_the_epoch_that_is_being_done() -> None:
    pace = Pace(now=Clock())
    pace._epochs = [10.0]
    assert length_in_time(pace, 35, done=4, planned=0, begun=False) == Length(7)
    assert length_in_time(pace, 3, done=0, planned=0, begun=True) == Length(1, too_long=True)
    assert length_in_time(pace, 3, done=4, planned=0, begun=True) == Length(5)
    assert length_in_time(pace, 12, done=0, planned=0, begun=True) == Length(1)
    assert length_in_time(pace, -1, done=1, planned=0, begun=False) == Length(1, too_long=True)
    assert length_in_time(pace, 3, done=1, planned=2, begun=False) == Length(1)


def test_what_follows_from_the_length_follows(prepared: Prepared) -> None:
    """The decay of the weights, the end of mosaic, the change of the assigner."""
    trainer = prepared(**timed(120), assigner="tal-after-atss", weight_decay=None)
    on_clock(trainer, lambda epoch: 9)
    trainer.run()
    assert trainer.progress.epoch == 11
    assert trainer.plan.close_epoch == 11 - round(0.15 * 11)
    assert trainer.plan.tal_epoch == 4
    assert trainer.plan.weight_decay == 1
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {1, 0.0}


def test_mosaic_closes_by_the_plan_of_the_moment(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = prepared(**timed(1000))
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(TrainSet, "load", lambda train, key, augmentation: seen.append((key[0], augmentation.mosaic)))
    batches = trainer._batches(0)
    made = [next(batches), next(batches)]
    trainer.plan = replace(trainer.plan, epochs=3, close_epoch=1)
    made += [next(batches) for _ in range(4)]
    assert len(made) == 6
    assert seen == [(0, 1.0), (0, 1.0), (1, 0.0), (1, 0.0), (2, 0.0), (2, 0.0)]


# ------------------------------------------------------------------------------------------------------------ resuming


class Killed(Exception):
    """The process ends."""


def goes_on(trainer: Trainer, **given: Any) -> Trainer:
    """The run of `trainer` from its last.pt on, as another process has it."""
    last = trainer.weights / "last.pt"
    start = read_start(last)
    settings = resume.resumed_settings(start.checkpoint, last, resolve("train", {"resume": last, **given}))
    return prepare.prepare_training(settings, trainer.model.description, start, trainer.folder, last)


def killed_after(prepared: Prepared, done: int, seconds: float, **settings: Any) -> tuple[Trainer, list[float]]:
    """A run that was killed in the epoch after the first `done`, of 10 s each and 1 of validation; its rates."""
    trainer = prepared(**{**timed(seconds), **settings})
    save = trainer._save
    _, _, rates = on_clock(trainer, lambda epoch: 10)
    trainer._save = save  # type: ignore[method-assign]
    train = trainer._train_epoch

    def until(epoch: int, batches: Any) -> Any:
        if epoch == done:
            raise Killed
        return train(epoch, batches)

    trainer._train_epoch = until  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trainer.run()
    return trainer, rates


def test_a_resumed_run_has_the_time_that_is_left(prepared: Prepared) -> None:
    first, before = killed_after(prepared, 6, 111)
    again = goes_on(first)
    assert (again.plan.epochs, again.progress.epoch, again.progress.seconds) == (10, 6, 66)
    assert again.progress.share == first.progress.share
    _, told, after = on_clock(again, lambda epoch: 10)
    again.run()
    assert again.progress.epoch == 10
    assert told.plans == []  # nothing has changed
    assert again.progress.seconds == 110
    whole = prepared(**timed(111))
    _, _, rates = on_clock(whole, lambda epoch: 10)
    whole.run()
    assert before + after == pytest.approx(rates, rel=1e-12)
    with pytest.raises(ConfigError, match=r"has used 1:06 for 6 epochs, and time=0\.01 \(hours of the whole run\)"):
        goes_on(first, time=0.01)


def test_a_resumed_run_on_a_slower_machine(prepared: Prepared) -> None:
    first, before = killed_after(prepared, 6, 111)
    again = goes_on(first)
    _, told, after = on_clock(again, lambda epoch: 20)
    again.run()
    assert again.progress.epoch == 8
    assert [plan.plan.epochs for plan in told.plans] == [8]
    assert after[-1] == pytest.approx(0.003 * 0.01)
    assert 0 < before[-1] - after[0] < 0.003 * 0.2


def test_a_finished_run_takes_more_time_only(prepared: Prepared) -> None:
    first = prepared(**timed(100))
    save = first._save
    on_clock(first, lambda epoch: 10)
    first._save = save  # type: ignore[method-assign]
    first.run()
    assert first.progress.epoch == 9
    assert goes_on(first).plan.epochs == 9  # its best weights are not measured yet
    first.end()
    with pytest.raises(ConfigError, match=r"has used 1:39 for 9 epochs, and time=.* leaves none for another; give a"):
        goes_on(first)
    again = goes_on(first, time=199 / 3600)
    assert again.plan.epochs == 18
    assert again.progress.share == pytest.approx(99 / 199)
    on_clock(again, lambda epoch: 10)
    assert again.run().epoch == 18


def test_epochs_given_now_take_the_place_of_time_and_the_reverse(prepared: Prepared) -> None:
    first, _ = killed_after(prepared, 3, 111)
    again = goes_on(first, epochs=8)
    assert (again.settings.time, again.plan.epochs, again.progress.planned) == (None, 8, 0)
    plain, _ = killed_after(prepared, 3, 111, time=None, epochs=10)
    assert plain.progress.planned == 0
    other = goes_on(plain, time=110 / 3600)
    assert (other.plan.epochs, other.progress.planned) == (10, 10)  # 33 of 110 s are used
    assert other.progress.share == pytest.approx(0.3)


# ------------------------------------------------------------------------------------------------------- what is told


def test_time_beside_epochs_is_told() -> None:
    both = resolve("train", {"time": 2.5, "epochs": 30})
    assert both.notices == ("epochs: without effect beside time=2.5, which decides how many there are",)
    assert resolve("train", {"time": 2.5}).notices == ()
    assert resolve("train", {"time": None, "epochs": 30}).time is None
    assert resolve("train", dump(resolve("train", {"time": 2.5}))).time == 2.5


@pytest.mark.parametrize("value", [0, -1, "soon", True, "inf", "2h"])
def test_times_that_are_none(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"time=.*: expected a number above 0, or none"):
        resolve("train", {"time": value})


def test_the_plan_tells_what_is_known(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = prepared(verbose=True, time=0.5)
    out = capsys.readouterr().out
    assert "plan: as many epochs x 2 steps as fit into 0.5 h, to be told in the first; muon lr0 0.003; median" in out
    report = PlanReport(replace(trainer.plan, epochs=57, close_epoch=48), 2.5, 151.0)
    assert told_of_length(report).startswith("time=2.5: 57 epochs in all, at 2:31 each; weight decay ")
    assert told_of_length(report).endswith("warm-up 25 steps; no mosaic from epoch 49")
    assert told_of_length(replace(report, plan=replace(trainer.plan, epochs=1))).startswith("time=2.5: 1 epoch in all")
    assert Path(trainer.folder / "args.yaml").read_text().count("time: 0.5") == 1
