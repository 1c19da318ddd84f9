"""Checkpoints: tensors and plain data in one file, which is read without running any code that it may hold."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

import gfldet
from gfldet.errors import CheckpointError, ConfigError, OutputError, counted, shown
from gfldet.files import is_file
from gfldet.nn.build import Description
from gfldet.nn.limits import MAX_CLASSES, MAX_NUMBERS, AtMost
from gfldet.nn.tasks import DetectionModel
from gfldet.store import archive, migrations, unpickle
from gfldet.writing import write_aside

FORMAT = "gfldet-checkpoint"
VERSION = 2  # older ones are read by `migrations`
PYRAMID = "graph.layers.0.fpn."  # of a `ResNetFPN`
NOTHING = unpickle.Allowed()  # beside tensors
ROOM = 1 << 24  # numbers that a model is made with beside its own: 16 million
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
            with AtMost(self._size()):
                model = DetectionModel(self.description, self.names)
            weights = dict(self.weights)
            if self.body_only:
                fresh = tuple(part for part in (self.description.head_prefix, PYRAMID) if not self._has(part))
                weights |= {name: value for name, value in model.state_dict().items() if name.startswith(fresh)}
            model.load_state_dict(weights)
            return model
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ConfigError) as error:
            raise CheckpointError(
                f"{file}: the weights do not fit the model they name ({_on_a_line(error)})"
            ) from error

    def _size(self) -> int:
        """Numbers that a model with these weights can take while it is made: its description may tell anything."""
        return MAX_NUMBERS if self.body_only else ROOM + 2 * sum(value.numel() for value in self.weights.values())


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
        write_aside(path, lambda file: _write(payload, file))
    except RuntimeError as error:
        raise OutputError(f"{path}: cannot be written ({first_line(error)}); choose another project=") from error


class _Watched:
    """A file that remembers why it could not be written to: torch tells of its own bookkeeping instead."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """As the file's own."""
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """As the file's own."""
        self.file.flush()


