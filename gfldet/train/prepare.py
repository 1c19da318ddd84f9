"""Settings -> the parts of a training run, before its loop begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from gfldet.config import load as config
from gfldet.config.schema import TrainSettings
from gfldet.data.draw import NO_AUGMENTATION, Augmentation
from gfldet.data.findings import findings_of_reach, findings_of_training
from gfldet.data.load import LoadedSplit, eval_set, load_images, open_data, tell_findings
from gfldet.data.sampling import repeat_factors
from gfldet.data.spec import DataSpec
from gfldet.data.tiles import Cut
from gfldet.data.train_set import TrainSet
from gfldet.errors import DataError, counted, worded
from gfldet.imports.start import Start, read_start
from gfldet.machine.cores import part_of
from gfldet.machine.device import pick_device
from gfldet.machine.memory import memory_budget
from gfldet.machine.shared import Pool, pool
from gfldet.messages import Tell, teller
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.ops.letterbox import check_frame
from gfldet.ops.tiles import Tiles, tiles_of
from gfldet.ranks.value import ONE, Ranks
from gfldet.store import runs, transfer
from gfldet.store.checkpoint import Checkpoint
from gfldet.store.transfer import Extent
from gfldet.train.checks import check_against_classes, described_head, reach_of_model
from gfldet.train.events import Observer, Observers
from gfldet.train.fine_tune import fine_tuning
from gfldet.train.loggers import make_loggers
from gfldet.train.memory import with_batch
from gfldet.train.observers import BatchPictures, Quiet, ResultsCsv, Terminal
from gfldet.train.parts import freeze
from gfldet.train.resume import in_its_time, keep_warmup
from gfldet.train.schedule import Plan, median_half_side, plan
from gfldet.train.several import check_share, run_to_share, settings_to_share, told_of_ranks
from gfldet.train.timing import DRAWING, Pace, in_words
from gfldet.train.trainer import Trainer
from gfldet.writing import write_aside


@contextmanager
def run_folder(settings: TrainSettings, resume: Path | None, ranks: Ranks = ONE) -> Iterator[Path]:
    """The folder of a run, this run's alone while it trains: a new one, or that of the last.pt that `resume` names.

    Rank 0 claims it; the others must see it.  Raises OutputError where it cannot be made, written to or seen, or where
    another process trains in it; ConfigError where the package of a logger is missing.
    """
    ranks.together(lambda: make_loggers(settings.log) if ranks.leads else None)  # told before there is a folder
    with ExitStack() as held:
        folder = ranks.of_first(lambda: held.enter_context(_own_folder(settings, resume)))
        owner = ranks.of_first(lambda: runs.owner(folder)) if ranks.size > 1 else ""
        ranks.together(lambda: None if ranks.leads else runs.check_seen(folder, owner))
        yield folder


@contextmanager
def _own_folder(settings: TrainSettings, resume: Path | None) -> Iterator[Path]:
    """See `run_folder`."""
    if resume:
        runs.check_writable(resume.parent)
        with runs.trained_here(resume.parent.parent):
            yield resume.parent.parent
        return
    where = (settings.project, settings.name, "train", settings.exist_ok)
    with runs.claimed(*where) as folder, runs.trained_here(folder):
        yield folder


def prepare_training(
    settings: TrainSettings,
    description: Description,
    source: Start | None,
    folder: Path,
    resume: Path | None = None,
    observers: Sequence[Observer] = (),
    ranks: Ranks = ONE,
) -> Trainer:
    """Everything of a training run up to its first step.

    `description` is the model to build (its class count follows the data), `source` the weights that it starts from;
    with `resume`, the last.pt that `source` was read from, the training continues from it.  `folder` is that of
    `run_folder`.  `observers` watch the run beside its own.  What settings and model tell alone is refused before an
    image is read, and nothing is written before the data too have been found good.  All `ranks` prepare it, and must
    come to the same.
    """
    tell = teller(settings.verbose)
    pace = Pace(DRAWING if settings.plots else 0.0)
    ranks.check_same("settings", lambda: settings_to_share(settings))
    watching = ranks.together(lambda: Observers((*own_observers(settings), *observers) if ranks.leads else ()))
    last = source.checkpoint if resume and source else None
    memory = pool(memory_budget(settings.cache), ranks.local_size, ranks.gathered)
    trainer = ranks.together(
        lambda: _trainer(settings, description, source, last, folder, watching, ranks, pace, memory)
    )
    ranks.check_same("what they train on", lambda: run_to_share(trainer))
    if last:
        done, hours = trainer.progress.epoch, trainer.settings.time
        used = "" if hours is None else f", {in_words(trainer.progress.seconds)} of {hours:g} h are used"
        tell(
            f"training continues from {resume}: {worded(done, f'of {trainer.plan.epochs} epochs [is|are] done')}{used}"
        )
        trainer.keep_best()
    ranks.together(lambda: _begin_folder(trainer) if ranks.leads else None)
    tell_plan(trainer, tell)
    return trainer


def _trainer(
    settings: TrainSettings,
    description: Description,
    source: Start | None,
    last: Checkpoint | None,
    folder: Path,
    watching: Observers,
    ranks: Ranks,
    pace: Pace,
    memory: Pool,
) -> Trainer:
    """See `prepare_training`; `last` is the checkpoint that the run continues from, `memory` is for the images."""
    tell = teller(settings.verbose)
    device = pick_device(settings.device if ranks.size == 1 else ranks.device)
    check_share(settings, ranks)
    description = described_head(description, settings)
    if not settings.val:  # all images are for training; `val` of this run must not take some of them for unseen
        settings = dataclasses.replace(settings, val_share=0.0)
    spec = open_data(settings.data, settings.val_share)
    if last and last.names != spec.names:
        raise DataError(f"resume: the run has the classes {list(last.names)}, {spec.source} has {list(spec.names)}")
    check_against_classes(settings, spec.names)
    torch.manual_seed(settings.seed)
    model = fresh_model(settings, description, spec.names)
    start = None if last else chosen_weights(model, settings, source)
    if start:
        transfer.transfer(model, start.checkpoint, start.file)  # weights that do not fit are refused here
    tiles = tiles_of(**settings.tiles(), multiple=model.multiple)
    train, val = load_training_images(settings, spec, tell, memory, tiles)
    if train.split.bits:  # kept with the weights, so that the same file looks the same when it is predicted on
        settings = dataclasses.replace(settings, sample_bits=train.split.bits)
    half_side = median_half_side(train.split, settings.height_width)
    model.head.init_biases(settings.prior, half_side)
    taken = take_weights(model, start, tell)
    settings = fine_tuning(settings, taken.extent, len(train.split.records), half_side, tell)
    settings = with_batch(settings, model, len(train.split.records), device, tell)
    train_set = make_train_set(settings, train)
    if last:
        settings = keep_warmup(settings, last, len(train_set))
    numbers = plan(settings, train.split, len(train_set), half_side)
    if last:
        numbers = in_its_time(numbers, settings, last)
    tell_findings(findings_of_reach(train.split, settings.height_width, reach_of_model(model)))
    size, batch, licence = settings.height_width, settings.batch, last.licence if last else taken.licence
    val_batches = None if val is None else eval_set(val, size, batch, model.multiple, settings.rect, tiles=tiles)
    trainer = Trainer(
        settings,
        numbers,
        model,
        train_set,
        val_batches,
        device,
        folder / "weights",
        watching,
        licence=licence,
        ranks=ranks,
        pace=pace,
    )
    if last:
        trainer.restore(last)
    return trainer


def _begin_folder(trainer: Trainer) -> None:
    """The first files of a run, by rank 0."""
    save_settings(trainer.settings, trainer.plan, trainer.folder / "args.yaml")
    runs.make(trainer.weights)


def fresh_model(settings: TrainSettings, description: Description, names: tuple[str, ...]) -> DetectionModel:
    """The model of a run with fresh weights, and the layers that are not to be trained frozen.

    Raises ConfigError for a frame that it cannot be trained on, and for layers that it does not have.
    """
    model = DetectionModel(dataclasses.replace(description, nc=len(names)), names)
    check_frame(settings.height_width, model.multiple, training=True)
    freeze(model, settings.freeze)
    return model


def load_training_images(
    settings: TrainSettings, spec: DataSpec, tell: Tell, memory: Pool, tiles: Tiles | None = None
) -> tuple[LoadedSplit, LoadedSplit | None]:
    """The train split, and with `val` the val split in the memory that is left; what is noticed of both is told.

    With `tiles`, the training images are cut into these; those of val stay as they are, since they are cut when they
    are looked at.
    """
    if settings.val and spec.val is None:
        raise DataError(f"{spec.source}: no val split; name one, set val_share, or set val=false to train without one")
    size, arguments = settings.height_width, (memory, settings.on_bad, tell, settings.verbose)
    check, cut = settings.check_images, None if tiles is None else Cut(tiles, size)
    train = load_images(spec, "train", size, *arguments, settings.sample_bits, cut, check)
    bits, val_size = train.split.bits or settings.sample_bits, size if tiles is None else None
    val = load_images(spec, "val", val_size, *arguments, bits, check=check) if settings.val else None
    found = findings_of_training(train.split, val.split if val else None, size)
    tell_findings([*train.split.findings, *(val.split.findings if val else ()), *found])
    return train, val


def make_train_set(settings: TrainSettings, loaded: LoadedSplit) -> TrainSet:
    """The training batches, augmented as the settings tell."""
    custom = settings.augment if callable(settings.augment) else None
    augmentation = NO_AUGMENTATION
    if settings.augment == "default" or (custom is not None and settings.augment_at != "instead"):
        names = [field.name for field in dataclasses.fields(Augmentation)]
        augmentation = Augmentation(**{name: getattr(settings, name) for name in names})
    repeats = repeat_factors(loaded.split, settings.repeat_share) if settings.repeat_share else None
    frame = settings.height_width
    return TrainSet(
        loaded.split,
        loaded.store,
        frame,
        settings.batch,
        settings.seed,
        augmentation,
        custom,
        settings.augment_at,  # type: ignore[arg-type]
        repeats,
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run starts from: the licence of the weights, if they have one of their own, and how much of the model they
    are (None for a start from nothing, and for a run that goes on)."""

    licence: str = ""
    extent: Extent | None = None


