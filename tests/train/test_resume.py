"""Resuming: which run `resume` means, which settings continue, and that the schedule does not jump."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet.config.load import dump, resolve
from gfldet.config.schema import TrainSettings
from gfldet.errors import CheckpointError, ConfigError, DataError, OutputError
from gfldet.imports.start import Start, read_start
from gfldet.nn.build import Description
from gfldet.ranks.place import Place
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint
from gfldet.train import prepare, resume
from gfldet.train.run import run_training
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]


def last_pt(folder: Path, seconds: int) -> Path:
    path = folder / "weights" / "last.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    os.utime(path, (seconds, seconds))
    return path


def train_settings(**settings: Any) -> TrainSettings:
    return resolve("train", settings)


def test_resume_finds_the_newest_run(tmp_path: Path) -> None:
    old, new, third = (last_pt(tmp_path / name, at) for name, at in (("train9", 10), ("train", 30), ("mine", 20)))
    assert resume.find_resume(train_settings(project=tmp_path)) is None
    assert resume.find_resume(train_settings(project=tmp_path, resume=True)) == new
    assert resume.find_resume(train_settings(project=tmp_path, resume=True, name="mine")) == third
    assert resume.find_resume(train_settings(project=tmp_path, resume=old)) == old
    assert resume.find_resume(train_settings(project=tmp_path, resume=tmp_path / "train9")) == old
    assert resume.find_resume(train_settings(project=tmp_path, resume=True, model=old)) == old
    best = old.with_name("best.pt")  # of the same run
    assert resume.find_resume(train_settings(project=tmp_path, resume=True, model=best)) == old


def test_resume_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"resume: no \*/weights/last.pt in .*; give resume=RUN/weights/last.pt"):
        resume.find_resume(train_settings(project=tmp_path, resume=True))
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere.pt").write_bytes(b"")
    for path in ("folder", "gone.pt", "elsewhere.pt"):
        with pytest.raises(CheckpointError, match=r"is no last\.pt in its run folder; expected RUN/weights/last\.pt"):
            resume.find_resume(train_settings(resume=tmp_path / path))


@pytest.fixture
def stopped(tiny: Description) -> Callable[..., Checkpoint]:
    """A checkpoint as a run leaves it: `epoch` epochs done, the best of them `best`, `running` if its end is not
    reached; settings as given."""

    def make(epoch: int = 3, best: int = 2, running: int | None = None, **settings: Any) -> Checkpoint:
        progress = {"epoch": epoch, "step": 6, "best": 0.5, "best_epoch": best, "seconds": 1.0, "bad_steps": 0}
        if running is not None:  # which older checkpoints do not tell
            progress["running"] = running
        given = {"epochs": 10, "model": "gfldet-s.yaml", "imgsz": 64, **settings}
        return Checkpoint(
            description=tiny,
            names=("a", "b"),
            category_ids=(0, 1),
            weights={},
            settings=dump(train_settings(**given)),
            training={"progress": progress},
        )

    return make


def go_on(checkpoint: Checkpoint, **given: Any) -> TrainSettings:
    new = train_settings(model="gfldet-n.yaml", resume=True, **given)
    return resume.resumed_settings(checkpoint, Path("run/weights/last.pt"), new)


def test_settings_go_on_under_those_given_now(stopped: Callable[..., Checkpoint], tmp_path: Path) -> None:
    run = stopped(lr0=0.3, optimizer="sgd", close_mosaic=4, batch=5)
    assert go_on(run) == replace(go_on(run), resume=False)
    settings = go_on(run, lr0=0.1, epochs=20, batch=16)  # 16 is also the default: given all the same
    assert (settings.lr0, settings.epochs, settings.batch) == (0.1, 20, 16)
    assert (settings.optimizer, settings.close_mosaic, settings.imgsz) == ("sgd", 4, 64)
    assert settings.model == "gfldet-s.yaml"  # the run's own
    file = tmp_path / "more.yaml"
    file.write_text("epochs: 30\n")
    assert go_on(run, cfg=file).epochs == 30


@pytest.mark.parametrize(
    ("run", "given", "told"),
    [
        ({"epoch": 10}, {}, "has done its 10 epochs; give a larger epochs= to extend it"),
        ({"epoch": 10}, {"epochs": 10}, "has done its 10 epochs"),
        ({"epoch": 3}, {"epochs": 2}, "has done its 3 epochs"),
        ({"epoch": 11, "running": 1}, {}, "has done its 11 epochs"),
        ({"epoch": 8, "best": 2, "patience": 5}, {}, "stopped at epoch 8, 5 after its best; give a larger patience="),
        ({"optimizer": "sgd"}, {"optimizer": "adamw"}, "resume: optimizer=adamw, but the run has optimizer=sgd; start"),
        ({}, {"freeze": 2}, "resume: freeze=2, but the run has freeze=None"),
        ({"augment": print}, {}, "the run had an augmentation of its own, <print>; give augment= again"),
    ],
)
def test_runs_that_cannot_go_on(
    stopped: Callable[..., Checkpoint], run: dict[str, Any], given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        go_on(stopped(**run), **given)


def test_runs_that_can_go_on_after_all(stopped: Callable[..., Checkpoint]) -> None:
    assert go_on(stopped(epoch=10), epochs=11).epochs == 11
    assert go_on(stopped(epoch=8, best=2, patience=5), patience=0).patience == 0
    assert go_on(stopped(epoch=8, best=2, patience=5), patience=50).patience == 50
    for run in ({"epoch": 10}, {"epoch": 8, "best": 2, "patience": 5}):  # killed before their end
        assert go_on(stopped(**run, running=1)).epochs == 10
    assert go_on(stopped(augment=print), augment=max).augment is max
    assert go_on(stopped(freeze=[1, 2]), freeze=[1, 2]).freeze == (1, 2)


def test_the_device_of_a_run_is_read_without_its_tensors(
    stopped: Callable[..., Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    full = {"weights": {}, "optimizer": {}, "scaler": {}, "updates": 0, "random": torch.get_rng_state()}
    run = stopped(device="cpu:2")
    checkpoints.save(last, replace(run, training={**(run.training or {}), **full}))

    def no_tensors(*given: Any) -> Any:
        raise AssertionError("a tensor is read")

    monkeypatch.setattr("gfldet.store.unpickle.Archive.flat", no_tensors)
    given = train_settings(resume=last)
    assert resume.device_of_run(given, Place()) == "cpu:2"
    assert resume.device_of_run(given, Place(0, 2, 0, 2)) == "cpu:2"
    assert resume.device_of_run(given, Place(0, 3, 0, 3)) == "cpu"
    assert resume.device_of_run(train_settings(resume=last, device="cpu"), Place()) == "cpu"
    last.write_bytes(last.read_bytes()[:500])
    assert resume.device_of_run(given, Place()) == "auto"  # what is wrong is told when it is loaded


def test_weights_alone_do_not_go_on(stopped: Callable[..., Checkpoint]) -> None:
    with pytest.raises(CheckpointError, match=r"last\.pt holds weights alone; resume from the last\.pt of a run"):
        go_on(replace(stopped(), training=None))


def test_a_damaged_state_of_training_is_told(stopped: Callable[..., Checkpoint], prepared: Prepared) -> None:
    with pytest.raises(
        CheckpointError, match=r"resume: the state of training in run/weights/last\.pt is damaged \(.*ep"
    ):
        go_on(replace(stopped(), training={"progress": {"epochs": 3}}))
    trainer = prepared(epochs=2)
    state = trainer._state()
    whole = Checkpoint(
        trainer.model.description, ("red", "blue"), (0, 1), trainer.average.model.state_dict(), training=state
    )
    trainer.restore(whole)
    for part, odd in (
        ("weights", {}),
        ("optimizer", {"state": 3}),
        ("random", torch.zeros(3)),
    ):
        with pytest.raises(CheckpointError, match=r"last\.pt is damaged \(.*; start another run from its weights with"):
            trainer.restore(replace(whole, training={**state, part: odd}))


def test_a_run_goes_on_with_its_own_classes_only(prepared: Prepared, dataset: Callable[..., Any]) -> None:
    trainer = prepared(epochs=3)
    trainer.run()
    last = trainer.weights / "last.pt"
    other = dataset("other").yaml
    other.write_text(other.read_text().replace("red, blue", "cat, dog"))
    settings = resolve("train", {**dump(trainer.settings), "epochs": 5, "data": other})
    with pytest.raises(DataError, match=r"resume: the run has the classes \['red', 'blue'\], .* has \['cat', 'dog'\]"):
        prepare.prepare_training(settings, trainer.model.description, read_start(last), trainer.folder, last)


def test_a_run_folder_that_cannot_be_written(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = prepared(epochs=1)
    trainer.run()
    last = trainer.weights / "last.pt"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with (
        pytest.raises(OutputError, match=r"weights: no permission to write in .*weights"),
        prepare.run_folder(trainer.settings, last),
    ):
        pytest.fail("the folder was given")


def test_what_is_set_for_the_rest_of_a_run_counts(prepared: Prepared) -> None:
    trainer = prepared(optimizer="adamw", weight_decay=0.1, momentum=0.9, bn_momentum=0.1)
    trainer.run()
    last = trainer.weights / "last.pt"
    changed = {"epochs": 3, "weight_decay": 0.2, "momentum": 0.7, "bn_momentum": 0.4, "ema_decay": 0.5, "lr0": 0.01}
    settings = resolve("train", {**dump(trainer.settings), **changed})
    again = prepare.prepare_training(settings, trainer.model.description, read_start(last), trainer.folder, last)
    assert [group["weight_decay"] for group in again.optimizer.param_groups] == [0.2, 0.0]
    assert {group["betas"] for group in again.optimizer.param_groups} == {(0.7, 0.999)}
    assert again.average.decay == 0.5
    assert again.plan.learning_rate(5) == pytest.approx(0.01 * (0.01 + 0.99 * 0))  # the last of six steps
    assert {m.momentum for m in again.model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.4}
    kept = next(iter(again.optimizer.state_dict()["state"].values()))
    assert int(kept["step"]) == 4  # the moments are those of the run


def resumed_at(trainer: Trainer, epoch: int, **given: Any) -> Trainer:
    """The run of `trainer` as if it had stopped after `epoch` epochs, gone on with under the settings given."""
    progress = {"epoch": epoch, "step": epoch * trainer.plan.steps_per_epoch, "share": epoch / trainer.plan.epochs}
    best = {"best": 0.5, "best_epoch": epoch - 1, "seconds": 1.0, "bad_steps": 0}
    weights, training = trainer.average.model.state_dict(), {**trainer._state(), "progress": {**progress, **best}}
    description, settings = trainer.model.description, dump(trainer.settings)
    last = Checkpoint(description, ("red", "blue"), (0, 1), weights, settings, training=training)
    path = trainer.weights / "last.pt"
    new = resume.resumed_settings(last, path, resolve("train", {"resume": path, **given}))
    return prepare.prepare_training(new, description, Start(str(path), last), trainer.folder, path)


@pytest.mark.parametrize("epoch", [2, 20, 40, 55])
def test_another_batch_goes_on_at_the_same_share(dataset: Callable[..., Any], prepared: Prepared, epoch: int) -> None:
    """As from batch 16 to 64: a fourth of the steps an epoch."""
    many = dataset("many", train=16, val=1).yaml
    first = prepared(data=str(many), batch=1, epochs=60)
    again = resumed_at(first, epoch, batch=4)
    assert (first.plan.steps_per_epoch, again.plan.steps_per_epoch) == (16, 4)
    assert (again.progress.step, again.progress.share) == (4 * epoch, epoch / 60)
    last, following = first.plan.learning_rate(16 * epoch - 1), again.plan.learning_rate(4 * epoch)
    change = abs(following - again.plan.learning_rate(4 * epoch - 1))
    assert abs(following - last) <= change + 1e-4 * first.plan.lr0
    if epoch == 20:
        assert last == following == 0.003


def test_another_data_set_goes_on_at_the_same_share(dataset: Callable[..., Any], prepared: Prepared) -> None:
    first = prepared(epochs=60)  # 6 images, 2 steps
    again = resumed_at(first, 45, data=str(dataset("more", train=15, val=1).yaml))
    assert (again.plan.steps_per_epoch, again.progress.step) == (5, 225)
    last, following = first.plan.learning_rate(89), again.plan.learning_rate(225)
    assert last == pytest.approx(0.0015, rel=0.05)  # half way down the cosine
    # One step of the shorter run is as wide as several of the longer one.
    assert abs(following - last) < first.plan.learning_rate(89) - first.plan.learning_rate(90)


@pytest.mark.parametrize("steps", [None, 20])
def test_a_warm_up_goes_on_at_the_same_share(
    dataset: Callable[..., Any], prepared: Prepared, steps: int | None
) -> None:
    many = dataset("many", train=16, val=1).yaml
    first = prepared(data=str(many), batch=1, epochs=60, warmup_steps=steps)
    again = resumed_at(first, 1, batch=4)
    assert first.plan.warmup_steps == (steps or 25)
    assert again.plan.warmup_steps == (5 if steps else 7)
    assert again.settings.warmup_steps == again.plan.warmup_steps  # also for the resume after this
    assert again.settings.origins["warmup_steps"] == "restored"
    assert resumed_at(again, 2).plan.warmup_steps == again.plan.warmup_steps
    last = first.plan.learning_rate(15)
    assert last <= again.plan.learning_rate(4) <= last + 0.003 / again.plan.warmup_steps
    assert resumed_at(first, 1, batch=4, warmup_steps=9).plan.warmup_steps == 9  # as given now


@pytest.mark.parametrize("epochs", [60, 90])
def test_a_run_of_the_same_steps_goes_on_by_the_same_numbers(prepared: Prepared, epochs: int) -> None:
    first = prepared(epochs=60)
    again = resumed_at(first, 20, epochs=epochs)
    assert again.progress.step == 40
    assert again.progress.share == 20 / epochs
    assert again.settings.warmup_steps is None
    whole = prepared(epochs=epochs).plan
    assert [again.plan.learning_rate(s) for s in range(40, 2 * epochs)] == [
        whole.learning_rate(s) for s in range(40, 2 * epochs)
    ]


# ------------------------------------------------------------------------------------------------- files that are gone


def goes_on(trainer: Trainer, **given: Any) -> Trainer:
    """The run of `trainer` from its last.pt on."""
    last = trainer.weights / "last.pt"
    start = read_start(last)
    settings = resume.resumed_settings(start.checkpoint, last, resolve("train", {"resume": last, **given}))
    return prepare.prepare_training(settings, trainer.model.description, start, trainer.folder, last)


@pytest.mark.parametrize("spoilt", ["gone", pytest.param("cut short", marks=pytest.mark.long)])
def test_best_weights_that_are_gone_are_told_and_replaced_at_once(
    prepared: Prepared, spoilt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepared(epochs=2)
    first.run()
    best = first.weights / "best.pt"
    whole = best.read_bytes()
    best.unlink()
    if spoilt == "cut short":
        best.write_bytes(whole[:100])
    capsys.readouterr()
    again = goes_on(first, epochs=3)
    what = "is gone" if spoilt == "gone" else "cannot be read"
    told = f"warning: {best} {what}; the weights of epoch 2, the last whole one, take its place\n"
    assert capsys.readouterr().err == told
    new, last = checkpoints.load(best), checkpoints.load(first.weights / "last.pt")
    assert (new.epoch, new.metrics, new.training) == (1, last.metrics, None)
    assert all(torch.equal(value, last.weights[name]) for name, value in new.weights.items())
    assert (again.progress.best, again.progress.best_epoch) == (last.metrics["map"], 1)
    result = run_training(again)
    assert result.metrics is not None


def test_nothing_else_changes_where_the_best_was_the_last(prepared: Prepared) -> None:
    first = prepared(epochs=2, val=False)
    first.run()
    best = first.weights / "best.pt"
    before = checkpoints.load(best)
    best.unlink()
    random = goes_on(first, epochs=3)._state()["random"]
    after = checkpoints.load(best)
    assert (after.epoch, after.metrics) == (before.epoch, before.metrics)
    assert all(torch.equal(value, before.weights[name]) for name, value in after.weights.items())
    assert torch.equal(random, goes_on(first, epochs=3)._state()["random"])


def test_best_weights_that_go_during_the_run(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = prepared(epochs=2)
    trainer.run()
    (trainer.weights / "best.pt").unlink()
    (trainer.weights / "last.pt").unlink()
    trainer.run()  # there is nothing left to do
    result = run_training(trainer)
    assert result.best_epoch == 1
    assert checkpoints.load(result.best).epoch == 1
    assert "best.pt is gone; the weights of epoch 2" in capsys.readouterr().err


def test_a_run_without_its_last_weights(prepared: Prepared) -> None:
    trainer = prepared(epochs=1, val=False)
    trainer.run()
    (trainer.weights / "last.pt").unlink()
    told = r"resume: .*weights/last\.pt is gone, .*gfldet train model=.*weights/best\.pt starts another from the best"
    for given in (trainer.folder, trainer.weights / "last.pt", trainer.weights):
        with pytest.raises(CheckpointError, match=told):
            resume.find_resume(train_settings(resume=given))
