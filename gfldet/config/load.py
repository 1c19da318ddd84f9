"""Layers of settings -> frozen settings; every mistake is reported at once, with the nearest right spelling.

Nothing is silently ignored: an unknown key, a value of the wrong kind, a value out of range, a key of another command
and a key given twice in a file are errors; a value that has no effect beside another one is told in `notices`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, overload

from gfldet.config.elsewhere import INSTEAD, INSTEAD_IN, SAME, asks_for_the_same
from gfldet.config.groups import TileGroup
from gfldet.config.kinds import AUTO_BATCH, Choice
from gfldet.config.schema import (
    COMMANDS,
    CheckSettings,
    ExportSettings,
    ImportSettings,
    Origin,
    PredictSettings,
    Settings,
    TrainSettings,
    TuneSettings,
    ValSettings,
    settings_of,
)
from gfldet.config.setting import Setting
from gfldet.config.show import settings_yaml
from gfldet.config.training_groups import AugmentationGroup
from gfldet.errors import ConfigError, listed, nearest, shown
from gfldet.files import read_yaml

_STEP = 32  # px; the coarsest stride of the models
MAX_ENTRIES = 1000  # of a file of settings; one that has more is another kind of file
RUN_MARK = "gfldet: written by a run"  # the first line, a comment, of a file of settings that a run wrote


Layer = Mapping[str, Any]  # names and values of one origin; values may be text, as a command line gives them
_NOTHING: Layer = MappingProxyType({})


@overload
def resolve(
    command: Literal["train"], overrides: Layer, *, restored: Layer = ..., file: str = ..., preferred: Layer = ...
) -> TrainSettings: ...
@overload
def resolve(command: Literal["tune"], overrides: Layer) -> TuneSettings: ...
@overload
def resolve(command: Literal["check"], overrides: Layer) -> CheckSettings: ...
@overload
def resolve(command: Literal["val"], overrides: Layer, *, restored: Layer = ..., file: str = ...) -> ValSettings: ...
@overload
def resolve(
    command: Literal["predict"], overrides: Layer, *, restored: Layer = ..., file: str = ...
) -> PredictSettings: ...
@overload
def resolve(
    command: Literal["export"], overrides: Layer, *, restored: Layer = ..., file: str = ...
) -> ExportSettings: ...
@overload
def resolve(command: Literal["import"], overrides: Layer) -> ImportSettings: ...
@overload
def resolve(
    command: str, overrides: Layer, *, restored: Layer = ..., file: str = ..., preferred: Layer = ...
) -> Settings: ...
def resolve(
    command: str,
    overrides: Layer,
    *,
    restored: Layer = _NOTHING,
    file: str = "",
    preferred: Layer = _NOTHING,
) -> Settings:
    """The settings of a command, each from the strongest source that has it: `overrides`, what the user gives now; the
    file that `overrides["cfg"]` names; `restored`, the settings of an earlier run; `preferred`, those of the model
    YAML; the default.

    `file`: the path of the file that `restored` was read from, for messages.
    A file may hold settings of other commands too, so that one file serves all; overrides may not.  The values of a
    file count as the user's own, those of an args.yaml that a run wrote (see `save`) as restored from that run.
    Raises ConfigError, which lists every mistake.
    """
    settings, problems = check(command, overrides, restored=restored, file=file, preferred=preferred)
    if settings is None:
        raise ConfigError(mistakes(command, problems))
    return settings


def check(
    command: str, overrides: Layer, *, restored: Layer = _NOTHING, file: str = "", preferred: Layer = _NOTHING
) -> tuple[Settings, list[str]] | tuple[None, list[str]]:
    """As `resolve`, but gives the mistakes instead of raising: (settings, []) or (None, problems)."""
    if command not in COMMANDS:
        return None, [f"{command}: no such command{_hint(command, list(COMMANDS))}"]
    found = _Reading(command, {setting.name: setting for setting in settings_of(COMMANDS[command])})
    given = {name: value for name, value in overrides.items() if name != "cfg"}
    if overrides.get("cfg") is not None:
        found.take_file(Path(str(overrides["cfg"])))
    found.take_all(given, "user")
    where = f"{file}: " if file else ""
    weaker: tuple[tuple[Layer, Origin, str], ...] = ((restored, "restored", where), (preferred, "model", ""))
    for layer, origin, place in weaker:  # these only fill what is open: what they hold beside it need not even be right
        open_ = {name: v for name, v in layer.items() if name not in found.values and name not in given}
        found.take_all(open_, origin, place)
    for setting in found.known.values():
        if setting.required and setting.name not in found.values and setting.name not in given:
            found.problems.append(f"{setting.name}: missing; give {setting.kind.describe()}")
    if found.problems:
        return None, found.problems
    return _settled(found), []


def mistakes(command: str, problems: list[str]) -> str:
    """The message that tells all `problems` of a command's settings, and where the right ones are listed."""
    return listed(f"These settings of {command} cannot be used:", problems, f"gfldet {command} --help lists them all.")


