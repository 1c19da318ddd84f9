"""Checkpoints: tensors and plain data in one file, which is read without running any code that it may hold."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gfldet
from gfldet.errors import CheckpointError, ConfigError, OutputError, shown
from gfldet.files import is_file
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import migrations, runs

FORMAT = "gfldet-checkpoint"
VERSION = 2  # older ones are read by `migrations`
PYRAMID = "graph.layers.0.fpn."  # of a `ResNetFPN`
TRAINING_PARTS = frozenset({"weights", "optimizer", "scaler", "updates", "progress", "random"})


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a .pt file of ours holds.

    `category_ids` are the ids that the classes had in the user's files (COCO ids survive into predictions).
    `weights` are those to use (the average, where one was kept).  `settings` are the training run's.  `training` is
    there in `last.pt` alone: what is needed to go on (see `trainer`).  `licence` is that of weights brought in from
    elsewhere; empty for weights that were trained here.
    """

    description: Description
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    weights: Mapping[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    epoch: int = -1
    metrics: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None
    licence: str = ""

    @property
    def body_only(self) -> bool:
        """Whether there are weights for the layers below the head alone, since the head was one of another program."""
        return not self._has(self.description.head_prefix)

    def _has(self, part: str) -> bool:
        return any(name.startswith(part) for name in self.weights)

    def model(self, file: str = "checkpoint") -> DetectionModel:
        """A model with these weights; with those of a body alone its head is fresh, with those of a ResNet alone its
        pyramid too.

        Raises CheckpointError, which names `file`, when weights and description do not fit.
        """
        try:
            model = DetectionModel(self.description, self.names)
            weights = dict(self.weights)
            if self.body_only:
                fresh = tuple(part for part in (self.description.head_prefix, PYRAMID) if not self._has(part))
                weights |= {name: value for name, value in model.state_dict().items() if name.startswith(fresh)}
            model.load_state_dict(weights)
            return model
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ConfigError) as error:
            raise CheckpointError(
                f"{file}: the weights do not fit the model they name ({first_line(error)})"
            ) from error


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint aside, flush it to disk and rename it, so that `path` is whole or untouched at any moment.

    Raises OutputError when the folder cannot be written or the disk is full.
    """
    payload = {
        "format": FORMAT,
        "version": VERSION,
        "gfldet": gfldet.__version__,
        "model": checkpoint.description.to_dict(),
        "names": list(checkpoint.names),
        "category_ids": list(checkpoint.category_ids),
        "weights": dict(checkpoint.weights),
        "settings": dict(checkpoint.settings),
        "epoch": checkpoint.epoch,
        "metrics": dict(checkpoint.metrics),
        "training": None if checkpoint.training is None else dict(checkpoint.training),
        "licence": checkpoint.licence,
    }
    try:
        runs.write_aside(path, lambda file: torch.save(payload, file))
    except RuntimeError as error:  # what torch makes of a disk that is full
        raise OutputError(f"{path}: cannot be written ({first_line(error)}); free space or choose project=") from error


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint of ours, by the mark in it; False for one that is missing or no archive."""
    try:
        with zipfile.ZipFile(path) as file:
            found = [name for name in file.namelist() if name.rpartition("/")[2] == "data.pkl"]
            return len(found) == 1 and FORMAT.encode() in file.read(found[0])
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
        return False


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours; tensors are put on the CPU.

    Versions before VERSION are migrated.  Raises CheckpointError for a file that is missing, no checkpoint, not ours,
    of a later version, or that holds anything but tensors and plain data (such a file could run code when loaded, so it
    is refused unread).
    """
    path = Path(path)
    if not is_file(path):
        raise CheckpointError(f"{path}: no such file; give a .pt that gfldet wrote, e.g. runs/train/weights/best.pt")
    payload = _read(path)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a torch file, but no gfldet checkpoint; expected one that `gfldet train` wrote")
    version = payload.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{path}: checkpoint version {shown(version)}; this gfldet {gfldet.__version__} reads versions 1 to "
            f"{VERSION}; install the gfldet that wrote it ({shown(payload.get('gfldet'))}) or a newer one"
        )
    try:
        payload = migrations.migrated(payload, VERSION, migrations.STEPS)
        missing = TRAINING_PARTS - (TRAINING_PARTS if payload["training"] is None else payload["training"].keys())
        if missing:
            raise KeyError(*sorted(missing))
        return Checkpoint(
            description=Description.from_dict(payload["model"]),
            names=tuple(payload["names"]),
            category_ids=tuple(payload["category_ids"]),
            weights=payload["weights"],
            settings=payload["settings"],
            epoch=payload["epoch"],
            metrics=payload["metrics"],
            training=payload["training"],
            licence=payload.get("licence", ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        missed = shown(repr(error), 200, quoted=False)
        raise CheckpointError(f"{path}: parts of the checkpoint are missing ({missed}); use another file") from error


def _read(path: Path) -> Any:
    """What a torch file holds, if that is tensors and plain data alone."""
    try:
        whole = zipfile.is_zipfile(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    if not whole:  # torch would take it for one of its older formats
        raise CheckpointError(f"{path}: no checkpoint, or one that was cut short; copy it again or use another")
    return read_tensors(path)


def read_tensors(path: Path) -> Any:
    """Tensors and plain data of any torch file, without running what it may hold."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: it holds more than tensors and plain data, and loading such a file could run code. "
            f"Use a checkpoint that gfldet wrote. ({_asked_for(error)})"
        ) from error
    except Exception as error:  # bytes of any kind may be in there, and torch raises almost anything
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({first_line(error)}); copy it again or use another"
        ) from error


def load_model(path: str | Path) -> tuple[DetectionModel, Checkpoint]:
    """A checkpoint and the model it describes, or a CheckpointError when the two do not fit."""
    checkpoint = load(path)
    return checkpoint.model(str(path)), checkpoint


def _asked_for(error: pickle.UnpicklingError) -> str:
    """What torch did not take, without the ways round it that torch proposes."""
    named = re.search(r"\bGLOBAL (\S+)", str(error))
    return f"it asks for {named[1]:.100}" if named else first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error, cut to a length that fits a message, without what would steer a terminal; its class
    where it says nothing."""
    line = str(error).strip().split("\n")[0][:200]
    return "".join(c for c in line if c.isprintable()) or type(error).__name__
