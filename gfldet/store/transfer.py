"""Loads the weights of a checkpoint that fit into a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from gfldet.errors import CheckpointError, ConfigError, counted
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.store.checkpoint import Checkpoint

MUCH = 0.3  # of the numbers of a checkpoint; where less of them fit, it is of another model
IMAGENET = "imagenet"  # as a value of `pretrained`: torchvision's file in torch's cache


Extent = Literal["body", "body and boxes", "all but class rows", "everything", "parts"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What `transfer` did.

    extent   how much of the model starts from the weights: its body alone; also the branch of the boxes, of every
             level; all but the rows of its classes; everything; or parts of the body
    loaded   tensors copied whole
    classes  classes with rows copied by name; empty if both models have the same classes
    new      classes that the checkpoint does not have; empty if both models have the same classes
    left     tensors left unchanged
    """

    extent: Extent
    loaded: tuple[str, ...]
    classes: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        groups = {"classes by name": self.classes, "new classes": self.new}
        said = [f"{counted(len(self.loaded), 'tensor')} taken over: {self.extent}"]
        said += [f"{what}: {_few(names)}" for what, names in groups.items() if names]
        if self.left:
            said.append(f"{len(self.left)} left at their start, as in {_few(_places(self.left))}")
        return "; ".join(said)


def _few(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _places(names: Sequence[str]) -> list[str]:
    """The branches or layers that tensors are of: `graph.layers.22.cls.0.0.conv.weight` is of `layer 22 cls`."""
    parts = [name.removeprefix("graph.layers.").split(".") for name in names]
    return list(dict.fromkeys(" ".join(["layer", *part[: 2 if part[1].isalpha() else 1]]) for part in parts))


def _extent(model: DetectionModel, loaded: Sequence[str]) -> Extent:
    """How much of `model` the tensors `loaded` are."""
    there, names = set(loaded), list(model.state_dict())
    head = model.description.head_prefix
    rows = {head + row for row in model.head.class_rows()}
    boxes = {head + name for name in model.head.box_names()}
    if there.issuperset(names):
        return "everything"
    if there.issuperset(name for name in names if name not in rows):
        return "all but class rows"
    if not there.issuperset(name for name in names if not name.startswith(head)):
        return "parts"
    return "body and boxes" if there.issuperset(boxes) else "body"


@torch.no_grad()
def transfer(model: DetectionModel, source: Checkpoint, file: str = "pretrained") -> Transfer:
    """Copy the weights that fit from `source` into `model`, in place; rows of the class outputs are matched by name.

    Raises CheckpointError, which names `file`, when less than MUCH of the weights fits, or when they are of a ResNet of
    another depth: they are of another model.
    """
    _check_resnets(model, source, file)
    own = model.state_dict()
    last = {model.description.head_prefix + row for row in model.head.class_rows()}
    pairs = [(i, source.names.index(n)) for i, n in model.names.items() if n in source.names]
    same_names = tuple(model.names.values()) == source.names
    loaded: list[str] = []
    left: list[str] = []
    by_name = False
    for name, value in own.items():
        other = source.weights.get(name)
        if other is None or other.shape[1:] != value.shape[1:]:
            left.append(name)
        elif name in last and not same_names:
            by_name = True
            for mine, theirs in pairs:
                value[mine].copy_(other[theirs])
            if len(pairs) == len(value):
                loaded.append(name)
            elif not pairs:
                left.append(name)
        elif other.shape == value.shape:
            value.copy_(other)
            loaded.append(name)
        else:
            left.append(name)
    taken = sum(own[name].numel() for name in loaded) / max(sum(v.numel() for v in source.weights.values()), 1)
    if taken < MUCH:
        raise CheckpointError(
            f"{file}: these are weights for {source.description.name}, of which {taken:.0%} fit "
            f"{model.description.name}; give them as model= to train the model that they are of, or choose others"
        )
    compared = tuple(model.names.values()) if by_name else ()
    classes = tuple(name for name in compared if name in source.names)
    new = tuple(name for name in compared if name not in source.names)
    return Transfer(_extent(model, loaded), tuple(loaded), classes, new, tuple(left))


def _resnet(description: Description) -> str:
    """The ResNet that a model is on; empty for one on none."""
    _, _, module, args = description.rows[0]
    return "" if module != "ResNetFPN" else str(args[0]) if args else "resnet50"


def _check_resnets(model: DetectionModel, source: Checkpoint, file: str) -> None:
    """CheckpointError where both have a ResNet, but of another depth: a part of the deeper one would fit by its names,
    and is good for nothing without the rest."""
    mine, theirs = _resnet(model.description), _resnet(source.description)
    if mine and theirs and mine != theirs:
        raise CheckpointError(
            f"{file}: these are weights of a {theirs}; {model.description.name} is on a {mine}; give weights of a "
            f"{mine}, or model= on a {theirs}"
        )


def imagenet_file(model: DetectionModel) -> Path:
    """The file that `pretrained=imagenet` means: torchvision's weights of the model's ResNet in torch's cache.

    Nothing is downloaded here; the file is in the cache if another program downloaded it.  Raises CheckpointError where
    it is not, and ConfigError for a model that is on no ResNet.
    """
    resnet = _resnet(model.description)
    if not resnet:
        raise ConfigError(
            f"pretrained=imagenet: torchvision's weights fit models on a ResNet alone, such as gfl-r50, not "
            f"{model.description.name}; give a file of weights for this model"
        )
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    found = sorted(cache.glob(f"{resnet}-*.pth"))
    if not found:
        raise CheckpointError(
            f"pretrained=imagenet: no {resnet}-*.pth in {cache}, and gfldet downloads nothing; put torchvision's file "
            "there, or give its path"
        )
    return found[0]