def _write(payload: Mapping[str, Any], file: BinaryIO) -> None:
    """`torch.save` into an open file; OSError where the file cannot be written to."""
    watched = _Watched(file)
    try:
        torch.save(payload, watched)  # type: ignore[arg-type, unused-ignore]
    except RuntimeError as error:
        raise watched.error or error from error


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint of ours, by the mark in it; False for one that is missing or no archive."""
    try:
        with archive.opened(path) as records:
            return FORMAT.encode() in records.pickle()
    except (OSError, archive.Refusal):
        return False


def settings_in(path: Path) -> Mapping[str, Any]:
    """The settings of the run that wrote a checkpoint, whose tensors are not read; none of a file that is no checkpoint
    (`load` tells why)."""
    try:
        with unpickle.opened(path, NOTHING) as file:
            settings = file.tree["settings"]
    except Exception:  # bytes of any kind may be in there
        return {}
    return settings if PARTS["settings"].fits(settings) else {}


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours; tensors are put on the CPU.

    Versions before VERSION are migrated.  Raises CheckpointError for a file that is missing, no checkpoint, not ours,
    of a later version, or that holds anything but tensors and plain data (such a file could run code when loaded, so it
    is refused unread), or parts of other kinds than ours have.
    """
    path = Path(path)
    if not is_file(path):
        raise CheckpointError(
            f"{path}: no such file; give a .pt that gfldet wrote, e.g. runs/train/weights/best.pt, weights of another "
            "program, or the name of public ones (gfldet weights lists them)"
        )
    payload = _read(path)
    if not isinstance(payload, dict) or not isinstance(payload.get("format"), str) or payload["format"] != FORMAT:
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
        description = Description.from_dict(payload["model"])
        parts = {name: payload.get(name, "") if name == "licence" else payload[name] for name in PARTS}
    except ConfigError as error:
        raise CheckpointError(
            f"{path}: the model it describes is none ({_on_a_line(error)}); use another file"
        ) from error
    except Exception as error:  # values of any kind may stand where others belong
        missed = shown(repr(error), 200, quoted=False)
        raise CheckpointError(f"{path}: parts of the checkpoint are missing ({missed}); use another file") from error
    for name, part in PARTS.items():
        if not part.fits(parts[name]):
            told = f"{name} {shown(parts[name])}; {part.expected} expected"
            raise CheckpointError(f"{path}: a part of the checkpoint is damaged ({told}); use another file")
    names, ids = tuple(parts.pop("names")), tuple(parts.pop("category_ids"))
    if len(names) != len(ids):
        raise CheckpointError(
            f"{path}: {counted(len(names), 'name')} and {counted(len(ids), 'category id')} in it; use another file"
        )
    return Checkpoint(description, names, ids, **parts)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a part of a checkpoint has to be: whether a value is, and in words."""

    fits: Callable[[Any], bool]
    expected: str


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 63


def _number(value: Any) -> bool:
    return type(value) is float or _whole(value)


def _listed(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= MAX_CLASSES and all(map(of, value))


def _table(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value) and all(map(of, value.values()))


def _setting(value: Any, depth: int = 2) -> bool:
    """Whether a value is one that settings have: a word, a number, or a list of these (of lists, down to `depth`)."""
    if isinstance(value, (list, tuple)):
        return depth > 0 and len(value) <= MAX_CLASSES and all(_setting(item, depth - 1) for item in value)
    return value is None or isinstance(value, (bool, str)) or _number(value)


def _training(value: Any) -> bool:
    """Whether a value is a state of training; what its parts hold is judged by those that they are of."""
    return value is None or (
        _table(value, lambda _: True)
        and _table(value["weights"], lambda part: isinstance(part, Tensor))
        and isinstance(value["optimizer"], dict)
        and _table(value["scaler"], _number)
        and _whole(value["updates"])
        and _table(value["progress"], _number)
        and isinstance(value["random"], Tensor)
    )


PARTS: Mapping[str, _Part] = {
    "names": _Part(lambda value: bool(value) and _listed(value, lambda name: isinstance(name, str)), "a list of text"),
    "category_ids": _Part(lambda value: _listed(value, _whole), "a list of whole numbers"),
    "weights": _Part(lambda value: _table(value, lambda part: isinstance(part, Tensor)), "tensors by name"),
    "settings": _Part(lambda value: _table(value, _setting), "settings by name"),
    "epoch": _Part(_whole, "a whole number"),
    "metrics": _Part(lambda value: _table(value, _number), "numbers by name"),
    "training": _Part(_training, "the state of a run, or nothing"),
    "licence": _Part(lambda value: isinstance(value, str), "text"),
}


def _read(path: Path) -> Any:
    """What a torch file holds, if that is tensors and plain data alone."""
    try:
        whole = zipfile.is_zipfile(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    if not whole:  # it may be of one of torch's older formats, which ours never were
        raise CheckpointError(f"{path}: no checkpoint, or one that was cut short; copy it again or use another")
    try:
        with unpickle.opened(path, NOTHING) as file:
            return file.plain()
    except unpickle.Forbidden as error:
        raise CheckpointError(
            f"{path}: refused: it holds more than tensors and plain data, and loading such a file could run code. "
            f"Use a checkpoint that gfldet wrote. ({first_line(error)})"
        ) from error
    except Exception as error:  # bytes of any kind may be in there
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({first_line(error)}); copy it again or use another"
        ) from error


def load_model(path: str | Path) -> tuple[DetectionModel, Checkpoint]:
    """A checkpoint and the model it describes, or a CheckpointError when the two do not fit."""
    checkpoint = load(path)
    return checkpoint.model(str(path)), checkpoint


def first_line(error: BaseException) -> str:
    """The first line of an error, cut to a length that fits a message, without what would steer a terminal; its class
    where it says nothing."""
    return _printable(str(error)[:1000].strip().split("\n")[0]) or type(error).__name__


def _on_a_line(error: BaseException) -> str:
    """As `first_line`, of all lines."""
    return _printable(" ".join(str(error)[:1000].split()))


def _printable(text: str) -> str:
    return "".join(c for c in text[:200] if c.isprintable())