def chosen_weights(model: DetectionModel, settings: TrainSettings, source: Start | None) -> Start | None:
    """The weights that a run starts from: those of `pretrained`, or else `source`, which the model was given with."""
    if settings.pretrained is None:
        return source
    imagenet = settings.pretrained == transfer.IMAGENET
    return read_start(transfer.imagenet_file(model) if imagenet else settings.pretrained)


def take_weights(model: DetectionModel, start: Start | None, tell: Tell) -> Taken:
    """Let the model start from these weights, as far as they fit, and tell what was taken over."""
    if start is None:
        return Taken()
    done = transfer.transfer(model, start.checkpoint, start.file)
    tell(start.told(str(done)))
    return Taken(start.checkpoint.licence, done.extent)


def own_observers(settings: TrainSettings) -> list[Observer]:
    """Who watches every run: results.csv always, the terminal, the pictures and loggers if wanted.

    Raises ConfigError where the package of a logger is missing.
    """
    terminal = Terminal() if settings.verbose else Quiet()
    pictures: list[Observer] = [BatchPictures()] if settings.plots else []
    return [ResultsCsv(), terminal, *pictures, *make_loggers(settings.log)]


def _threads(wanted: int, processes: int) -> str:
    count, there = torch.get_num_threads(), part_of(processes)()
    spared = f" of {there} cores, since other programs are busy" if wanted == 0 and count < there else ""
    return f"{counted(count, 'thread')}{spared}"


