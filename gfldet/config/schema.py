"""The commands: which settings each has, and what a command's settings know besides their values.

`cfg/default.yaml`, the help of the command line and the checks of `load.resolve` all come from here and from the
groups; adding a command is one class and one line in `COMMANDS`.  Standard library only, as in `groups`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Literal

from gfldet.config.groups import (
    CheckGroup,
    ComputingGroup,
    DataGroup,
    DetectionGroup,
    ExportGroup,
    GeneralGroup,
    ImportGroup,
    JsonGroup,
    LoadingGroup,
    MeasuringGroup,
    OutputGroup,
    PredictionGroup,
    PublicWeightsGroup,
    RunFolderGroup,
    TargetGroup,
    TileGroup,
    ValidationGroup,
)
from gfldet.config.setting import Setting
from gfldet.config.training_groups import AugmentationGroup, LossGroup, OptimiserGroup, TrainingGroup, TuneGroup

Origin = Literal["user", "restored", "model", "weights"]
"""Where the value of a setting comes from, the strongest first: given by the user now, by hand or in a file of one's
own; restored from a run, its checkpoint or its args.yaml; preferred by the model YAML; derived from the weights that a
run starts from.  A default has none."""


@dataclass(frozen=True, kw_only=True)
class Settings(OutputGroup):
    """What every command has, and what its settings know besides their values."""

    origins: Mapping[str, Origin] = field(default_factory=dict)
    """The origin of each setting by name; a setting that is left at its default is not in there."""
    notices: tuple[str, ...] = ()
    """What was changed in the user's values, for the user to read."""

    @property
    def explicit(self) -> frozenset[str]:
        """Names that the user gives now, by hand or in a file; such a value always wins over a derived one."""
        return frozenset(name for name, origin in self.origins.items() if origin == "user")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(
    GeneralGroup,
    ComputingGroup,
    TileGroup,
    DataGroup,
    LoadingGroup,
    MeasuringGroup,
    DetectionGroup,
    TrainingGroup,
    OptimiserGroup,
    AugmentationGroup,
    LossGroup,
    RunFolderGroup,
    Settings,
):
    """Train a model, validating as it goes"""


@dataclass(frozen=True, kw_only=True)
class TuneSettings(TuneGroup, TrainSettings):
    """Find better settings for a data set, by trainings that are compared; what you set stays as it is"""


@dataclass(frozen=True, kw_only=True)
class ValSettings(
    GeneralGroup,
    ComputingGroup,
    TileGroup,
    DataGroup,
    LoadingGroup,
    MeasuringGroup,
    DetectionGroup,
    ValidationGroup,
    RunFolderGroup,
    Settings,
):
    """Measure a checkpoint on labelled images"""


@dataclass(frozen=True, kw_only=True)
class CheckSettings(GeneralGroup, DataGroup, CheckGroup, JsonGroup, RunFolderGroup, Settings):
    """Find what is wrong with a data set, and what is worth a look"""


@dataclass(frozen=True, kw_only=True)
class PredictSettings(
    GeneralGroup, ComputingGroup, TileGroup, DetectionGroup, PredictionGroup, RunFolderGroup, Settings
):
    """Find objects in images and videos"""


@dataclass(frozen=True, kw_only=True)
class ExportSettings(
    GeneralGroup, ComputingGroup, DataGroup, LoadingGroup, DetectionGroup, ExportGroup, TargetGroup, Settings
):
    """Write a checkpoint as a file that other programs run, proven equal to it"""


@dataclass(frozen=True, kw_only=True)
class ImportSettings(ImportGroup, TargetGroup, Settings):
    """Bring in weights of another program as a checkpoint"""


@dataclass(frozen=True, kw_only=True)
class WeightsSettings(PublicWeightsGroup, JsonGroup, Settings):
    """List public weights to start from, or download one of them"""


COMMANDS: dict[str, type[Settings]] = {
    "check": CheckSettings,
    "train": TrainSettings,
    "tune": TuneSettings,
    "val": ValSettings,
    "predict": PredictSettings,
    "export": ExportSettings,
    "import": ImportSettings,
    "weights": WeightsSettings,
}
VERBS = {"weights": "get"}
"""A setting of a command that may also be written as a word before its value: `gfldet weights get v9-t`."""
GROUPS: tuple[type, ...] = (
    GeneralGroup,
    ComputingGroup,
    TileGroup,
    DataGroup,
    LoadingGroup,
    MeasuringGroup,
    TrainingGroup,
    TuneGroup,
    OptimiserGroup,
    AugmentationGroup,
    LossGroup,
    ValidationGroup,
    PredictionGroup,
    DetectionGroup,
    ExportGroup,
    ImportGroup,
    PublicWeightsGroup,
    CheckGroup,
    JsonGroup,
    TargetGroup,
    RunFolderGroup,
    OutputGroup,
)


def settings_of(part: type) -> Iterator[Setting]:
    """The settings of a group or of a command, in the order of the schema."""
    for group in GROUPS:
        for entry in fields(group) if issubclass(part, group) else ():
            default = None if entry.default is MISSING else entry.default
            yield Setting(name=entry.name, default=default, **entry.metadata)


def groups_of(command: str) -> list[tuple[str, list[Setting]]]:
    """The groups of a command, each as its title and its settings."""
    return [(str(group.__doc__), list(settings_of(group))) for group in GROUPS if issubclass(COMMANDS[command], group)]


def commands_with(group: type) -> list[str]:
    """The commands that a group belongs to."""
    return [command for command, settings in COMMANDS.items() if issubclass(settings, group)]
