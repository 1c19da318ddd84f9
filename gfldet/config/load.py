"""Defaults, files and overrides -> frozen settings; every mistake is reported at once, with the nearest right spelling.

Nothing is silently ignored: an unknown key, a value of the wrong kind, a value out of range, a key of another command
and a key given twice in a file are errors; a value that has no effect beside another one is told in `notices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, overload

import yaml

from gfldet.config.kinds import Choice
from gfldet.config.schema import (
    COMMANDS,
    AugmentationGroup,
    ExportSettings,
    ImportSettings,
    PredictSettings,
    Setting,
    Settings,
    TrainSettings,
    ValSettings,
    settings_of,
)
from gfldet.config.show import settings_yaml
from gfldet.errors import ConfigError, OutputError, listed

# Names that other detectors use and that the spelling alone does not lead home.
_ELSEWHERE = {
    "weights": "model",
    "img": "imgsz",
    "size": "imgsz",
    "image_size": "imgsz",
    "lr": "lr0",
    "learning_rate": "lr0",
    "nms": "iou",
    "threshold": "conf",
    "images": "source",
    "input": "source",
    "output": "project",
    "out": "project",
    "amsgrad": "optimizer",
}
_STEP = 32  # px; the coarsest stride of the models


@overload
def resolve(command: Literal["train"], overrides: Mapping[str, Any], file: Path | None = None) -> TrainSettings: ...
@overload
def resolve(command: Literal["val"], overrides: Mapping[str, Any], file: Path | None = None) -> ValSettings: ...
@overload
def resolve(command: Literal["predict"], overrides: Mapping[str, Any], file: Path | None = None) -> PredictSettings: ...
@overload
def resolve(command: Literal["export"], overrides: Mapping[str, Any], file: Path | None = None) -> ExportSettings: ...
@overload
def resolve(command: Literal["import"], overrides: Mapping[str, Any], file: Path | None = None) -> ImportSettings: ...
@overload
def resolve(command: str, overrides: Mapping[str, Any], file: Path | None = None) -> Settings: ...
def resolve(command: str, overrides: Mapping[str, Any], file: Path | None = None) -> Settings:
    """The settings of a command: `overrides` win over the file that `overrides["cfg"]` names, that over `file`.

    Values may be text, as a command line gives them.  A file may hold settings of other commands too, so that one file
    serves all; overrides may not.  Raises ConfigError, which lists every mistake.
    """
    settings, problems = check(command, overrides, file)
    if settings is None:
        raise ConfigError(mistakes(command, problems))
    return settings


def check(
    command: str, overrides: Mapping[str, Any], file: Path | None = None
) -> tuple[Settings, list[str]] | tuple[None, list[str]]:
    """As `resolve`, but gives the mistakes instead of raising: (settings, []) or (None, problems)."""
    if command not in COMMANDS:
        return None, [f"{command}: no such command{_hint(command, list(COMMANDS))}"]
    known = {setting.name: setting for setting in settings_of(COMMANDS[command])}
    given = dict(overrides)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for path in (file, given.pop("cfg", None)):
        if path is not None:
            _take_file(command, Path(str(path)), known, values, problems)
    for name, value in given.items():
        if name in known:
            _take(known[name], value, "", values, problems)
        else:
            problems.append(_unknown(name, command, known))
    for setting in known.values():
        if setting.required and setting.name not in values and setting.name not in given:
            problems.append(f"{setting.name}: missing; give {setting.kind.describe()}")
    if problems:
        return None, problems
    return _settled(command, values), []


def mistakes(command: str, problems: list[str]) -> str:
    """The message that tells all `problems` of a command's settings, and where the right ones are listed."""
    return listed(f"These settings of {command} cannot be used:", problems, f"gfldet {command} --help lists them all.")


def dump(settings: Settings) -> dict[str, Any]:
    """The settings as plain data (None, bool, int, float, str, list), for a checkpoint or a YAML file."""
    return {setting.name: _plain(getattr(settings, setting.name)) for setting in settings_of(type(settings))}


def save(settings: Settings, path: Path) -> None:
    """Write the resolved settings as YAML that `cfg=` takes again; OutputError if that fails."""
    command = next(name for name, kind in COMMANDS.items() if kind is type(settings))
    text = settings_yaml(dump(settings), f"Settings of this run: gfldet {command} cfg=THIS_FILE repeats it")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot write the settings ({error.strerror}); choose another project=") from error


