"""Public weights, downloaded because the user asks and proven by the readers of this room."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from gfldet.errors import CheckpointError, ConfigError
from gfldet.messages import teller
from gfldet.weights.download import download
from gfldet.weights.table import PublicWeights, named


def fetch(name: str, *, again: bool = False, verbose: bool = True) -> Path:
    """The file of the public weights of this name, downloaded unless it is here already (with `again`, in any case).

    Raises ConfigError for an unknown name or without torch, which proves that the file is readable, and DownloadError
    or OutputError as `weights.download` does.
    """
    weights = addressed(named(name))
    if find_spec("torch") is None:
        raise ConfigError(f"{name}: torch, which reads these weights, is not installed; pip install torch torchvision")
    tell = teller(verbose)
    path = download(weights, lambda file: _prove(file, weights), again=again, tell=tell, verbose=verbose)
    tell(f"licence: {weights.licence}, of its authors ({weights.page}); it holds for what is trained from them too")
    tell(f"gfldet train pretrained={name} starts from them")
    return path


def addressed(weights: PublicWeights) -> PublicWeights:
    """The weights with the address that torchvision names, for those of torchvision."""
    if weights.address or find_spec("torchvision") is None:
        return weights
    from torchvision.models import get_model_weights

    return replace(weights, address=get_model_weights(weights.name).COCO_V1.url)


def _prove(path: Path, weights: PublicWeights) -> None:
    """CheckpointError unless this is a readable file of the family and size that is listed."""
    from gfldet.imports.registry import read_foreign

    found = read_foreign(path)
    if found.family != weights.family or found.description.name not in weights.fits:
        raise CheckpointError(
            f"it holds weights of {found.family} for {found.description.name}, expected are those of {weights.family} "
            f"for {' or '.join(weights.fits)}"
        )
