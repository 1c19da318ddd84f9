"""Settings -> the parts of a run: what `train`, `val` and `predict` are made of before their loops begin."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gfldet.config import load as config
from gfldet.config.schema import TrainSettings, ValSettings
from gfldet.data.augment import NO_AUGMENTATION, Augmentation
from gfldet.data.dataset import EvalSet, ImageStore, TrainSet
from gfldet.data.records import Record, Split
from gfldet.data.spec import DataSpec, load_spec
from gfldet.data.split import load_split, open_image
from gfldet.engine import checkpoint as checkpoints
from gfldet.engine import runs
from gfldet.engine.checkpoint import Checkpoint
from gfldet.engine.device import choose, memory_budget, set_threads
from gfldet.engine.observers import BatchPictures, ResultsCsv, Terminal
from gfldet.engine.schedule import Plan, plan
from gfldet.engine.trainer import Observer, Trainer
from gfldet.errors import CheckpointError, ConfigError, DataError, OutputError
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel

Say = Callable[[str], None]


def sayer(verbose: bool) -> Say:
    """Where a run's own lines go: the terminal, or nowhere."""
    return (lambda line: print(line, flush=True)) if verbose else (lambda line: None)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSplit:
    """A split and its images at the size they are used at."""

    split: Split
    store: ImageStore


def load_images(
    spec: DataSpec, name: str, size: tuple[int, int], budget: int, on_bad: str, say: Say, verbose: bool
) -> LoadedSplit:
    """Read, check and (as far as `budget` bytes go) keep a split's images; its warnings are told."""
    store = ImageStore(size, budget, read_record)
    bar = tqdm(desc=f"reading {name} images", unit="image", leave=False, disable=not (verbose and sys.stderr.isatty()))

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        split = load_split(spec, name, on_bad, visit=store.keep, progress=progress)  # type: ignore[arg-type]
    for warning in split.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    kept = "kept in memory" if store.complete else "read anew each time (they do not fit in memory)"
    boxes = sum(len(record.boxes) for record in split.records)
    say(f"{name}: {len(split.records)} images, {boxes} boxes, {len(split.names)} classes; {kept}")
    return LoadedSplit(split, store)


def read_record(record: Record) -> NDArray[np.uint8]:
    """The image of a record, from its file or built in."""
    return open_image(record.path)


def prepare_training(
    settings: TrainSettings, description: Description, source: Checkpoint | None, resume: Path | None
) -> Trainer:
    """Everything of a training run up to its first step.

    `description` is the model to build (its class count follows the data), `source` a checkpoint whose weights it
    starts from, `resume` the last.pt of a run to go on with.  Nothing is written before the settings, the data and the
    model have all been found good.
    """
    say = sayer(settings.verbose)
    folder = (
        resume.parent.parent if resume else runs.choose(settings.project, settings.name, "train", settings.exist_ok)
    )
    device = choose(settings.device)
    set_threads(settings.threads)
    spec = load_spec(settings.data)
    budget = memory_budget(settings.cache)
    arguments = (settings.on_bad, say, settings.verbose)
    train = load_images(spec, "train", settings.height_width, budget, *arguments)
    val = None
    if settings.val:
        if spec.val is None:
            raise DataError(f"{spec.source}: no val split; name one, or set val=false to train without validation")
        val = load_images(spec, "val", settings.height_width, train.store.left, *arguments)
    torch.manual_seed(settings.seed)
    model = DetectionModel(dataclasses.replace(description, nc=len(spec.names)), spec.names)
    train_set = make_train_set(settings, train)
    numbers = plan(settings, train.split, len(train_set))
    model.head.init_biases(settings.prior, numbers.half_side)
    take_weights(model, settings, source, say)
    warn_of_reach(model, train.split, settings.height_width)
    eval_set = None if val is None else make_eval_set(settings, val, model)
    trainer = Trainer(settings, numbers, model, train_set, eval_set, device, folder / "weights")
    if resume is not None:
        trainer.restore(checkpoints.load(resume))
        if trainer.progress.epoch >= numbers.epochs:
            raise ConfigError(
                f"resume: {resume} has finished its {trainer.progress.epoch} epochs; give a larger epochs= to extend it"
            )
    runs.make(folder / "weights")
    save_settings(settings, numbers, folder / "args.yaml")
    trainer.observers = watch(settings, numbers, folder, spec.names, trainer.progress.epoch)
    tell_plan(settings, numbers, model, device, folder, say)
    return trainer


def make_train_set(settings: TrainSettings, loaded: LoadedSplit) -> TrainSet:
    """The training batches, augmented as the settings say."""
    custom = settings.augment if callable(settings.augment) else None
    how = NO_AUGMENTATION
    if settings.augment == "default":
        how = Augmentation(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)})
    return TrainSet(loaded.split, loaded.store, settings.height_width, settings.batch, settings.seed, how, custom)


