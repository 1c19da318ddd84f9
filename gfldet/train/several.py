"""What several processes of one training agree on before it: settings, data, weights, and how a batch is divided."""

from __future__ import annotations

import torch

import gfldet
from gfldet.config.kinds import AUTO_BATCH
from gfldet.config.load import dump
from gfldet.config.schema import TrainSettings
from gfldet.data.likeness import hashed, likeness
from gfldet.errors import ConfigError
from gfldet.nn.summary import bytes_of_weights
from gfldet.ranks.value import Ranks
from gfldet.train.trainer import Trainer

OWN = {"device", "threads", "workers", "verbose", "plots", "cache", "log"}  # may differ: no result depends on them


def settings_to_share(settings: TrainSettings) -> dict[str, object]:
    """The settings and versions that all processes must have alike."""
    return {**dump(settings, OWN), "gfldet": gfldet.__version__, "torch": torch.__version__}


def run_to_share(trainer: Trainer) -> dict[str, object]:
    """Data, weights and numbers that all processes must have alike, long ones as their hash."""
    return {
        **likeness(trainer.train.split),
        **(likeness(trainer.val.split) if trainer.val else {}),
        "the weights at the start": hashed(bytes_of_weights(trainer.model)),
        "the plan": hashed([repr(trainer.plan).encode()]),
        "the epochs that are done": trainer.progress.epoch,
    }


def check_share(settings: TrainSettings, ranks: Ranks) -> None:
    """ConfigError where a batch has fewer images than there are processes, or is to be chosen for several."""
    if settings.batch == AUTO_BATCH and ranks.size > 1:
        raise ConfigError(f"batch=auto: for one process; give a number for {ranks.size} of them, as in batch=64")
    if AUTO_BATCH != settings.batch < ranks.size:
        raise ConfigError(
            f"batch={settings.batch}: it is the whole batch, of which each of {ranks.size} processes takes its share; "
            f"set batch to {ranks.size} or more, or start fewer processes"
        )


def told_of_ranks(batch: int, ranks: Ranks) -> str:
    """How a batch is divided."""
    least, more = divmod(batch, ranks.size)
    shares = f"{least} images each" if not more else f"{least + 1} images for {more} of them, {least} for the others"
    return f"{ranks.size} processes, {ranks.local_size} on this machine; of each batch {shares}"
