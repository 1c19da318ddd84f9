"""In which folder a tune goes on, or that it begins; and which settings tell one tune from another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gfldet.config.load import dump
from gfldet.config.schema import TuneSettings
from gfldet.errors import ConfigError, shown
from gfldet.files import is_file
from gfldet.train.several import OWN as NO_MATTER
from gfldet.tune.records import FILE, Records, load

LENGTH = {"trials", "time"}  # of the tune; a tune that goes on may have another one
OWN = {*LENGTH, "resume", "project", "name", "exist_ok", "verbose"}  # of the tune, not of its trainings
MAY_DIFFER = NO_MATTER | LENGTH  # in a tune that goes on


def given_settings(settings: TuneSettings, cfg: str | None) -> dict[str, Any]:
    """What the user gives now, as plain data, but for where the tune is written; and the path of a file that a run
    wrote, whose values are defaults."""
    plain = dump(settings)
    given = {name: plain[name] for name in sorted(settings.explicit - OWN | settings.explicit & LENGTH)}
    return {**given, "cfg": str(cfg)} if "restored" in settings.origins.values() else given


def folder_to_go_on(settings: TuneSettings, given: Mapping[str, Any], report: str) -> Path | None:
    """The folder of the tune that goes on; None for one that begins.

    It is the one that `resume` names (true: the newest in `project`), or that `name` does, or else the newest of those
    without a name if it has the settings that are `given` and no `report` yet.  With `exist_ok` the name is tune if
    none is given.  Raises ConfigError where `resume` names none.
    """
    root, name = Path(settings.project), settings.name or ("tune" if settings.exist_ok else "")
    wanted = Path(settings.resume) if isinstance(settings.resume, str) else root / name
    if (name or isinstance(settings.resume, str)) and _holds_tune(wanted):
        return wanted
    if settings.resume is True and not name and (newest := _newest(root.glob("*"))):
        return newest
    if settings.resume is not False:
        raise ConfigError(f"resume: there is no tune in {wanted}; give its folder, as in resume=runs/tune")
    numbered = _newest(folder for folder in root.glob("tune*") if re.fullmatch(r"tune\d*", folder.name))
    if name or numbered is None or is_file(numbered / report):
        return None
    return None if differences(load(numbered).settings, given) else numbered


def differences(before: Mapping[str, Any], given: Mapping[str, Any], only_given: bool = False) -> list[str]:
    """The settings in which two tunes differ, in words; with `only_given` those alone that are given now."""
    names = sorted((set(given) if only_given else set(given) | set(before)) - MAY_DIFFER)
    return [
        f"{name} is {_told(before, name)} there and {_told(given, name)} here"
        for name in names
        if (name in before, before.get(name)) != (name in given, given.get(name))
    ]


def agreed(records: Records, given: Mapping[str, Any], folder: Path, only_given: bool) -> dict[str, Any]:
    """The settings of a tune that goes on, with those of MAY_DIFFER as they are given now.

    Raises ConfigError where others differ.
    """
    if found := differences(records.settings, given, only_given):
        raise ConfigError(
            f"{folder} holds another tune: {'; '.join(found)}; give the same settings to go on with it, or another "
            "name= to begin one"
        )
    kept = {name: value for name, value in records.settings.items() if only_given or name not in MAY_DIFFER}
    return {**kept, **given}


def model_of(settings: TuneSettings) -> str:
    """The model of the tune that `resume` names."""
    folder = folder_to_go_on(settings, {}, "")
    assert folder is not None  # or it was refused
    return str(load(folder).settings.get("model", settings.model))


def _holds_tune(folder: Path) -> bool:
    return is_file(folder / FILE)


def _newest(folders: Iterable[Path]) -> Path | None:
    found = [folder for folder in folders if _holds_tune(folder)]
    return max(found, key=lambda folder: os.path.getmtime(folder / FILE), default=None)


def _told(settings: Mapping[str, Any], name: str) -> str:
    return shown(settings[name], 60, quoted=False) if name in settings else "left open"
