"""What a run is made of: which checkpoint `resume` means, which settings go on, what is refused before any work."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from gfldet.config.load import dump, resolve
from gfldet.config.schema import TrainSettings
from gfldet.data.draw import NO_AUGMENTATION
from gfldet.data.records import Record, Split
from gfldet.data.sample import Sample
from gfldet.errors import CheckpointError, ConfigError, DataError, OutputError
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.ops import letterbox
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint
from gfldet.train import prepare, resume
from gfldet.train.events import Observer, Observers
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]


# ------------------------------------------------------------------------------------------- which run goes on


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
    """A checkpoint as a run leaves it: `epoch` epochs done, the best of them `best`; settings as given."""

    def make(epoch: int = 3, best: int = 2, **settings: Any) -> Checkpoint:
        progress = {"epoch": epoch, "step": 6, "best": 0.5, "best_epoch": best, "seconds": 1.0, "bad_steps": 0}
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
    assert go_on(stopped(augment=print), augment=max).augment is max
    assert go_on(stopped(freeze=[1, 2]), freeze=[1, 2]).freeze == (1, 2)


def test_weights_alone_do_not_go_on(stopped: Callable[..., Checkpoint]) -> None:
    with pytest.raises(CheckpointError, match=r"last\.pt holds weights alone; resume from the last\.pt of a run"):
        go_on(replace(stopped(), training=None))


def test_a_run_goes_on_with_its_own_classes_only(prepared: Prepared, dataset: Callable[..., Any]) -> None:
    trainer = prepared(epochs=3)
    trainer.run()
    last = trainer.weights / "last.pt"
    other = dataset("other").yaml
    other.write_text(other.read_text().replace("red, blue", "cat, dog"))
    settings = resolve("train", {**dump(trainer.settings), "epochs": 5, "data": other})
    with pytest.raises(DataError, match=r"resume: the run has the classes \['red', 'blue'\], .* has \['cat', 'dog'\]"):
        prepare.prepare_training(settings, trainer.model.description, checkpoints.load(last), last)


def test_a_run_folder_that_cannot_be_written(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = prepared(epochs=1)
    trainer.run()
    last = trainer.weights / "last.pt"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=r"weights: no permission to write in .*weights"):
        prepare.prepare_training(trainer.settings, trainer.model.description, checkpoints.load(last), last)


def test_what_is_set_for_the_rest_of_a_run_counts(prepared: Prepared) -> None:
    trainer = prepared(optimizer="adamw", weight_decay=0.1, momentum=0.9, bn_momentum=0.1)
    trainer.run()
    last = trainer.weights / "last.pt"
    changed = {"epochs": 3, "weight_decay": 0.2, "momentum": 0.7, "bn_momentum": 0.4, "ema_decay": 0.5, "lr0": 0.01}
    settings = resolve("train", {**dump(trainer.settings), **changed})
    again = prepare.prepare_training(settings, trainer.model.description, checkpoints.load(last), last)
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
    return prepare.prepare_training(new, description, last, path)


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


# --------------------------------------------------------------------------------------------- before the first step


def test_a_run_is_ready(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = prepared(verbose=True, epochs=7, lr0=0.004)
    folder = trainer.weights.parent
    assert sorted(path.name for path in folder.iterdir()) == ["args.yaml", "weights"]
    text = (folder / "args.yaml").read_text()
    saved = yaml.safe_load(text)
    assert (saved["epochs"], saved["lr0"], saved["imgsz"]) == (7, 0.004, 64)
    assert f"# warmup_steps = {trainer.plan.warmup_steps}\n" in text
    again = resolve("train", {"cfg": folder / "args.yaml"})
    assert replace(again, origins={}) == replace(trainer.settings, origins={})
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "train: 6 images, 9 boxes, 2 classes; kept in memory"
    assert out[2].startswith(f"tiny: {trainer.model.parameter_count():,} parameters, strides (8, 32), reg_max 8; 64x")
    assert out[3].startswith("plan: 7 epochs x 2 steps; muon lr0 0.004, weight decay 1, warm-up 2 steps; no mosaic")
    assert out[4] == f"writing to {folder}"
    assert len(out) == 5  # the table begins when there is something in it


@pytest.mark.parametrize(
    ("cache", "told"), [("none", "read anew each time"), ("ram", "kept in memory"), ("auto", "kept in memory")]
)
def test_where_images_are_kept(prepared: Prepared, cache: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = prepared(verbose=True, cache=cache)
    assert f"2 classes; {told}\n" in capsys.readouterr().out
    assert bool(trainer.train.store._kept) == (cache != "none")


def test_augmentation_as_set(prepared: Prepared) -> None:
    def mine(sample: Sample, rng: np.random.Generator) -> Sample:
        return sample

    augmentation = prepared(mosaic=0.3, hsv_h=0.1, degrees=7, flipud=0.2).train.augmentation
    assert (augmentation.mosaic, augmentation.hsv_h, augmentation.degrees) == (0.3, 0.1, 7)
    assert (augmentation.flipud, augmentation.fliplr) == (0.2, 0.5)
    assert prepared(augment="none", mosaic=1).train.augmentation == NO_AUGMENTATION
    trainer = prepared(augment=mine, epochs=1)
    assert trainer.train.custom is mine
    trainer.run()
    assert "mine>" in checkpoints.load(trainer.weights / "best.pt").settings["augment"]


def test_biases_start_from_the_prior_and_the_boxes(prepared: Prepared) -> None:
    trainer = prepared(prior=0.2)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        decoded, _ = trainer.model.eval()(x)
    scores = decoded[0, 4:]
    assert 0.1 < float(scores.mean()) < 0.35
    assert trainer.plan.half_side is not None


def test_pretrained_weights_are_taken_over(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    first = prepared(epochs=1)
    first.run()
    capsys.readouterr()
    second = prepared(seed=5, pretrained=first.weights / "best.pt", verbose=True)
    best = checkpoints.load(first.weights / "best.pt").weights
    assert all(torch.equal(value, best[name]) for name, value in second.model.state_dict().items())
    assert f"weights: {len(best)} tensors taken over\n" in capsys.readouterr().out


def test_validation_without_truths_is_told(
    dataset: Callable[..., Any], quick: dict[str, Any], tiny: Description, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = dataset()
    for label in (drawn.yaml.parent / "labels" / "val").iterdir():
        label.write_text("")
    settings = resolve("train", {**quick, "epochs": 3, "data": drawn.yaml})
    trainer = prepare.prepare_training(settings, tiny, None, None)
    assert capsys.readouterr().err == (
        "warning: val: no boxes, so there is no AP to go by; the weights of the last epoch count as the best\n"
    )
    assert trainer.run().best_epoch == 2


def test_sizes_that_the_levels_do_not_divide(tiny: Description) -> None:
    model = DetectionModel(tiny)
    letterbox.check_frame((64, 96), model.multiple, training=True)
    letterbox.check_frame((32, 32), model.multiple)
    with pytest.raises(ConfigError, match="imgsz: 64 x 80 px; the sides must be multiples of 32 for this model"):
        letterbox.check_frame((64, 80), model.multiple)
    with pytest.raises(ConfigError, match="imgsz: 32 x 32 px is too small to train on; give at least 64"):
        letterbox.check_frame((32, 32), model.multiple, training=True)


def test_boxes_beyond_the_bins_are_told(tiny: Description, capsys: pytest.CaptureFixture[str]) -> None:
    model = DetectionModel(tiny)  # 8 bins at stride 32: (2 x 7 - 1) x 32 = 416 px
    nothing = np.zeros((0, 4), np.float32)

    def split(*boxes: tuple[float, ...]) -> Split:
        truths = np.array(boxes, np.float32).reshape(-1, 4)
        classes = np.zeros(len(boxes), np.int64)
        return Split("train", (Record(Path("x"), 0, "x", 500, 400, truths, classes, nothing),), ("a", "b"), (0, 1))

    prepare.warn_of_reach(model, split((0, 0, 416, 10)), (400, 500))
    prepare.warn_of_reach(model, split(), (400, 500))
    assert capsys.readouterr().err == ""
    prepare.warn_of_reach(model, split((0, 0, 448, 10), (0, 0, 10, 209), (0, 0, 9, 9), (0, 0, 5, 5)), (800, 1000))
    assert capsys.readouterr().err == (
        "warning: 2 of 4 boxes (50.0%) are larger than the 416 px that reg_max=8 can express at this imgsz; "
        "set reg_max=16 (or 1, for sides without bins), or a smaller imgsz\n"
    )


# ------------------------------------------------------------------------------------- heads, losses and assigners


def test_settings_choose_the_head(prepared: Prepared) -> None:
    trainer = prepared(reg_max=6, dgqp=True, end2end=True)
    assert trainer.model.reg_max == 6
    assert trainer.model.end2end
    assert trainer.model.head.one_to_one.quality is not None  # type: ignore[union-attr]
    assert trainer.model.description.to_dict()["end2end"] is True
    assert prepared().model.reg_max == 8  # the model's own


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dgqp": True, "reg_max": 3}, ["dgqp=true with reg_max=3", "set reg_max to 4 or more"]),
        ({"dgqp": True, "cls_loss": "focal"}, ["dgqp=true with cls_loss=focal", "no quality to learn"]),
        ({"end2end": True, "assigner": "atss"}, ["end2end=true with assigner=atss", "set assigner=tal"]),
        ({"end2end": True, "assigner": "tal-after-atss"}, ["end2end=true with assigner=tal-after-atss"]),
        ({"reg_max": 1, "dfl": 1.5}, ["dfl=1.5 with reg_max=1", "has no DFL"]),
        (
            {"dgqp": True, "reg_max": 1, "cls_loss": "ohem", "end2end": True, "assigner": "fcos"},
            ["dgqp=true with reg_max=1", "dgqp=true with cls_loss=ohem", "end2end=true with assigner=fcos"],
        ),
    ],
)
def test_choices_without_sense_are_refused_all_at_once(
    prepared: Prepared, settings: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(**settings)
    assert all(part in str(caught.value) for part in told)


def test_a_run_of_two_assigners_changes_after_a_third(prepared: Prepared) -> None:
    from gfldet.assigners import ATSSAssigner, TaskAlignedAssigner

    trainer = prepared(assigner="tal-after-atss", epochs=3, val=False)
    seen = []

    class Watch(Observer):
        def step(self, report: Any) -> None:
            seen.append(type(trainer.model.criterion.assigner))

        def warn(self, message: str) -> None:
            pytest.fail(message)

    trainer.observers = Observers((Watch(),))
    assert trainer.plan.tal_epoch == 1
    trainer.run()
    assert seen == [ATSSAssigner] * 2 + [TaskAlignedAssigner] * 4


def test_a_resumed_run_takes_up_its_second_assigner(prepared: Prepared) -> None:
    from gfldet.assigners import TaskAlignedAssigner

    trainer = prepared(assigner="tal-after-atss", epochs=3, val=False)
    trainer.progress.epoch = 2
    saved = trainer._state()
    again = prepared(assigner="tal-after-atss", epochs=3, val=False)
    again.restore(
        Checkpoint(again.model.description, ("red", "blue"), (0, 1), again.average.model.state_dict(), training=saved)
    )
    assert isinstance(again.model.criterion.assigner, TaskAlignedAssigner)


@pytest.mark.parametrize("name", ["reg_max", "dgqp", "end2end"])
def test_a_run_cannot_go_on_with_another_head(prepared: Prepared, name: str, tmp_path: Path) -> None:
    trainer = prepared(epochs=1, val=False)
    trainer.run()
    path = trainer.weights / "last.pt"
    value = {"reg_max": 4, "dgqp": True, "end2end": True}[name]
    given = resolve("train", {"epochs": 2, name: value})
    with pytest.raises(ConfigError, match=f"resume: {name}={value}, but the run has {name}=None"):
        resume.resumed_settings(checkpoints.load(path), path, given)


def test_a_single_full_frame_box_is_told_and_then_reached(
    tiny: Description, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the warning suggests is enough: with it there is no warning any more, and not one bin less."""
    nothing = np.zeros((0, 4), np.float32)
    full = np.array([[0, 0, 1280, 1280]], np.float32)
    split = Split(
        "train", (Record(Path("x"), 0, "x", 1280, 1280, full, np.zeros(1, np.int64), nothing),), ("a", "b"), (0, 1)
    )
    prepare.warn_of_reach(DetectionModel(replace(tiny, reg_max=16)), split, (1280, 1280))
    told = capsys.readouterr().err
    assert "1 of 1 boxes (100.0%) are larger than the 928 px" in told
    assert "set reg_max=22" in told
    prepare.warn_of_reach(DetectionModel(replace(tiny, reg_max=22)), split, (1280, 1280))
    prepare.warn_of_reach(DetectionModel(replace(tiny, reg_max=1)), split, (1280, 1280))
    assert capsys.readouterr().err == ""
    prepare.warn_of_reach(DetectionModel(replace(tiny, reg_max=21)), split, (1280, 1280))
    assert "reg_max=22" in capsys.readouterr().err
