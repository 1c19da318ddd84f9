"""The loop: what one step does by hand, what a bad step must not do, and when a run stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gfldet import cli
from gfldet.data.processes import can_fork
from gfldet.data.train_set import TrainSet
from gfldet.errors import ConfigError, WorkError
from gfldet.losses.detection import LossItems, v8DetectionLoss
from gfldet.nn.heads import EndToEnd
from gfldet.opening import fresh
from gfldet.store import checkpoint as checkpoints
from gfldet.train import trainer as trainers
from gfldet.train.events import ITEMS, Observer, Observers
from gfldet.train.muon import Muon
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]


def first_batch(trainer: Trainer, epoch: int = 0) -> Any:
    return next(iter(trainer._batches(epoch)))


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Everything that a step may change, copied."""
    kept: dict[str, Any] = {f"model {name}": value.clone() for name, value in trainer.model.state_dict().items()}
    kept |= {f"average {name}": value.clone() for name, value in trainer.average.model.state_dict().items()}
    for number, values in trainer.optimizer.state_dict()["state"].items():
        kept |= {f"optimizer {number} {name}": torch.as_tensor(value).clone() for name, value in values.items()}
    return kept


def differing(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


class Watch(Observer):
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.reports: list[Any] = []
        self.warnings: list[str] = []

    def step(self, report: Any) -> None:
        self.batches.append((report.epoch, report.number))

    def epoch(self, report: Any) -> None:
        self.reports.append(report)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def spoil(trainer: Trainer, bad: Callable[[int], bool], how: Callable[[Tensor, nn.Module], Tensor]) -> None:
    """Let the criterion of the steps (from 0) that `bad` names return a total changed by `how`."""
    criterion, step = trainer.model.criterion, iter(range(10**6))

    def spoiled(maps: Any, batch: Any) -> LossItems:
        found = criterion(maps, batch)
        return LossItems(how(found.total, trainer.model), found.items) if bad(next(step)) else found

    trainer.model.criterion = spoiled


def nan_gradient(total: Tensor, model: nn.Module) -> Tensor:
    """As large as before, but its gradient is not a number."""
    return total + (0 * next(model.parameters()).flatten()[0]).abs().sqrt()


BAD_WAYS = {
    "nan": lambda total, model: total * float("nan"),
    "inf": lambda total, model: total * float("inf"),
    "gradient": nan_gradient,
}


@pytest.mark.parametrize("way", BAD_WAYS)
def test_a_step_that_is_not_finite_leaves_no_trace(prepared: Prepared, way: str) -> None:
    trainer, watch = prepared(), Watch()
    trainer.observers = Observers((watch,))
    trainer.model.train()
    batch = first_batch(trainer)
    assert trainer._step(batch) is not None
    before = state_of(trainer)
    spoil(trainer, lambda step: step == 0, BAD_WAYS[way])
    assert trainer._step(batch) is None
    assert differing(before, state_of(trainer)) == set()
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    images = ", ".join(batch.files)
    assert watch.warnings == [f"step 2: loss or gradient not finite; step left out; images: {images}"]
    assert trainer.progress.bad_steps == 1
    assert trainer._step(batch) is not None
    assert trainer.progress.bad_steps == 0
    assert len(differing(before, state_of(trainer))) > 50


def _head(trainer: Trainer) -> Any:
    head = trainer.model.head
    return head.one_to_many if isinstance(head, EndToEnd) else head


def spoil_weight(trainer: Trainer, value: float) -> None:
    next(trainer.model.parameters()).data[0, 0, 0, 0] = value


def spoil_class_bias(trainer: Trainer, value: float) -> None:
    _head(trainer).cls[0][-1].bias.data[0] = value


def spoil_box_bias(trainer: Trainer, value: float) -> None:
    _head(trainer).box[0][-1].bias.data[:] = value


@pytest.mark.parametrize(
    ("spoiled", "value"),
    [
        *((spoil_weight, value) for value in (math.nan, -math.inf)),
        *((spoil_class_bias, value) for value in (math.nan, math.inf)),  # at -inf a score is 0, which is a number
        *((spoil_box_bias, value) for value in (math.nan, -math.inf)),
        *(pytest.param(spoil, math.inf, marks=pytest.mark.long) for spoil in (spoil_weight, spoil_box_bias)),
    ],
)
@pytest.mark.parametrize(
    ("assigner", "end2end"),
    [
        ("tal", False),
        pytest.param("atss", False, marks=pytest.mark.long),
        pytest.param("tal", True, marks=pytest.mark.long),
    ],
)
def test_a_model_that_is_spoilt_ends_the_run(
    prepared: Prepared, spoiled: Callable[[Trainer, float], None], value: float, assigner: str, end2end: bool
) -> None:
    """Every step is left out, with its images, and the fifth in a row ends the run: no loop waits for a number."""
    trainer, watch = prepared(assigner=assigner, end2end=end2end, epochs=5), Watch()
    trainer.observers = Observers((watch,))
    spoiled(trainer, value)
    with pytest.raises(WorkError, match=r"5 steps in a row were not finite, the last at step 5 with .*\.png"):
        trainer.run()
    assert len(watch.warnings) == 5
    assert not list(trainer.weights.glob("*.pt")) or trainer.progress.epoch > 0


@pytest.mark.long
@pytest.mark.parametrize("assigner", ["tal", "fcos"])
def test_gains_and_rates_beyond_all_measure_end(prepared: Prepared, assigner: str) -> None:
    """The model blows up; whether the run then ends by an error or by its epochs, it ends, and its files are whole."""
    wild = {"optimizer": "sgd", "lr0": 1, "warmup_steps": 0, "grad_clip": 0, "box": 1e6, "cls": 1e6}
    trainer = prepared(**wild, assigner=assigner, epochs=8, val=False, amp="off")
    with suppress(WorkError):
        trainer.run()
    for path in trainer.weights.glob("*.pt"):
        checkpoints.load(path)


def test_gradients_that_stay_infinite_end_the_run_in_half_precision_too(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scaler lowers its scale at each; when that is at its end, the gradient is infinite by itself."""
    monkeypatch.setattr(trainers, "mixed_precision", lambda *_: torch.float16)
    trainer, watch = prepared(epochs=40, val=False), Watch()
    trainer.observers = Observers((watch,))
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    spoil(trainer, lambda step: True, lambda total, model: total + (0 * next(model.parameters()).flatten()[0]).sqrt())
    with pytest.raises(WorkError, match="5 steps in a row were not finite, the last at step 9"):
        trainer.run()
    assert len(watch.warnings) == 5


def test_maps_one_pixel_wide_are_computed_in_float32(prepared: Prepared) -> None:
    assert prepared(imgsz=(64, 32), amp="on").precision is None  # strides of up to 32
    assert prepared(imgsz=64, amp="on").precision is torch.bfloat16


def test_no_gradient_is_left_unwritten(prepared: Prepared) -> None:
    """In bfloat16 a CPU does not write that of the convolution from a 1 x 1 map, so what was freed there shows."""
    trainer = prepared(description=fresh("retinanet-r18").description, imgsz=64, amp="on")
    batch = first_batch(trainer)
    for _ in range(3):
        freed = [torch.full((2**21,), math.nan) for _ in range(10)]
        del freed
        assert trainer._step(batch) is not None


def test_a_pixel_that_is_no_number_costs_its_step_alone(prepared: Prepared) -> None:
    trainer = prepared()
    trainer.model.train()
    batch = first_batch(trainer)
    before, pixel = (
        state_of(trainer),
        trainer.model.graph.layers[0].register_forward_pre_hook(
            lambda module, given: (given[0].masked_fill(given[0] == given[0].amax(), float("nan")),)
        ),
    )
    assert trainer._step(batch) is None
    pixel.remove()
    assert differing(before, state_of(trainer)) == set()
    assert trainer._step(batch) is not None


@pytest.mark.long
def test_threads_of_the_model_repeat_to_the_bit(prepared: Prepared) -> None:
    states = []
    for _ in range(2):
        trainer = prepared()
        trainer.model.train()
        torch.set_num_threads(2)
        try:
            assert trainer._step(first_batch(trainer)) is not None
        finally:
            torch.set_num_threads(1)
        states.append(state_of(trainer))
    assert differing(*states) == set()


@pytest.mark.skipif(not can_fork(), reason="this system does not fork")
def test_processes_give_the_same_run(prepared: Prepared) -> None:
    states = []
    for processes in (False, True):
        trainer = prepared(epochs=2, val=False, workers=2)
        trainer.by_processes = processes
        trainer.run()
        states.append(state_of(trainer))
    assert differing(*states) == set()


def test_bad_steps_do_not_spoil_the_run(prepared: Prepared) -> None:
    trainer, watch = prepared(epochs=3, val=False), Watch()
    trainer.observers = Observers((watch,))
    spoil(trainer, lambda step: step in (1, 2, 3), BAD_WAYS["nan"])  # the second epoch has none but these
    trainer.run()
    assert len(watch.warnings) == 3
    first, second, third = (report.losses["box"] for report in watch.reports)
    assert first == first
    assert second != second  # no step, no mean
    assert third == third
    assert all(value.isfinite().all() for value in checkpoints.load(trainer.weights / "best.pt").weights.values())


def test_bad_steps_in_a_row_stop_the_run(prepared: Prepared) -> None:
    trainer = prepared(epochs=9, val=False)
    spoil(trainer, lambda step: step >= 2, BAD_WAYS["nan"])
    told = r"5 steps in a row were not finite, the last at step 7 with \d+\.png.*; the weights of the last whole epoch"
    with pytest.raises(WorkError, match=told):
        trainer.run()
    last = checkpoints.load(trainer.weights / "last.pt")
    assert last.epoch == 2
    assert all(value.isfinite().all() for value in last.weights.values())


def test_bad_steps_from_the_start_exit_with_1(
    dataset: Callable[..., Any],
    quick: dict[str, Any],
    tiny_yaml: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = v8DetectionLoss.__call__
    monkeypatch.setattr(
        v8DetectionLoss, "__call__", lambda *args: LossItems(call(*args).total * float("nan"), torch.zeros(3))
    )
    settings = {**quick, "batch": 1, "data": dataset().yaml, "model": tiny_yaml}
    assert cli.main(["train", *(f"{name}={value}" for name, value in settings.items())]) == 1
    *warnings, last = capsys.readouterr().err.splitlines()
    assert len(warnings) == 5
    assert last.startswith("gfldet: the work failed: 5 steps in a row were not finite, the last at step 5 with 00")
    assert last.endswith("Try a lower lr0 or amp=off")
    assert "last.pt" not in last  # there is none yet


def test_half_precision_goes_on_after_a_bad_step(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers, "mixed_precision", lambda *_: torch.float16)
    trainer = prepared()
    assert trainer.scaler.is_enabled()
    trainer.model.train()
    batch = first_batch(trainer)
    before = trainer.scaler.get_scale()
    spoil(trainer, lambda step: step == 1, BAD_WAYS["nan"])
    steps = [trainer._step(batch) is not None for _ in range(4)]
    assert steps == [True, False, True, True]
    assert trainer.scaler.get_scale() <= before / 2


def test_bfloat16_on_a_cpu_trains(prepared: Prepared) -> None:
    trainer, watch = prepared(amp="on", epochs=1), Watch()
    trainer.observers = Observers((watch,))
    trainer.run()
    assert watch.warnings == []
    assert all(value == value for value in watch.reports[0].losses.values())


# ------------------------------------------------------------------------------------------------- the optimiser


@pytest.mark.parametrize(("name", "kind"), [("muon", Muon), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_decay_on_filters_alone(prepared: Prepared, name: str, kind: type) -> None:
    trainer = prepared(optimizer=name, weight_decay=0.3, momentum=0.8)
    assert isinstance(trainer.optimizer, kind)
    owner = {id(parameter): n for n, parameter in trainer.model.named_parameters()}
    groups = [
        ({owner[id(p)] for p in group["params"]}, group["weight_decay"]) for group in trainer.optimizer.param_groups
    ]
    assert {decay for _, decay in groups} == {0.3, 0.0}
    decayed, plain = (set().union(*(n for n, decay in groups if (decay > 0) == wanted)) for wanted in (True, False))
    assert {n for n in decayed if not n.endswith("weight") or ".bn." in n} == set()
    assert {n for n in plain if not n.endswith("bias") and ".bn." not in n} == set()
    trained = {n for n, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert decayed | plain == trained
    assert not decayed & plain
    for group in trainer.optimizer.param_groups:
        assert (group["betas"][0] if name == "adamw" else group["momentum"]) == 0.8


def test_rate_of_each_step_is_the_plans(prepared: Prepared) -> None:
    trainer = prepared(epochs=4, warmup_steps=3, val=False)
    rates = []
    step = trainer.optimizer.step
    trainer.optimizer.step = lambda: (rates.append(trainer.optimizer.param_groups[1]["lr"]), step())  # type: ignore
    trainer.run()
    assert rates == [trainer.plan.learning_rate(s) for s in range(8)]
    assert rates[0] == pytest.approx(trainer.plan.lr0 / 3)


def test_muon_s_matrices_are_the_filters_that_predict_nothing(prepared: Prepared) -> None:
    trainer = prepared(optimizer="muon")
    owner = {id(parameter): n for n, parameter in trainer.model.named_parameters()}
    by_kind = [{owner[id(p)] for p in group["params"]} for group in trainer.optimizer.param_groups]
    assert [group["matrices"] for group in trainer.optimizer.param_groups] == [True, False, False]
    head = "graph.layers.4"
    assert by_kind[1] == {f"{head}.{part}.{level}.2.weight" for part in ("box", "cls") for level in (0, 1)}
    assert all(name.endswith("conv.weight") for name in by_kind[0])


@pytest.mark.parametrize("clip", [0.01, 0.0])
def test_gradient_is_clipped_to_the_norm(prepared: Prepared, clip: float) -> None:
    trainer = prepared(optimizer="sgd", momentum=0, weight_decay=0, lr0=0.5, warmup_steps=0, grad_clip=clip, amp="off")
    trainer.model.train()
    before = [p.clone() for p in trainer.model.parameters() if p.requires_grad]
    total, _ = trainer.model(first_batch(trainer).to(trainer.device))
    total.backward()
    full = torch.stack([p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]).norm()
    trainer.optimizer.zero_grad()
    trainer._step(first_batch(trainer))
    after = [p for p in trainer.model.parameters() if p.requires_grad]
    moved = torch.stack([(a - b).norm() for a, b in zip(before, after, strict=True)]).norm()
    torch.testing.assert_close(moved, 0.5 * (torch.tensor(clip) if clip else full), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("layers", "frozen"), [(2, {0, 1}), ([0, 3], {0, 3})])
def test_frozen_layers_keep_weights_and_statistics(prepared: Prepared, layers: Any, frozen: set[int]) -> None:
    trainer = prepared(freeze=layers, epochs=1)
    before = state_of(trainer)
    trainer.run()
    moved = {name.split()[1].split(".")[2] for name in differing_models(before, state_of(trainer))}
    assert moved == {str(n) for n in range(5)} - {str(n) for n in frozen}


def differing_models(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    """Names of the weights and statistics, of the model or of its average, that changed."""
    return {name for name in a if not name.startswith("optimizer") and not torch.equal(a[name], b[name])}


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        (6, r"freeze: layer 5 is not there; the model has layers 0 to 4"),
        ([99], "freeze: layer 99 is not there"),
        (5, "freeze: nothing is left to train"),
    ],
)
def test_freezing_what_cannot_be(prepared: Prepared, layers: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        prepared(freeze=layers)


def test_momentum_of_the_statistics(prepared: Prepared) -> None:
    norms = [m for m in prepared(bn_momentum=0.03).model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.03}


# ------------------------------------------------------------------------------------------------------ the epochs


def test_mosaic_closes_for_the_last_epochs(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    chances: dict[int, set[tuple[float, float]]] = {}
    load = TrainSet.load

    def watched(self: TrainSet, key: Any, augmentation: Any = None) -> Any:
        chances.setdefault(key[0], set()).add((augmentation.mosaic, augmentation.mixup))
        return load(self, key, augmentation)

    monkeypatch.setattr(TrainSet, "load", watched)
    prepared(epochs=4, close_mosaic=2, mosaic=0.75, mixup=0.25, val=False).run()
    assert chances == {0: {(0.75, 0.25)}, 1: {(0.75, 0.25)}, 2: {(0, 0)}, 3: {(0, 0)}}


def scripted(trainer: Trainer, aps: list[float]) -> Watch:
    """Let validation give these AP, one an epoch, and training be skipped."""
    watch, values = Watch(), iter(aps)
    names = ("map50", "map75", "precision", "recall")
    trainer._validate = lambda: SimpleNamespace(map=next(values), **dict.fromkeys(names, 0.0))  # type: ignore
    trainer._train_epoch = lambda epoch, batches: dict.fromkeys(ITEMS, 0.0)  # type: ignore[method-assign]
    trainer.observers = Observers((watch,))
    return watch


NAN = float("nan")


@pytest.mark.parametrize(
    ("patience", "aps", "epochs", "best"),
    [
        (2, [0.5, 0.4, 0.3, 0.9], 3, 0),
        (2, [0.1, 0.0, 0.2, 0.2, 0.2, 0.9], 5, 4),  # of equals the last is the best, but patience wants better
        (3, [0.0, 0.0, 0.0, 0.0, 0.5, 0.5], 4, 3),
        pytest.param(4, [0.0, 0.0, 0.0, 0.0, 0.5, 0.5], 6, 5, marks=pytest.mark.long),
        (1, [0.1, 0.2, 0.1, 0.9, 0.9, 0.9], 3, 1),
        (0, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 6, 0),
        (2, [NAN, NAN, NAN, NAN, NAN, NAN], 6, 5),  # no truths, no AP: the last is the best
    ],
)
def test_patience(prepared: Prepared, patience: int, aps: list[float], epochs: int, best: int) -> None:
    trainer = prepared(epochs=6, patience=patience)
    watch = scripted(trainer, aps)
    progress = trainer.run()
    assert (progress.epoch, progress.best_epoch) == (epochs, best)
    assert [report.epoch for report in watch.reports if report.best][-1] == best
    saved = checkpoints.load(trainer.weights / "best.pt")
    assert (saved.epoch, saved.training) == (best, None)
    assert checkpoints.load(trainer.weights / "last.pt").epoch == epochs - 1


def test_checkpoints_of_a_period(prepared: Prepared) -> None:
    trainer = prepared(epochs=5, save_period=2)
    scripted(trainer, [0.1, 0.2, 0.3, 0.4, 0.5])
    trainer.run()
    kept = sorted(path.name for path in trainer.weights.iterdir())
    assert kept == ["best.pt", "epoch2.pt", "epoch4.pt", "last.pt"]
    assert checkpoints.load(trainer.weights / "epoch4.pt").epoch == 3


def test_without_validation_the_last_epoch_is_the_best(prepared: Prepared) -> None:
    trainer = prepared(epochs=3, val=False)
    assert trainer.val is None
    trainer.run()
    best, last = (checkpoints.load(trainer.weights / name) for name in ("best.pt", "last.pt"))
    assert best.epoch == last.epoch == 2
    assert best.metrics == {}
    assert all(torch.equal(value, last.weights[name]) for name, value in best.weights.items())


def test_last_is_written_after_everything_else(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda path, value: (order.append(path.name), save(path, value)))
    trainer = prepared(epochs=1, save_period=1)
    watch = scripted(trainer, [0.5])
    watch.epoch = lambda report: order.append("results.csv")  # type: ignore[method-assign]
    trainer.run()
    assert order == ["results.csv", "best.pt", "epoch1.pt", "last.pt"]


def test_observers_are_told_the_running_mean(prepared: Prepared) -> None:
    trainer, watch = prepared(epochs=1, val=False), Watch()
    trainer.observers = Observers((watch,))
    items: list[Tensor] = []
    step = trainer._step
    trainer._step = lambda batch: items.append(step(batch)) or items[-1]  # type: ignore
    trainer.run()
    assert watch.batches == [(0, 0), (0, 1)]
    mean = torch.stack(items).mean(0).tolist()
    assert list(watch.reports[0].losses.values()) == pytest.approx(mean)
    assert list(watch.reports[0].losses) == ["box", "cls", "dfl"]