def _take_file(
    command: str, path: Path, known: dict[str, Setting], values: dict[str, Any], problems: list[str]
) -> None:
    """Take the settings of one YAML file, each with the line where it stands."""
    try:
        entries = _read(path)
    except ConfigError as error:
        problems.append(str(error))
        return
    others = {setting.name for kind in COMMANDS.values() for setting in settings_of(kind)} - known.keys()
    seen: set[str] = set()
    for name, value, line in entries:
        where = f"{path}:{line}: "
        if name in seen:
            problems.append(f"{where}{name}: given twice in this file")
        elif name in known:
            if not (known[name].required and value is None):  # as in a copy of default.yaml: left to the command line
                _take(known[name], value, where, values, problems)
        elif name not in others:
            problems.append(where + _unknown(name, command, known))
        seen.add(name)


def _read(path: Path) -> list[tuple[str, Any, int]]:
    """The entries of a YAML mapping as (key, value, line); ConfigError if the file is none."""
    try:
        text = path.read_text(encoding="utf-8")
        node, content = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"cfg={path}: cannot be read ({reason}); give a YAML file of settings") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"cfg={path}: no YAML; write one `key: value` a line\n{error}") from error
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
        raise ConfigError(f"cfg={path}: expected settings, one `key: value` a line, as `gfldet settings` prints them")
    plain = {str(key): value for key, value in content.items()}
    return [(key.value, plain.get(key.value), key.start_mark.line + 1) for key, _ in node.value]


def _take(setting: Setting, value: Any, where: str, values: dict[str, Any], problems: list[str]) -> None:
    """Read one value into `values`, or tell in `problems` what was expected."""
    try:
        values[setting.name] = setting.kind.read(value)
    except ValueError:
        shown = value if isinstance(value, str) else repr(value)
        if len(shown) > 60:
            shown = shown[:57] + "..."
        choices = setting.kind.words if isinstance(setting.kind, Choice) else ()
        problems.append(f"{where}{setting.name}={shown}: expected {setting.kind.describe()}{_hint(shown, choices)}")


def _unknown(name: str, command: str, known: Mapping[str, Setting]) -> str:
    if name == "cfg":
        return "cfg: a file of settings cannot name another one"
    elsewhere = _ELSEWHERE.get(name.lower())
    if elsewhere in known:
        return f"{name}: no such setting; did you mean {elsewhere}?"
    owners = [other for other, kind in COMMANDS.items() if any(s.name == name for s in settings_of(kind))]
    if owners:
        others = f"{', '.join(owners[:-1])} and {owners[-1]}" if len(owners) > 1 else owners[0]
        return f"{name}: a setting of {others}, not of {command}"
    return f"{name}: no such setting{_hint(name, [*known, 'cfg'])}"


def _hint(word: str, choices: list[str] | tuple[str, ...]) -> str:
    close = get_close_matches(word.lower(), choices, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _settled(command: str, values: dict[str, Any]) -> Settings:
    """The frozen settings, the image size rounded up to whole strides, and what there is to tell about them."""
    notices = []
    if "imgsz" in values:
        given = values["imgsz"]
        values["imgsz"] = tuple(map(_rounded, given)) if isinstance(given, tuple) else _rounded(given)
        if values["imgsz"] != given:
            notices.append(f"imgsz={given} is not a multiple of {_STEP}: {values['imgsz']} is used")
    settings = COMMANDS[command](explicit=frozenset(values), **values)
    return replace(settings, notices=(*notices, *_idle(settings)))


def _rounded(side: int) -> int:
    return -(-side // _STEP) * _STEP


def _idle(settings: Settings) -> list[str]:
    """A line for each explicit setting that another one switches off."""
    lines = []
    if isinstance(settings, TrainSettings):
        moves = sorted({s.name for s in settings_of(AugmentationGroup)} & settings.explicit - {"augment"})
        if settings.augment != "default" and moves:
            lines.append(f"{', '.join(moves)}: without effect unless augment=default")
        if not settings.val and "patience" in settings.explicit:
            lines.append("patience: without effect beside val=false")
        ranking = sorted(n for n in settings.explicit if n.startswith("tal_"))
        if ranking and "tal" not in settings.assigner:
            lines.append(f"{', '.join(ranking)}: without effect beside assigner={settings.assigner}")
    if isinstance(settings, PredictSettings) and settings.save_conf and not settings.save_txt:
        lines.append("save_conf: without effect unless save_txt=true")
    return lines


def _plain(value: Any) -> Any:
    """One value as plain data; what only Python can hold (a callable, an array) as a name in angle brackets."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return f"<{getattr(value, '__qualname__', type(value).__qualname__)}>"
