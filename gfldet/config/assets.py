"""Finds models by name: the user's own path first, then `cfg/models`, both in a checkout and in a wheel."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

import gfldet
from gfldet.errors import ConfigError, shown
from gfldet.files import is_file, read_yaml


def cfg_folder() -> Path:
    """The folder `cfg`: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(gfldet.__file__).resolve().parent
    inside = package / "cfg"
    return inside if inside.is_dir() else package.parent / "cfg"


def resolve_model_yaml(name: str) -> tuple[Path, str | None]:
    """The model YAML that `name` means, and the scale to build it at: `gfldet-s` is (cfg/models/gfldet.yaml, "s").

    If the user's own file `my/net.yaml` has scales, `my/net-s.yaml` and `my/nets.yaml` mean its scale s, and
    `my/nets-p6.yaml` means that of `my/net-p6.yaml`.  A file with exactly the given name comes first; its scale is
    None, and the builder takes the first scale of the file, if any.  If there is no such model, raises ConfigError that
    lists every model and scale.
    """
    found = _find(name)
    if found is not None:
        return found, None
    whole = re.sub(r"\.ya?ml$", "", name)
    own: list[str] = []
    for before, scale, after in _spellings(whole):
        stem = before.removesuffix("-") + after
        base = (_find(f"{stem}.yaml") or _find(f"{stem}.yml")) if stem else None
        scales = scales_of(base) if base is not None else ()
        if base is not None and scale in scales:
            return base, scale
        own += [f"{before}{letter}{after}" for letter in scales]
    shipped = sorted((cfg_folder() / "models").glob("*.yaml"), key=lambda path: path.stem)
    scaled = [f"{path.stem}-{letter}" for path in shipped for letter in scales_of(path)]
    names = list(dict.fromkeys([*own, *scaled, *(path.stem for path in shipped)]))
    close = get_close_matches(Path(whole).name, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    known = f"a file, nor public weights (gfldet weights lists them), nor one of {', '.join(names)}"
    raise ConfigError(f"{name}: no such model: neither {known}{hint}")


def _spellings(name: str) -> list[tuple[str, str, str]]:
    """Where the scale may stand in a model's name: what is before it, the scale, what is after.

    net-n and netn for net.yaml, and netn-p6 and netn-ghost-p6 for net-p6.yaml and net-ghost-p6.yaml.
    """
    stem, dash, scale = name.rpartition("-")
    inside = [(name[: i - 1], name[i - 1], name[i:]) for i in range(2, len(name)) if name[i] == "-"]
    return [(stem + dash, scale, ""), (name[:-1], name[-1:], ""), *inside]


def scales_of(path: Path) -> tuple[str, ...]:
    """The names of the scales in a model YAML, in file order; empty if it has none.  ConfigError if it is not YAML."""
    content = read_yaml(path, ConfigError).value
    scales = content.get("scales") if isinstance(content, dict) else None
    return tuple(shown(scale, quoted=False) for scale in scales) if isinstance(scales, dict) else ()


def _find(name: str) -> Path | None:
    own = _expanded(Path(name))
    folder = cfg_folder() / "models"
    shipped = [folder / name, folder / f"{name}.yaml"] if own.name == name else []
    return next((path for path in (own, *shipped) if is_file(path)), None)


def _expanded(path: Path) -> Path:
    """A path with `~` and `~user` as the folders of these; as it is where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