def save_settings(settings: TrainSettings, numbers: Plan, path: Path) -> None:
    """args.yaml: the resolved settings, which `cfg=` takes again, and as comments what was derived from them."""
    derived = "".join(f"# {name} = {value}\n" for name, value in dataclasses.asdict(numbers).items())
    text = f"{config.run_yaml(settings)}\n# Derived from the settings and the data:\n{derived}"
    write_aside(path, lambda file: file.write(text.encode()))


def tell_plan(trainer: Trainer, tell: Tell) -> None:
    """The start of a run in a few lines: what is trained, where, and every number that was derived."""
    settings, numbers, model, device = trainer.settings, trainer.plan, trainer.model, trainer.device
    height, width = settings.height_width
    threads = f", {_threads(settings.threads, trainer.ranks.local_size)}" if device.type == "cpu" else ""
    precision = str(trainer.precision or torch.float32).removeprefix("torch.")
    tell(
        f"{model.description.name}: {model.parameter_count():,} parameters, strides {model.strides}, reg_max "
        f"{model.reg_max}; {height}x{width} px, batch {settings.batch}, on {device}{threads}, {precision}"
    )
    if trainer.ranks.size > 1:
        tell(told_of_ranks(settings.batch, trainer.ranks))
    half = "none (no boxes)" if numbers.half_side is None else f"{numbers.half_side:.1f} px"
    steps = counted(numbers.steps_per_epoch, "step")
    length, derived = f"{counted(numbers.epochs, 'epoch')} x {steps}", f", {numbers.of_length()}"
    if settings.time is not None and not trainer.progress.planned:
        length, derived = f"as many epochs x {steps} as fit into {settings.time:g} h, to be told in the first", ""
    tell(f"plan: {length}; {settings.optimizer} lr0 {numbers.lr0:g}{derived}; median half side of the boxes {half}")
    if numbers.class_weights is not None:
        weights = zip(model.names.values(), numbers.class_weights, strict=True)
        tell(f"class weights: {', '.join(f'{name} {weight:g}' for name, weight in weights)}")
    if settings.repeat_share:
        tell(f"images of classes in less than {settings.repeat_share:.0%} of the images are shown more often")
    tell(f"writing to {trainer.folder}")
