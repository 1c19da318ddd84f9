"""What a setting is: its name, default, kind, help and unit, as a field of a group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gfldet.config.kinds import Kind


@dataclass(frozen=True)
class Setting:
    """One setting as the help, `default.yaml` and the checks see it."""

    name: str
    default: Any
    kind: Kind
    help: str
    unit: str
    required: bool


def setting(default: Any, kind: Kind, help: str, unit: str = "", required: bool = False) -> Any:
    """A dataclass field that carries what `Setting` needs."""
    return field(default=default, metadata={"kind": kind, "help": help, "unit": unit, "required": required})
