"""What a run is made of, and what is refused before any work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from gfldet.config.load import resolve
from gfldet.data.draw import NO_AUGMENTATION
from gfldet.data.findings import findings_of_reach
from gfldet.data.load import tell_findings
from gfldet.data.records import Record, Split
from gfldet.data.sample import Sample
from gfldet.errors import ConfigError, UserError
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.ops import letterbox
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint
from gfldet.train import checks, prepare, resume
from gfldet.train.events import Observer, Observers
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]


def warn_of_reach(model: DetectionModel, split: Split, frame: tuple[int, int]) -> None:
    """What a run tells of boxes beyond the bins."""
    tell_findings(findings_of_reach(split, frame, checks.reach_of_model(model)))


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


def test_a_run_keeps_the_depth_of_its_16_bit_images(
    prepared: Prepared, dataset: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dataset("deep").yaml.parent
    for number, image in enumerate(sorted(folder.rglob("*.png"))):
        grey = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE).astype(np.uint16)
        cv2.imwrite(str(image), grey << (4 if number else 2))  # 12 bits, and one frame of 10
    trainer = prepared(data=str(folder / "data.yaml"))
    assert trainer.settings.sample_bits == 12
    assert {record.bits for record in (*trainer.train.split.records, *trainer.val.split.records)} == {12}
    assert "use 12 bits or fewer" in capsys.readouterr().err
    assert yaml.safe_load((trainer.weights.parent / "args.yaml").read_text())["sample_bits"] == 12
    assert prepared().settings.sample_bits is None


@pytest.mark.parametrize(
    ("cache", "told"), [("none", "read again each time"), ("ram", "kept in memory"), ("auto", "kept in memory")]
)
def test_where_images_are_kept(prepared: Prepared, cache: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = prepared(verbose=True, cache=cache)
    assert f"2 classes; {told}\n" in capsys.readouterr().out
    assert bool(trainer.train.store._there.any()) == (cache != "none")


def test_augmentation_as_set(prepared: Prepared) -> None:
    def mine(sample: Sample, rng: np.random.Generator) -> Sample:
        return sample

    augmentation = prepared(mosaic=0.3, hsv_h=0.1, degrees=7, flipud=0.2).train.augmentation
    assert (augmentation.mosaic, augmentation.hsv_h, augmentation.degrees) == (0.3, 0.1, 7)
    assert (augmentation.flipud, augmentation.fliplr) == (0.2, 0.5)
    assert prepared(augment="none", mosaic=1).train.augmentation == NO_AUGMENTATION
    trainer = prepared(augment=mine, epochs=1, mosaic=0.3)
    assert (trainer.train.custom, trainer.train.custom_at) == (mine, "instead")
    assert trainer.train.augmentation == NO_AUGMENTATION
    for place in ("before", "after"):
        beside = prepared(augment=mine, augment_at=place, mosaic=0.3).train
        assert (beside.custom, beside.custom_at, beside.augmentation.mosaic) == (mine, place, 0.3)
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
    assert f"a checkpoint of gfldet for tiny\n  {len(best)} tensors taken over: everything\n" in capsys.readouterr().out


def test_validation_without_truths_is_told(
    dataset: Callable[..., Any], quick: dict[str, Any], tiny: Description, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = dataset()
    for label in (drawn.yaml.parent / "labels" / "val").iterdir():
        label.write_text("")
    settings = resolve("train", {**quick, "epochs": 3, "data": drawn.yaml})
    trainer = prepare.prepare_training(settings, tiny, None, drawn.yaml.parent)
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

    warn_of_reach(model, split((0, 0, 416, 10)), (400, 500))
    warn_of_reach(model, split(), (400, 500))
    assert capsys.readouterr().err == ""
    warn_of_reach(model, split((0, 0, 448, 10), (0, 0, 10, 209), (0, 0, 9, 9), (0, 0, 5, 5)), (800, 1000))
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
    warn_of_reach(DetectionModel(replace(tiny, reg_max=16)), split, (1280, 1280))
    told = capsys.readouterr().err
    assert "1 of 1 box (100.0%) is larger than the 928 px" in told
    assert "set reg_max=22" in told
    warn_of_reach(DetectionModel(replace(tiny, reg_max=22)), split, (1280, 1280))
    warn_of_reach(DetectionModel(replace(tiny, reg_max=1)), split, (1280, 1280))
    assert capsys.readouterr().err == ""
    warn_of_reach(DetectionModel(replace(tiny, reg_max=21)), split, (1280, 1280))
    assert "reg_max=22" in capsys.readouterr().err


# --------------------------------------------------------------------------------- refused before an image is read


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"imgsz": 32}, "imgsz: 32 x 32 px is too small to train on; give at least 64"),
        ({"freeze": 99}, "freeze: layer 5 is not there"),
        ({"class_weights": [1, 2, 3]}, "class_weights: 3 numbers for 2 classes (red, blue); give one each"),
        ({"pretrained": "gone.pt"}, "gone.pt: no such file"),
        ({"pretrained": "imagenet"}, "pretrained=imagenet: torchvision's weights fit models on a ResNet alone"),
        ({"pretrained": "OTHER"}, "of which 0% fit tiny"),
        ({"evaluator": "pycocotools"}, "evaluator=pycocotools needs the package pycocotools"),
        ({"dgqp": True, "reg_max": 3}, "dgqp=true with reg_max=3"),
    ],
)
def test_what_settings_tell_is_refused_before_images_are_read(
    dataset: Callable[..., Any],
    quick: dict[str, Any],
    tiny: Description,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    told: str,
) -> None:
    monkeypatch.setattr(prepare, "load_images", lambda *given: pytest.fail("an image was read"))
    monkeypatch.setitem(sys.modules, "pycocotools", None)  # as if it were not installed
    checkpoints.save(tmp_path / "other.pt", Checkpoint(tiny, ("red",), (0,), {"elsewhere": torch.zeros(9)}))
    given = {k: str(tmp_path / "other.pt") if v == "OTHER" else v for k, v in settings.items()}
    resolved = resolve("train", {**quick, "data": str(dataset().yaml), **given})
    with pytest.raises(UserError) as caught, prepare.run_folder(resolved, None) as folder:
        prepare.prepare_training(resolved, tiny, None, folder)
    assert told in str(caught.value)
    assert not Path(resolved.project).exists()


def test_pretrained_weights_and_biases_by_the_boxes(prepared: Prepared, tmp_path: Path) -> None:
    """What the weights bring stays; what they lack starts as it would without them."""
    fresh = prepared(seed=3).model.state_dict()
    part = {name: value + 1 for name, value in fresh.items() if not name.endswith("bias")}
    description = prepared().model.description
    checkpoints.save(tmp_path / "part.pt", Checkpoint(description, ("red", "blue"), (0, 1), part))
    model = prepared(seed=3, pretrained=tmp_path / "part.pt").model
    for name, value in model.state_dict().items():
        assert torch.equal(value, part.get(name, fresh[name])), name


@pytest.mark.parametrize(
    ("wanted", "taken", "told"),
    [(0, 1, "1 thread of 4 cores, since other programs are busy"), (0, 4, "4 threads"), (1, 1, "1 thread")],
)
def test_the_plan_tells_the_threads(monkeypatch: pytest.MonkeyPatch, wanted: int, taken: int, told: str) -> None:
    monkeypatch.setattr(prepare, "part_of", lambda processes: lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: taken)
    assert prepare._threads(wanted, 1) == told