def dump(settings: Settings, without: Container[str] = ()) -> dict[str, Any]:
    """The settings as plain data (None, bool, int, float, str, list), for a checkpoint or a YAML file."""
    names = (setting.name for setting in settings_of(type(settings)) if setting.name not in without)
    return {name: _plain(getattr(settings, name)) for name in names}


def run_yaml(settings: Settings) -> str:
    """The resolved settings as YAML that `cfg=` takes again.

    The first line, RUN_MARK, tells that a run wrote the file, so that its values count as restored from that run: most
    of them are defaults, which the user never gave.
    """
    command = next(name for name, kind in COMMANDS.items() if kind is type(settings))
    head = (
        f"{RUN_MARK}\n"
        f"Settings of this run: gfldet {command} cfg=THIS_FILE repeats it.  While the line above is the file's first,\n"
        "they count as restored from the run, not as given by you; leave it out of a file of your own."
    )
    return settings_yaml(dump(settings), head)


@dataclass
class _Reading:
    """The values of a command that were read so far, where each came from, and the mistakes in them."""

    command: str
    known: Mapping[str, Setting]
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def take_all(self, layer: Layer, origin: Origin, where: str = "") -> None:
        """Read the values of one source; a name that is no setting of the command is a mistake."""
        for name, value in layer.items():
            if name in self.known:
                self._take(name, value, origin, where)
            else:
                self._pass(name, value, where)

    def strength(self, name: str) -> int:
        """How strong the source of a value is; 0 for a default."""
        strongest_first = get_args(Origin)
        return len(strongest_first) - strongest_first.index(self.origins[name]) if name in self.origins else 0

    def take_file(self, path: Path) -> None:
        """Read the settings of one YAML file; a mistake is told with the line where it stands."""
        try:
            entries, of_a_run = _read(path)
        except ConfigError as error:
            self.problems.append(f"cfg={error}")
            return
        others = {setting.name for kind in COMMANDS.values() for setting in settings_of(kind)} - self.known.keys()
        seen: set[str] = set()
        for name, value, line in entries:
            where = f"{path}:{line}: "
            if name in seen:
                self.problems.append(f"{where}{shown(name, quoted=False)}: given twice in this file")
            elif name in self.known:
                # None as in a copy of default.yaml: left to the command line
                if not (self.known[name].required and value is None):
                    self._take(name, value, "restored" if of_a_run else "user", where)
            elif name not in others:
                self._pass(name, value, where)
            seen.add(name)

    def _pass(self, name: str, value: Any, where: str) -> None:
        """Tell of a name that is no setting of the command: in `notices` where its value asks for nothing else."""
        if asks_for_the_same(self.command, name, value):
            given = shown(value, 60, quoted=False)
            self.notices.append(f"{where}{name}={given}: not needed; {self.command} does so in any case")
        else:
            self.problems.append(where + _unknown(name, self.command, self.known))

    def _take(self, name: str, value: Any, origin: Origin, where: str = "") -> None:
        """Read one value, or tell in `problems` what was expected."""
        kind = self.known[name].kind
        try:
            self.values[name] = kind.read(value)
            self.origins[name] = origin
        except ValueError:
            given = shown(value, 60, quoted=False)
            choices = kind.words if isinstance(kind, Choice) else ()
            self.problems.append(f"{where}{name}={given}: expected {kind.describe()}{_hint(given, choices)}")


def _read(path: Path) -> tuple[list[tuple[str, Any, int]], bool]:
    """The entries of a YAML mapping as (key, value, line), and whether a run wrote it; ConfigError if it is none."""
    found = read_yaml(path, ConfigError)
    content = {} if found.value is None else found.value
    if not isinstance(content, dict) or len(found.keys) > MAX_ENTRIES:
        raise ConfigError(f"{path}: expected settings, one `key: value` a line, as `gfldet settings` prints them")
    plain = {str(key): value for key, value in content.items()}
    return [(key, plain.get(key), line) for key, line in found.keys], found.text.startswith(f"# {RUN_MARK}\n")


