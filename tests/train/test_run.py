"""A whole run: what it returns, what its observers are told and in which order, and how it ends when it fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet import Model
from gfldet.errors import ConfigError, OutputError
from gfldet.store import checkpoint as checkpoints
from gfldet.train.events import Observer, Observers
from gfldet.train.observers import ResultsCsv
from gfldet.train.run import run_training
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]


class Diary(Observer):
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Any]] = []

    def begin(self, facts: Any) -> None:
        self.entries.append(("begin", facts))

    def step(self, report: Any) -> None:
        self.entries.append(("step", report))

    def epoch(self, report: Any) -> None:
        self.entries.append(("epoch", report))

    def end(self, report: Any) -> None:
        self.entries.append(("end", report))

    def warn(self, message: str) -> None:
        self.entries.append(("warn", message))

    def of(self, event: str) -> list[Any]:
        return [told for name, told in self.entries if name == event]


@pytest.fixture
def train(dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path) -> Callable[..., Model]:
    """Observers and settings -> a model after its training on 6 images, 2 steps an epoch."""
    drawn = dataset()

    def run(*observers: Observer, model: Model | None = None, **settings: Any) -> Model:
        model = model or Model(tiny_yaml)
        model.train(observers=observers, **{**quick, "data": str(drawn.yaml), **settings})
        return model

    return run


def test_observers_are_told_of_the_whole_run(train: Callable[..., Model]) -> None:
    diary = Diary()
    model = train(diary, lr0=0.004)
    assert [event for event, _ in diary.entries] == ["begin", *(["step"] * 2 + ["epoch"]) * 2, "end"]
    (facts,) = diary.of("begin")
    assert (facts.folder, facts.names, facts.epoch, facts.step) == (model.save_dir, ("red", "blue"), 0, 0)
    assert (facts.settings["lr0"], facts.settings["epochs"], facts.plan.steps_per_epoch) == (0.004, 2, 2)
    steps = diary.of("step")
    assert [(s.epoch, s.number, s.step) for s in steps] == [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)]
    assert [s.rate for s in steps] == [facts.plan.learning_rate(step) for step in range(4)]
    assert all(s.losses.shape == (3,) and len(s.batch.files) == 3 for s in steps)
    (end,) = diary.of("end")
    assert (end.reason, end.error) == ("finished", None)
    assert end.metrics.map >= 0
    for told in (facts, steps[0], end):
        with pytest.raises((FrozenInstanceError, TypeError)):
            told.epoch = 9


def test_a_resumed_run_begins_where_it_stands(train: Callable[..., Model]) -> None:
    model, diary = train(), Diary()
    train(diary, model=model, resume=True, epochs=3)
    (facts,) = diary.of("begin")
    assert (facts.folder, facts.epoch, facts.step) == (model.save_dir, 2, 4)
    assert [s.step for s in diary.of("step")] == [4, 5]


def test_a_run_returns_what_it_left(prepared: Prepared) -> None:
    result = run_training(prepared(epochs=1))
    assert result.best == result.folder / "weights" / "best.pt"
    assert result.best.is_file()
    assert result.best_epoch == 0
    assert result.metrics is not None
    assert (result.folder / "metrics.json").is_file()
    assert run_training(prepared(epochs=1, val=False)).metrics is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [(KeyboardInterrupt(), "interrupted"), (RuntimeError("out of memory"), "failed"), (SystemExit(1), "failed")],
)
@pytest.mark.parametrize("at", ["_train_epoch", "_validate"])
def test_the_end_is_told_however_it_comes(prepared: Prepared, error: BaseException, reason: str, at: str) -> None:
    trainer, diary = prepared(), Diary()
    trainer.observers = Observers((diary,))

    def fail(*args: Any) -> Any:
        raise error

    setattr(trainer, at, fail)
    with pytest.raises(type(error)):
        run_training(trainer)
    (end,) = diary.of("end")
    assert (end.reason, end.error, end.metrics) == (reason, error, None)


def test_a_failure_after_the_last_epoch_is_no_good_end(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, diary = prepared(epochs=1), Diary()
    trainer.observers = Observers((diary,))

    def fail(*args: Any) -> Any:
        raise OutputError("metrics.json: cannot be written")

    monkeypatch.setattr("gfldet.train.run.write_validation", fail)
    with pytest.raises(OutputError):
        run_training(trainer)
    assert [end.reason for end in diary.of("end")] == ["failed"]


@pytest.mark.long
def test_patience_ends_a_run(prepared: Prepared) -> None:
    trainer, diary = prepared(epochs=9, patience=1), Diary()
    trainer.observers = Observers((diary,))
    aps = iter([0.5, 0.4])
    trainer._is_best = lambda epoch, metrics: _best(trainer, epoch, next(aps))  # type: ignore[method-assign]
    run_training(trainer)
    assert [end.reason for end in diary.of("end")] == ["patience"]


def _best(trainer: Trainer, epoch: int, ap: float) -> bool:
    if ap <= trainer.progress.best:
        return False
    trainer.progress.best, trainer.progress.best_epoch, trainer.progress.improved = ap, epoch, epoch
    return True


def test_a_logger_that_fails_does_not_cost_the_run(
    train: Callable[..., Model], capsys: pytest.CaptureFixture[str]
) -> None:
    class Logger(Observer):
        def epoch(self, report: Any) -> None:
            raise ConnectionError("no such host")

    diary = Diary()
    model = train(Logger(), diary)
    assert [end.reason for end in diary.of("end")] == ["finished"]
    assert len((Path(str(model.save_dir)) / "results.csv").read_text().splitlines()) == 3
    told = "warning: observer Logger: left out from here on, as it raised ConnectionError: no such host\n"
    assert capsys.readouterr().err == told


def test_results_that_cannot_be_written_stop_the_run(
    train: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ResultsCsv, report: Any) -> None:
        raise OutputError("results.csv: cannot be written (No space left on device)")

    monkeypatch.setattr(ResultsCsv, "epoch", full)
    diary = Diary()
    with pytest.raises(OutputError, match="No space left"):
        train(diary)
    assert [(end.reason, type(end.error)) for end in diary.of("end")] == [("failed", OutputError)]


def test_observers_are_checked_before_any_work(train: Callable[..., Model], quick: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="observers: 3 is no Observer"):
        train(3)  # type: ignore[arg-type]
    assert not Path(quick["project"]).exists()


# ------------------------------------------------------------------------------------ interrupted, and two at once


class Interrupter(Observer):
    """Interrupts the run at the last step of an epoch (from 0), or at its end."""

    def __init__(self, epoch: int, at: str = "step") -> None:
        self.where, self.at = epoch, at

    def step(self, report: Any) -> None:
        if self.at == "step" and (report.epoch, report.number) == (self.where, 1):
            raise KeyboardInterrupt

    def epoch(self, report: Any) -> None:
        if self.at == "epoch" and report.epoch == self.where:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("epoch", "at", "kept"),
    [
        *((0, "step", 0), (0, "epoch", 0), (2, "epoch", 2)),
        *(pytest.param(*one, marks=pytest.mark.long) for one in ((2, "step", 2), (3, "epoch", 3))),
    ],
)
def test_who_interrupts_is_told_how_to_go_on(
    train: Callable[..., Model], quick: dict[str, Any], epoch: int, at: str, kept: int
) -> None:
    """An epoch counts once it is written; what was begun leaves nothing."""
    with pytest.raises(KeyboardInterrupt) as caught:
        train(Interrupter(epoch, at), epochs=4, val=False, project=f"{quick['project']} of mine")
    folder = Path(f"{quick['project']} of mine") / "train"
    told = f"{kept} of 4 epochs are kept; gfldet train 'resume={folder}' goes on from there"
    assert str(caught.value) == (told if kept else "no epoch was done yet, so nothing is kept")
    assert not list(folder.rglob(".*"))
    if kept:
        assert checkpoints.load(folder / "weights" / "last.pt").epoch == kept - 1


@pytest.mark.parametrize(
    "settings", [{"epochs": 2}, pytest.param({"epochs": 9, "patience": 1, "lr0": 1e-9}, marks=pytest.mark.long)]
)
def test_an_interrupted_report_is_written_by_a_resume(
    train: Callable[..., Model], quick: dict[str, Any], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after patience; nothing is trained then, and what is left is that of a run that was left alone."""

    def interrupt(*given: Any) -> None:
        raise KeyboardInterrupt

    whole, folder = Path(str(train(name="whole", **settings).save_dir)), Path(quick["project"]) / "cut"
    with monkeypatch.context() as patch:
        patch.setattr("gfldet.train.run.write_validation", interrupt)
        told = rf"the training was done; gfldet train resume={folder} measures its best weights"
        with pytest.raises(KeyboardInterrupt, match=told):
            train(name="cut", **settings)
    assert not (folder / "metrics.json").exists()
    diary = Diary()
    train(diary, resume=folder, **settings)
    assert [len(diary.of(event)) for event in ("begin", "step", "end")] == [1, 0, 1]
    for name in ("metrics.json", "predictions.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    first, second = (checkpoints.load(run / "weights" / "last.pt").training for run in (whole, folder))
    assert first is not None
    assert second is not None
    assert torch.equal(first["random"], second["random"])
    assert first["optimizer"]["param_groups"] == second["optimizer"]["param_groups"]
    with pytest.raises(ConfigError, match=r"resume: .* (has done its 2 epochs|stopped at epoch 3)"):
        train(resume=folder, **settings)


def test_the_end_of_a_run_changes_nothing_else_in_its_checkpoint(prepared: Prepared) -> None:
    trainer = prepared(epochs=1)
    trainer.run()
    before = checkpoints.load(trainer.weights / "last.pt").training
    run_training(trainer)
    after = checkpoints.load(trainer.weights / "last.pt").training
    assert before is not None
    assert after is not None
    assert after["progress"] == {**before["progress"], "running": 0, "seconds": after["progress"]["seconds"]}
    assert before["progress"]["running"] == 1
    assert torch.equal(before["random"], after["random"])
    for name, value in before["weights"].items():
        assert torch.equal(value, after["weights"][name])


@pytest.mark.long
def test_a_run_is_resumed_once_at_a_time(train: Callable[..., Model], tiny_yaml: Path) -> None:
    """Also the run itself, while it lasts; afterwards its folder is free."""
    pytest.importorskip("fcntl")
    refused: list[str] = []

    class Second(Observer):
        def epoch(self, report: Any) -> None:
            if report.epoch:
                for given in ({"resume": facts[0].folder}, {"name": "train", "exist_ok": True}):
                    with pytest.raises(OutputError) as caught:
                        train(**given)
                    refused.append(str(caught.value))

        def begin(self, told: Any) -> None:
            facts.append(told)

    facts: list[Any] = []
    model = train(Second(), epochs=2)
    folder = Path(str(model.save_dir))
    assert len(refused) == 2
    assert all(told.startswith(f"{folder}: process {os.getpid()} on ") for told in refused)
    left = folder / "weights" / ".last.pt.1-ab.part"  # of a process that was killed
    left.write_bytes(b"half")
    train(model=model, resume=True, epochs=3)
    assert not left.exists()
    assert not (folder / ".lock").exists()


def test_a_run_that_is_refused_leaves_nothing(train: Callable[..., Model], quick: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="imgsz: 32 x 32 px is too small"):
        train(imgsz=32)
    assert not Path(quick["project"]).exists()
