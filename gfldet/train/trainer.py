"""Training: the loop, and what one step and one epoch of it do."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gfldet.config.load import dump
from gfldet.config.schema import TrainSettings
from gfldet.data.eval_set import EvalSet
from gfldet.data.loader import in_order
from gfldet.data.processes import can_fork, fitting, in_order_by_processes
from gfldet.data.train_set import BatchKey, TrainBatch, TrainSet
from gfldet.detect.detector import Selection
from gfldet.detect.torch_detector import for_inference
from gfldet.detect.validate import validate
from gfldet.errors import CheckpointError, WorkError
from gfldet.losses.detection import Gains
from gfldet.machine.cores import FreeCores, loader_threads
from gfldet.machine.device import mixed_precision
from gfldet.machine.memory import freed_memory_kept
from gfldet.metrics.coco import DetectionMetrics
from gfldet.nn.joint_norm import JointBatchNorm2d, join_norms
from gfldet.nn.tasks import DetectionModel
from gfldet.ranks.value import ONE, Ranks
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint, first_line
from gfldet.train.ema import WeightAverage
from gfldet.train.events import ITEMS, EpochReport, Observers, PlanReport, RunFacts, StepReport
from gfldet.train.guard import StepGuard
from gfldet.train.joint import add_up
from gfldet.train.parts import keep_frozen_statistics, make_assigner, make_optimizer
from gfldet.train.progress import Progress, out_of_patience
from gfldet.train.replay import replayed
from gfldet.train.schedule import Plan, with_epochs
from gfldet.train.timing import HOUR, Pace, length_in_time

MAX_BAD_STEPS = 5  # non-finite steps in a row before a run stops


@dataclass(eq=False)
class Trainer:
    """One run.  Everything it needs is given: data, model, numbers (`plan`), the folder for weights, and observers.

    Where several `ranks` do it, each has this object.  A rank has its share of every batch, and after each step the
    model, its average and the progress are the same in all of them.
    """

    settings: TrainSettings
    plan: Plan
    model: DetectionModel
    train: TrainSet
    val: EvalSet | None
    device: torch.device
    weights: Path
    observers: Observers = field(default_factory=Observers)
    progress: Progress = field(default_factory=Progress)
    licence: str = ""  # of the weights that the run starts from, where they have one of their own
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the last whole epoch
    saved: int = 0  # epochs that last.pt has
    ranks: Ranks = ONE
    free_cores: FreeCores = field(default_factory=FreeCores)
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        s = self.settings
        self.model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._make_criterion(self.progress.epoch)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = s.bn_momentum
        if s.sync_bn and self.ranks.size > 1:
            join_norms(self.model, self.ranks)
        narrowest = math.ceil(self.train.frame[1] / max(self.model.strides))
        self.precision = mixed_precision(s.amp, self.device, narrowest)
        self.optimizer = make_optimizer(self.model, s, self.plan, self.precision, self.ranks)
        self.average = WeightAverage(self.model, s.ema_decay, s.ema_part)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.guard = StepGuard(self.model, self.optimizer, late=self.device.type != "cpu" or self.scaler.is_enabled())
        self.workers = loader_threads(s.workers, self.device.type == "cpu", self.ranks.local_size)
        self.pins = self.device.type == "cuda"  # batches in memory that a GPU copies from by itself
        self.by_processes = self.pins and can_fork()
        self.replays = self.pins and self.ranks.size == 1

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.weights.parent

    def facts(self) -> RunFacts:
        """What there is to tell of the run before its first step."""
        names = tuple(self.model.names.values())
        return RunFacts(self.folder, self.plan, dump(self.settings), names, self.progress.epoch, self.progress.step)

    def run(self) -> Progress:
        """Train from where `progress` stands to the plan's last epoch, or until patience ends.

        The observers are told of steps and epochs here; of the run's begin and end by `train.run`.
        """
        self.progress.running = 1
        with closing(self._batches(self.progress.epoch)) as batches, self._replaying(), freed_memory_kept() as keep:
            return self._run(_each_used(batches, keep))

    @contextmanager
    def _replaying(self) -> Iterator[None]:
        """On a GPU, whole batches go through a recording of the network, if one can be made."""
        if not self.replays:
            yield
            return
        self.model.train()
        keep_frozen_statistics(self.model)
        self.guard.remember()
        with replayed(self.model, (self.train.batch, 3, *self.train.frame), self.precision) as why_not:
            if why_not:
                self.replays = False
                self.observers.warn(f"this model cannot be recorded, so its steps take longer: {why_not}")
            self.guard.restore()
            yield

    def _run(self, batches: Iterator[TrainBatch]) -> Progress:
        """See `run`."""
        self.progress.seconds += self.pace.begin_epochs()
        while self.progress.epoch < self.plan.epochs:
            if out_of_patience(self.progress, self.settings.patience):  # also of a run that was killed after this
                break
            epoch = self.progress.epoch
            losses = self._train_epoch(epoch, batches)
            trained = self.pace.running
            metrics = self._validate() if self.val is not None and self.settings.val else None
            self.metrics = {n: getattr(metrics, n) for n in ("map", "map50", "map75")} if metrics else {}
            self.progress.epoch = epoch + 1
            self.progress.seconds += self.pace.end_epoch(self.pace.running - trained if metrics else 0.0)
            best = self._is_best(epoch, metrics)
            rate = self.plan.learning_rate(self.progress.step - 1)
            self._keep_to_time()
            self.progress.share = self.plan.share(self.progress.epoch * self.plan.steps_per_epoch)
            left = self.pace.left(self.plan.epochs - self.progress.epoch)
            report = EpochReport(epoch, self.progress.seconds, losses, rate, metrics, best, left)
            self.ranks.together(partial(self._tell_and_save, report))
            self.saved = epoch + 1
            if self.settings.threads == 0 and self.ranks.size == 1:  # several would take each other for other work
                torch.set_num_threads(self.free_cores())
        return self.progress

    def _keep_to_time(self) -> None:
        """Let a run with `time` have as many epochs as fit into it, as far as is known now; the same in all ranks.

        After an epoch, or within the first one of this process, which is then done in any case.
        """
        hours, progress, step = self.settings.time, self.progress, self.progress.step
        if hours is None or (progress.planned and progress.epoch == progress.planned):
            return
        seconds, begun = HOUR * hours - progress.seconds, step > progress.epoch * self.plan.steps_per_epoch
        length = self.ranks.of_first(
            lambda: length_in_time(self.pace, seconds, progress.epoch, progress.planned, begun)
        )
        if length.epochs == progress.planned:
            return
        before, progress.planned = self.plan, length.epochs
        self.plan = with_epochs(before, self.settings, length.epochs, progress.epoch, before.joint_at(step))
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.plan.weight_decay if group["weight_decay"] else 0.0
        if (progress.epoch < before.tal_epoch) != (progress.epoch < self.plan.tal_epoch):
            self._make_criterion(progress.epoch)
        self.observers.planned(PlanReport(self.plan, hours, self.pace.epoch, length.too_long))

    def _tell_and_save(self, report: EpochReport) -> None:
        """What an epoch gave, for the observers and as files; by the one process that does so."""
        if self.ranks.leads:
            self.observers.epoch(report)
            self._save(report.best)

    def _train_epoch(self, epoch: int, batches: Iterator[TrainBatch]) -> dict[str, float]:
        """One pass over the training images, which come next in `batches`; the mean of each loss over its steps."""
        if 0 < epoch == self.plan.tal_epoch:
            self._make_criterion(epoch)
        self.model.train()
        keep_frozen_statistics(self.model)
        total, counted = torch.zeros(3, device=self.device), 0
        steps = len(self.train)
        for number, batch in enumerate(islice(batches, steps)):
            items = self._step(batch)
            if items is not None:
                total, counted = total + items, counted + 1
                step = self.progress.step - 1
                rate = self.plan.learning_rate(step)
                self.observers.step(StepReport(epoch, number, step, total / counted, batch, rate))
            if self.pace.end_step(number + 1, steps, self._validated_share()):
                self._keep_to_time()
        means = (total / counted).tolist() if counted else [math.nan] * len(ITEMS)
        return dict(zip(ITEMS, means, strict=True))

    def _validated_share(self) -> float:
        """Images of a validation for each of the training."""
        validated = len(self.val.split.records) if self.val is not None and self.settings.val else 0
        return validated / len(self.train.split.records)

    def _make_criterion(self, epoch: int) -> None:
        """The criterion of an epoch, which differs from that before it where a run has two assigners."""
        s = self.settings
        self.model.criterion = self.model.init_criterion(
            gains=Gains(s.box, s.cls, s.dfl),
            assigner=make_assigner(s, early=epoch < self.plan.tal_epoch),
            cls_loss=s.cls_loss,
            iou_loss=s.iou_loss,
            cls_target=s.cls_target,
            class_weights=self.plan.class_weights,
            ranks=self.ranks,
        )

    def _batches(self, first: int) -> Generator[TrainBatch, None, None]:
        """The batches of all epochs from `first` on, so that the next epoch's are made while this one is validated."""

        def load(key: tuple[BatchKey, bool]) -> TrainBatch:
            augmentation = self.train.augmentation
            return self.train.load(key[0], augmentation.without_mosaic() if key[1] else augmentation)

        # The plan of a run with `time` changes, so its epochs are counted, and mosaic is closed, as the keys are made.
        epochs = range(first, self.plan.epochs) if self.settings.time is None else count(first)
        keys = (
            ((epoch, self.ranks.share(numbers)), epoch >= self.plan.close_epoch)
            for epoch in epochs
            for _, numbers in self.train.keys(epoch)
        )
        height, width = self.train.frame
        pixel_bytes = 3 * height * width * self.train.batch
        processes = fitting(self.workers, pixel_bytes) if self.by_processes else 0
        if processes:
            return in_order_by_processes(load, keys, processes, pixel_bytes, pin=self.pins)
        return in_order((lambda key: load(key).pin_memory()) if self.pins else load, keys, self.workers)

    def _step(self, batch: TrainBatch) -> Tensor | None:
        """One optimiser step; the detached losses (3,), or None for a step left out because it was not finite."""
        rate = self.plan.learning_rate(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.guard.remember()
        for module in self.model.modules() if self.ranks.size > 1 else ():
            if isinstance(module, JointBatchNorm2d):
                module.counts = bool(batch.files)
        mixed = self.precision is not None  # a recording must not lean on casts that are kept outside of it
        with torch.autocast(self.device.type, self.precision, mixed, cache_enabled=not self.replays):
            loss, items = self.model(batch.to(self.device))
        self.scaler.scale(loss).backward()
        if self.ranks.size > 1:
            loss, *parts = add_up(self.model, torch.stack((loss, *items)), len(batch.files), self.ranks)
            items = torch.stack(parts)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.grad_clip or float("inf"))
        if self.guard.late:
            self.scaler.step(self.optimizer)
        self.progress.step += 1
        if not bool(torch.isfinite(loss + norm)) and not self._overflows(loss):
            self._leave_out(batch)
            return None
        if not self.guard.late:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update()
        self.progress.bad_steps = 0
        return items

    def _overflows(self, loss: Tensor) -> bool:
        """Whether a gradient is infinite only because fp16 ends at 65,504, since the scaler made it larger.

        The scaler then skips the step itself and lowers its scale.  Without a scale above 1 that is no excuse.
        """
        return self.scaler.is_enabled() and bool(torch.isfinite(loss)) and self.scaler.get_scale() > 1

    def _leave_out(self, batch: TrainBatch) -> None:
        """Undo a non-finite step, tell whose images it was, stop after several."""
        self.guard.restore()
        self.optimizer.zero_grad()
        self.scaler.update()
        self.progress.bad_steps += 1
        images = ", ".join(name for files in self.ranks.gathered(batch.files) for name in files)
        self.observers.warn(f"step {self.progress.step}: loss or gradient not finite; step left out; images: {images}")
        if self.progress.bad_steps >= MAX_BAD_STEPS:
            last = self.weights / "last.pt"
            kept = f"; the weights of the last whole epoch are in {last}" if last.is_file() else ""
            raise WorkError(
                f"{MAX_BAD_STEPS} steps in a row were not finite, the last at step {self.progress.step} with {images}"
                f"{kept}. Try a lower lr0 or amp=off"
            )

    def _validate(self) -> DetectionMetrics:
        assert self.val is not None
        model = for_inference(self.average.model, self.device)
        nms, evaluator = Selection(**self.settings.selection()), self.settings.evaluator
        return validate(model, self.val, nms, self.workers, evaluator, detailed=False, ranks=self.ranks).metrics

    def _is_best(self, epoch: int, metrics: DetectionMetrics | None) -> bool:
        """Whether this epoch is the best so far: no worse than any before it.

        Without an AP (no validation, or no truths) the last always is.  A model that finds nothing for many epochs
        has learnt more in the last of them than in the first.
        """
        ap = math.nan if metrics is None else metrics.map
        if ap < self.progress.best:
            return False
        if ap != self.progress.best:
            self.progress.improved = epoch
        self.progress.best = self.progress.best if math.isnan(ap) else ap
        self.progress.best_epoch = epoch
        return True

    def _save(self, best: bool) -> None:
        """last.pt with all that is needed to go on; best.pt and epochN.pt with the averaged weights alone.

        last.pt comes last, after results.csv too: a run that is cut off in between repeats the epoch, and so
        writes the others again, the same to the bit.
        """
        plain, done, period = self._plain(), self.progress.epoch, self.settings.save_period
        if best:
            checkpoints.save(self.weights / "best.pt", plain)
        if period and done % period == 0:
            checkpoints.save(self.weights / f"epoch{done}.pt", plain)
        self._save_last(plain)

    def _save_last(self, plain: Checkpoint) -> None:
        checkpoints.save(self.weights / "last.pt", replace(plain, training=self._state()))

    def end(self) -> None:
        """Note in last.pt that nothing of the run is left to do."""
        self.progress.running = 0
        self.ranks.of_first(lambda: self._save_last(self._plain()))

    def _plain(self) -> Checkpoint:
        """The averaged weights of the last whole epoch."""
        return Checkpoint(
            description=self.model.description,
            names=tuple(self.model.names.values()),
            category_ids=self.train.split.category_ids,
            weights=self.average.model.state_dict(),
            settings=dump(self.settings),
            epoch=self.progress.epoch - 1,
            metrics=self.metrics,
            licence=self.licence,
        )

    def keep_best(self) -> Checkpoint:
        """What best.pt holds.  Where it is gone or cannot be read, the last whole epoch is the best from here on, which
        is told.

        For a run that begins or ends: its weights are then those of that epoch.
        """
        path = self.weights / "best.pt"
        kept = _read_or_why(path) if self.ranks.leads else None
        why = self.ranks.of_first(lambda: kept if isinstance(kept, str) else "")
        if not why:
            return kept if isinstance(kept, Checkpoint) else checkpoints.load(path)
        progress, ap = self.progress, self.metrics.get("map", math.nan)
        progress.best = -1.0 if math.isnan(ap) else ap
        progress.best_epoch = progress.improved = progress.epoch - 1
        self.observers.warn(f"{path} {why}; the weights of epoch {progress.epoch}, the last whole one, take its place")
        plain = self._plain()
        self.ranks.together(lambda: checkpoints.save(path, plain) if self.ranks.leads else None)
        return plain

    def _state(self) -> dict[str, Any]:
        """All that a continued run needs beside the averaged weights, as tensors and plain data."""
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "updates": self.average.updates,
            "progress": {name: getattr(self.progress, name) for name in self.progress.__slots__},
            "random": torch.get_rng_state(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of `last.pt`; what follows is what would have followed without the interruption.

        With another batch size or data set an epoch has other steps.  The run then continues at the same share of its
        epochs: its steps are counted as those that so many epochs have now.  Raises CheckpointError for a state that is
        none of such a run.
        """
        state = checkpoint.training
        if state is None:
            raise CheckpointError("resume: this checkpoint holds weights alone; resume from weights/last.pt of a run")
        try:
            self._take_up(checkpoint, state)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise damaged(self.weights / "last.pt", error) from error

    def _take_up(self, checkpoint: Checkpoint, state: Mapping[str, Any]) -> None:
        """See `restore`."""
        self.model.load_state_dict(state["weights"])
        self.average.model.load_state_dict(dict(checkpoint.weights))
        self.average.updates = state["updates"]
        # Moments come from the checkpoint, but what the settings tell of decay and momentum now is what counts.  The
        # rate is set at each step; a run that takes none keeps that of its last one.
        told = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, values in zip(self.optimizer.param_groups, told, strict=True):
            group.update(values)
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self.progress.step = self.progress.epoch * self.plan.steps_per_epoch
        self.progress.share = self.plan.share(self.progress.step)
        self.progress.planned = 0 if self.settings.time is None else self.plan.epochs
        self.metrics, self.saved = checkpoint.metrics, self.progress.epoch
        self._make_criterion(self.progress.epoch)
        torch.set_rng_state(state["random"])


def _read_or_why(path: Path) -> Checkpoint | str:
    """The checkpoint at `path`, or why there is none."""
    try:
        return checkpoints.load(path)
    except CheckpointError:
        return "cannot be read" if path.is_file() else "is gone"


def damaged(path: Path, error: Exception) -> CheckpointError:
    """What is said of a last.pt whose state of training cannot be taken up."""
    return CheckpointError(
        f"resume: the state of training in {path} is damaged ({first_line(error)}); start another run from its weights "
        f"with model={path}"
    )


def _each_used(batches: Iterator[TrainBatch], done: Callable[[], None]) -> Iterator[TrainBatch]:
    """The batches; `done` is called when one has been used and the next is asked for."""
    for batch in batches:
        yield batch
        done()
