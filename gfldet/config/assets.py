"""Finds models and data sets by name: the user's own path first, then `cfg/`, in a checkout and in a wheel alike."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml

import gfldet
from gfldet.errors import ConfigError

AssetKind = Literal["models", "data"]


def cfg_folder() -> Path:
    """The folder `cfg`: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(gfldet.__file__).resolve().parent
    inside = package / "cfg"
    return inside if inside.is_dir() else package.parent / "cfg"


def find_asset(kind: AssetKind, name: str) -> Path:
    """The file that `name` means: a path of the user's own, else a name in `cfg/<kind>` with or without .yaml.

    Raises ConfigError that lists what exists if there is no such file.
    """
    found = _find(kind, name)
    if found is None:
        raise ConfigError(_missing(kind, name, [path.stem for path in _shipped(kind)]))
    return found


def resolve_model_yaml(name: str) -> tuple[Path, str | None]:
    """The model YAML that `name` means, and the scale to build it at: `gfldet-s` is (cfg/models/gfldet.yaml, "s").

    A file of that very name comes first and has no scale (None): its builder takes the file's first one, if any.
    Raises ConfigError that lists every model and scale if there is none.
    """
    found = _find("models", name)
    if found is not None:
        return found, None
    stem, dash, scale = re.sub(r"\.ya?ml$", "", name).rpartition("-")
    base = (_find("models", f"{stem}.yaml") or _find("models", f"{stem}.yml")) if dash else None
    if base is not None and scale in scales_of(base):
        return base, scale
    names = [path.stem for path in _shipped("models")]
    scaled = [f"{path.stem}-{letter}" for path in _shipped("models") for letter in scales_of(path)]
    own = [f"{stem}-{letter}" for letter in scales_of(base)] if base is not None else []
    raise ConfigError(_missing("models", name, list(dict.fromkeys([*own, *scaled, *names]))))


def scales_of(path: Path) -> tuple[str, ...]:
    """The names of the scales in a model YAML, in its order; empty if it has none.  ConfigError if it is no YAML."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: this model description is no YAML\n{error}") from error
    scales = content.get("scales") if isinstance(content, dict) else None
    return tuple(str(scale) for scale in scales) if isinstance(scales, dict) else ()


def _find(kind: AssetKind, name: str) -> Path | None:
    own = Path(name).expanduser()
    folder = cfg_folder() / kind
    shipped = [folder / name, folder / f"{name}.yaml"] if own.name == name else []
    return next((path for path in (own, *shipped) if path.is_file()), None)


def _shipped(kind: AssetKind) -> list[Path]:
    return sorted((cfg_folder() / kind).glob("*.yaml"))


def _missing(kind: AssetKind, name: str, names: list[str]) -> str:
    what = "model" if kind == "models" else "data set"
    close = get_close_matches(re.sub(r"\.ya?ml$", "", Path(name).name), names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{name}: no such {what}: neither a file nor one of {', '.join(names)}{hint}"