def _unknown(name: str, command: str, known: Mapping[str, Setting]) -> str:
    if name == "cfg":
        return "cfg: a file of settings cannot name another one"
    same = SAME.get(name.lower())
    if same in known:
        return f"{name}: no such setting; did you mean {same}?"
    instead = INSTEAD_IN.get((command, name.lower())) or INSTEAD.get(name.lower())
    if instead:
        return f"{name}: no such setting of {command}; {instead}"
    owners = [other for other, kind in COMMANDS.items() if any(s.name == name for s in settings_of(kind))]
    if owners:
        others = f"{', '.join(owners[:-1])} and {owners[-1]}" if len(owners) > 1 else owners[0]
        return f"{name}: a setting of {others}, not of {command}"
    return f"{shown(name, quoted=False)}: no such setting{_hint(name, [*known, 'cfg'])}"


def _hint(word: str, choices: list[str] | tuple[str, ...]) -> str:
    close = nearest(word[:80], choices)
    return f"; did you mean {close}?" if close else ""


def _settled(found: _Reading) -> Settings:
    """The frozen settings, the sizes of images and tiles rounded up to whole strides, and what there is to tell about
    them.

    With tiles, an image size that comes from a weaker source than `tile` is that of the tiles.
    """
    notices, values = list(found.notices), found.values
    if values.get("batch") == AUTO_BATCH and found.command != "train":
        values["batch"] = found.known["batch"].default
        notices.append(f"batch=auto: for gfldet train; {values['batch']} is used")
    for name in ("imgsz", "tile"):
        given = values.get(name)
        if given is not None:
            values[name] = tuple(map(_rounded, given)) if isinstance(given, tuple) else _rounded(given)
            if values[name] != given:
                notices.append(f"{name}={given} is not a multiple of {_STEP}: {values[name]} is used")
    if values.get("tile") is not None and found.strength("tile") > found.strength("imgsz"):
        values["imgsz"] = values["tile"]
        found.origins.pop("imgsz", None)
    settings = COMMANDS[found.command](origins=found.origins, **values)
    return replace(settings, notices=(*notices, *_idle(settings)))


def _rounded(side: int) -> int:
    return -(-side // _STEP) * _STEP


def _idle(settings: Settings) -> list[str]:
    """A line for each setting that the user gives now and another one switches off."""
    lines = []
    if isinstance(settings, TrainSettings):
        moves = sorted({s.name for s in settings_of(AugmentationGroup)} & settings.explicit - {"augment", "augment_at"})
        own = callable(settings.augment)
        if "augment_at" in settings.explicit and not own:
            lines.append("augment_at: without effect without an augmentation of your own, augment=FUNCTION from Python")
        if settings.augment != "default" and moves and not (own and settings.augment_at != "instead"):
            lines.append(f"{', '.join(moves)}: without effect unless augment=default")
        if not settings.val and "patience" in settings.explicit:
            lines.append("patience: without effect beside val=false")
        decides = settings.time is not None and not isinstance(settings, TuneSettings)
        if decides and {"epochs", "time"} <= settings.explicit:
            lines.append(f"epochs: without effect beside time={settings.time:g}, which decides how many there are")
        ranking = sorted(n for n in settings.explicit if n.startswith("tal_"))
        if ranking and "tal" not in settings.assigner:
            lines.append(f"{', '.join(ranking)}: without effect beside assigner={settings.assigner}")
    about_tiles = sorted({"overlap", "tile_whole"} & settings.explicit)
    if about_tiles and isinstance(settings, TileGroup) and settings.tile is None:
        lines.append(f"{', '.join(about_tiles)}: without effect unless tile is set")
    if isinstance(settings, PredictSettings) and settings.save_conf and not settings.save_txt:
        lines.append("save_conf: without effect unless save_txt=true")
    if (
        isinstance(settings, PredictSettings)
        and settings.image_url
        and "labelstudio" not in (settings.save_format or ())
    ):
        lines.append("image_url: without effect unless save_format=labelstudio")
    return lines


def _plain(value: Any) -> Any:
    """One value as plain data; what only Python can hold (a callable, an array) as a name in angle brackets."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return f"<{getattr(value, '__qualname__', type(value).__qualname__)}>"
