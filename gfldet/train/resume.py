"""Resuming: which run is meant, and with which settings its training continues."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gfldet.config import load as config
from gfldet.config.kinds import Device
from gfldet.config.schema import TrainSettings
from gfldet.data.patterns import matching
from gfldet.errors import CheckpointError, ConfigError, GfldetError, counted
from gfldet.files import is_file, is_folder
from gfldet.imports.start import Start, read_start
from gfldet.nn.build import Description
from gfldet.ranks.place import Place, devices_of
from gfldet.store.checkpoint import Checkpoint, settings_in
from gfldet.train.progress import Progress, out_of_patience
from gfldet.train.schedule import Joint, Plan, warmup_steps, with_epochs
from gfldet.train.timing import HOUR, in_words
from gfldet.train.trainer import damaged


@dataclass(frozen=True, slots=True)
class Beginning:
    """With which settings a run begins or goes on, the model that it trains, and the weights that it starts from."""

    settings: TrainSettings
    description: Description
    start: Start | None


def beginning(
    given: Mapping[str, Any],
    settings: TrainSettings,
    resume: Path | None,
    description: Description,
    start: Start | None,
) -> Beginning:
    """The beginning of a run with the user's settings `given`, which `settings` are the resolved form of.

    `resume` is the last.pt that it goes on from, if it does; otherwise it is one of the model of `description`.
    """
    if resume is None:
        return Beginning(config.resolve("train", given, preferred=description.preferred), description, start)
    start = read_start(resume)
    return Beginning(resumed_settings(start.checkpoint, resume, settings), start.checkpoint.description, start)


def find_resume(settings: TrainSettings) -> Path | None:
    """The last.pt that `resume` means; None if it is false.

    A path is that of a last.pt, of its folder or of its run folder.  True is the run of the checkpoint that `model`
    names, or else the newest last.pt in `project` (in the folder `name` there, if that is given).
    """
    if settings.resume is False:
        return None
    if settings.resume is not True:
        path = Path(settings.resume)
    elif settings.model.endswith(".pt"):
        path = Path(settings.model)
        last = path.with_name("last.pt")
        if path.parent.name == "weights" and is_file(last):  # as for best.pt, from which a run cannot go on
            path = last
    else:
        pattern = f"{glob.escape(settings.name) or '*'}/weights/last.pt"
        found = sorted(matching(f"{glob.escape(settings.project)}/{pattern}"), key=os.path.getmtime)
        if not found:
            raise CheckpointError(f"resume: no {pattern} in {settings.project}; give resume=RUN/weights/last.pt")
        path = found[-1]
    if is_folder(path):
        path = (path if path.name == "weights" else path / "weights") / "last.pt"
    best = path.with_name("best.pt")
    if path.name == "last.pt" and not is_file(path) and is_file(best):
        raise CheckpointError(
            f"resume: {path} is gone, from which alone a run goes on; gfldet train model={best} starts another from "
            "the best weights"
        )
    if not is_file(path) or path.parent.name != "weights":
        raise CheckpointError(f"resume: {path} is no last.pt in its run folder; expected RUN/weights/last.pt")
    return path


def resumed_settings(checkpoint: Checkpoint, path: Path, given: TrainSettings) -> TrainSettings:
    """The settings of the run of `checkpoint`, read from `path`, under those that the user gives now, and those of an
    args.yaml that the user names now.

    With the settings as they were, an interrupted run comes to the same result as an uninterrupted one.  With a
    larger `epochs` a finished run is extended, by this rule: learning rate and close of mosaic are those of a run of
    the new length from the step on that was reached; weights, averages, optimiser, best AP and patience go on.  With
    another `batch` or `data` the rate continues at the same share of the run (see `Trainer.restore` and `keep_warmup`).
    Of `time` and `epochs` that one decides which is given now; the time that the run has used counts.
    A run that ended after its last epoch, before its best weights were measured, is resumed for that.

    Raises CheckpointError or ConfigError for a run that cannot go on, or not with these settings.
    """
    saved = dict(checkpoint.settings)
    if checkpoint.training is None:
        raise CheckpointError(f"resume: {path} holds weights alone; resume from the last.pt of a run")
    explicit, from_file = (
        {n: getattr(given, n) for n, o in given.origins.items() if o == origin and n not in ("model", "resume")}
        for origin in ("user", "restored")
    )
    if str(saved.get("augment", "")).startswith("<") and "augment" not in explicit:
        raise ConfigError(f"resume: the run had an augmentation of its own, {saved['augment']}; give augment= again")
    restored = {**saved, **from_file, "resume": False}
    if "epochs" in explicit:
        restored["time"] = None
    settings = config.resolve("train", explicit, restored=restored, file=str(path))
    settings = replace(settings, notices=tuple(dict.fromkeys((*given.notices, *settings.notices))))
    for name in ("optimizer", "freeze", "reg_max", "dgqp", "end2end"):
        was, now = saved.get(name), config.dump(settings)[name]
        if was != now:
            raise ConfigError(f"resume: {name}={now}, but the run has {name}={was}; start another with model={path}")
    try:
        progress = Progress(**checkpoint.training["progress"])
    except TypeError as error:
        raise damaged(path, error) from error
    if settings.time is not None:
        _check_time(settings.time, progress, saved.get("time"), path)
    elif progress.epoch > settings.epochs or (progress.epoch == settings.epochs and not progress.running):
        raise ConfigError(
            f"resume: {path} has done its {counted(progress.epoch, 'epoch')}; give a larger epochs= to extend it"
        )
    if out_of_patience(progress, settings.patience) and not progress.running:
        raise ConfigError(
            f"resume: {path} stopped at epoch {progress.epoch}, {settings.patience} after its best; give a larger "
            "patience= (or 0) to go on"
        )
    return settings


def _check_time(hours: float, progress: Progress, before: object, path: Path) -> None:
    """ConfigError for a run whose time is over; `before` is the time that it had."""
    all_epochs = before == hours and progress.epoch == progress.planned
    if progress.running if all_epochs else progress.seconds < HOUR * hours:
        return
    raise ConfigError(
        f"resume: {path} has used {in_words(progress.seconds)} for {counted(progress.epoch, 'epoch')}, and "
        f"time={hours:g} (hours of the whole run) leaves none for another; give a larger time= to extend it"
    )


def _progress_of(checkpoint: Checkpoint) -> Progress:
    """Where the run stands that a checkpoint is of; at its beginning, where it holds weights alone."""
    return Progress(**checkpoint.training["progress"]) if checkpoint.training else Progress()


def in_its_time(numbers: Plan, settings: TrainSettings, checkpoint: Checkpoint) -> Plan:
    """The plan of a run that goes on from `checkpoint`, where `time` decides its length; any other stays as it is.

    With the time that it had its schedule goes on where it was.  With another one it is that of a run of this time, of
    which the time that was used is done.
    """
    progress = _progress_of(checkpoint)
    if settings.time is None or not progress.epoch:
        return numbers
    epochs, share = progress.planned, progress.share
    if checkpoint.settings.get("time") != settings.time:
        share = min(1.0, progress.seconds / (HOUR * settings.time))
        epochs = max(progress.epoch + 1, int(progress.epoch / max(share, 1e-9)))
    step = progress.epoch * numbers.steps_per_epoch
    whole = with_epochs(numbers, settings, epochs, progress.epoch, Joint())
    return replace(whole, joint=Joint(step, share, whole.warm(step - 1)))


def device_of_run(settings: TrainSettings, place: Place) -> str:
    """Where a training computes: what the user gives, or else, in a run that goes on, what it had if that fits `place`.

    `place` is that of this process.  Mistakes in `resume` are told later, by `find_resume`.
    """
    if settings.resume is False or "device" in settings.origins:
        return settings.device
    try:
        path = find_resume(settings)
        device = Device().read(settings_in(path).get("device", "auto")) if path else "auto"
    except (GfldetError, ValueError):
        return settings.device
    named = devices_of(device)
    if len(named) == place.local_size or place.size == 1:
        return device
    return "cpu" if named[0] == "cpu" else "auto"


def keep_warmup(settings: TrainSettings, checkpoint: Checkpoint, steps_per_epoch: int) -> TrainSettings:
    """The settings of a resumed run, whose warm-up lasts as many epochs as it did when the run was planned.

    Where an epoch has other steps than before, the warm-up's are counted anew, and kept as a setting, so that the next
    resume has them.  What the user gives now counts steps as they are now, and stays.
    """
    progress = _progress_of(checkpoint)
    before = progress.step // max(progress.epoch, 1)
    if before in (0, steps_per_epoch) or "warmup_steps" in settings.explicit:
        return settings
    epochs = progress.planned if settings.time is not None and progress.planned else settings.epochs
    # Rounded up, the next rate is at most one step of the new warm-up above the last one, and never below it.
    steps = -(-warmup_steps(settings, epochs * before) * steps_per_epoch // before)
    return replace(settings, warmup_steps=steps, origins={**settings.origins, "warmup_steps": "restored"})