def make_eval_set(settings: TrainSettings | ValSettings, loaded: LoadedSplit, model: DetectionModel) -> EvalSet:
    """The validation batches."""
    stride = max(model.strides)
    return EvalSet(loaded.split, loaded.store, settings.height_width, settings.batch, stride, settings.rect)


def take_weights(model: DetectionModel, settings: TrainSettings, source: Checkpoint | None, say: Say) -> None:
    """Start from the weights of the model given as a checkpoint, or of `pretrained`."""
    if settings.pretrained is not None:
        source = checkpoints.load(settings.pretrained)
    if source is not None:
        say(f"weights: {checkpoints.transfer(model, source)}")


def warn_of_reach(model: DetectionModel, split: Split, frame: tuple[int, int]) -> None:
    """Say so when boxes are larger than the bins can express: such boxes come out too small, whatever the training."""
    reach = 2 * (model.reg_max - 1) * max(model.strides)
    total = beyond = 0
    largest = 0.0
    for record in split.records:
        scale = min(frame[0] / record.height, frame[1] / record.width)
        sides = scale * (record.boxes[:, 2:] - record.boxes[:, :2]).max(1, initial=0)
        total, beyond = total + len(sides), beyond + int((sides > reach).sum())
        largest = max(largest, float(sides.max(initial=0)))
    if beyond:
        bins = int(np.ceil(largest / 2 / max(model.strides))) + 2
        print(
            f"warning: {beyond} of {total} boxes ({beyond / total:.1%}) are larger than the {reach} px that reg_max="
            f"{model.reg_max} can express at this imgsz; set reg_max: {bins} in the model YAML, or a smaller imgsz",
            file=sys.stderr,
        )


def watch(
    settings: TrainSettings, numbers: Plan, folder: Path, names: tuple[str, ...], done: int
) -> tuple[Observer, ...]:
    """Who watches a run: results.csv always, the terminal and the pictures if wanted."""
    observers: list[Observer] = [ResultsCsv(folder / "results.csv", done)]
    if settings.verbose:
        observers.append(Terminal(numbers.epochs, numbers.steps_per_epoch))
    else:
        observers.append(Quiet())
    if settings.plots:
        observers.append(BatchPictures(folder, names, (0, numbers.close_epoch)))
    return tuple(observers)


class Quiet:
    """Says nothing but warnings."""

    def batch(self, *args: Any) -> None:
        pass

    def epoch(self, *args: Any) -> None:
        pass

    def warn(self, message: str) -> None:
        print(f"warning: {message}", file=sys.stderr)


def save_settings(settings: TrainSettings, numbers: Plan, path: Path) -> None:
    """args.yaml: the resolved settings, which `cfg=` takes again, and as comments what was derived from them."""
    config.save(settings, path)
    derived = "".join(f"# {name} = {value}\n" for name, value in dataclasses.asdict(numbers).items())
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n# Derived from the settings and the data:\n{derived}")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another project=") from error


def tell_plan(
    settings: TrainSettings, numbers: Plan, model: DetectionModel, device: torch.device, folder: Path, say: Say
) -> None:
    """The start of a run in a few lines: what is trained, where, and every number that was derived."""
    height, width = settings.height_width
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    say(
        f"{model.description.name}: {model.parameter_count():,} parameters, strides {model.strides}, reg_max "
        f"{model.reg_max}; {height}x{width} px, batch {settings.batch}, on {device}{threads}"
    )
    half = "none (no boxes)" if numbers.half_side is None else f"{numbers.half_side:.1f} px"
    say(
        f"plan: {numbers.epochs} epochs x {numbers.steps_per_epoch} steps; {settings.optimizer} lr0 {numbers.lr0:g}, "
        f"weight decay {numbers.weight_decay:g}, warm-up {numbers.warmup_steps} steps; no mosaic from epoch "
        f"{numbers.close_epoch + 1}; median half side of the boxes {half}"
    )
    say(f"writing to {folder}")


def find_resume(settings: TrainSettings) -> Path | None:
    """The last.pt that `resume` means: a path to it or to its run folder, or the newest one below `project`."""
    if settings.resume is False:
        return None
    if settings.resume is True:
        found = sorted(Path(settings.project).glob("*/weights/last.pt"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise CheckpointError(
                f"resume: no */weights/last.pt in {settings.project}; give resume=RUN/weights/last.pt"
            )
        return found[-1]
    path = Path(settings.resume)
    path = path / "weights" / "last.pt" if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(f"resume={settings.resume}: no such checkpoint; expected RUN/weights/last.pt")
    return path


def resumed_settings(checkpoint: Checkpoint, overrides: dict[str, Any]) -> TrainSettings:
    """The settings of a run to go on with: those it had, under what the user gives now (`epochs`, say)."""
    saved = {k: v for k, v in checkpoint.settings.items() if k not in ("resume", "model")}
    if str(saved.get("augment", "")).startswith("<") and "augment" not in overrides:
        raise ConfigError(f"resume: the run had an augmentation of its own, {saved['augment']}; give augment= again")
    return config.resolve("train", {**saved, **overrides})
