"""Where downloaded weights lie, and finding one by its name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gfldet.errors import CheckpointError, ConfigError
from gfldet.weights.table import WEIGHTS, PublicWeights

HOME = "GFLDET_HOME"


def folder() -> Path:
    """The folder that GFLDET_HOME names, else `gfldet` in the user's cache folder; it need not exist yet.

    Raises ConfigError where the user has no home.
    """
    own = os.environ.get(HOME)
    try:
        return Path(own).expanduser().absolute() if own else _cache(sys.platform)
    except RuntimeError as error:
        raise ConfigError(f"you have no home folder to keep weights in; set {HOME} to a folder") from error


def _cache(platform: str) -> Path:
    """The usual place for what can be fetched again, by the custom of the platform."""
    if platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "gfldet" / "Cache"
    if platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gfldet"
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "gfldet"


def file_of(weights: PublicWeights) -> Path:
    """Where the file of these weights lies, or would lie."""
    return folder() / weights.file


def find_weights(name: str) -> Path | None:
    """The downloaded file of public weights by their name, `v9-t`; None if there are no public weights of this name.

    Nothing is downloaded.  Raises CheckpointError, with the command that gets them, if they are not here.  A file of
    the user's that is called the same goes first: look for it before you ask here.
    """
    weights = WEIGHTS.get(name)
    if weights is None:
        return None
    path = file_of(weights)
    if not path.is_file():
        raise CheckpointError(
            f"{name}: these public weights of {weights.family} ({weights.licence}) are not in {path.parent}; "
            f"`gfldet weights get {name}` downloads them once"
        )
    return path
