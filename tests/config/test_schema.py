"""The schema agrees with itself: defaults are of their own kind, names are unique, annotations fit."""

from __future__ import annotations

from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from gfldet.config.schema import COMMANDS, GROUPS, PredictSettings, TrainSettings, settings_of

ALL = [(group, setting) for group in GROUPS for setting in settings_of(group)]


@pytest.mark.parametrize(("group", "setting"), ALL, ids=[s.name for _, s in ALL])
def test_default_is_settled_and_of_the_annotated_type(group: type, setting: Any) -> None:
    if setting.required:
        with pytest.raises(ValueError):  # noqa: PT011 - no default: the user has to say
            setting.kind.read(setting.default)
        return
    assert setting.kind.read(setting.default) == setting.default
    hint = get_type_hints(group)[setting.name]
    allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = [get_origin(a) or a for a in allowed]
    assert type(setting.default) in [NoneType if a is None else a for a in plain]


def test_no_name_stands_in_two_groups() -> None:
    names = [setting.name for _, setting in ALL]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_of_a_command_is_a_setting_in_a_group(command: str) -> None:
    held = {field.name for field in fields(COMMANDS[command])} - {"origins", "notices"}
    assert {s.name for s in settings_of(COMMANDS[command])} == held


def test_every_group_belongs_to_a_command() -> None:
    assert all(any(issubclass(settings, group) for settings in COMMANDS.values()) for group in GROUPS)


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        TrainSettings().epochs = 3  # type: ignore[misc]


def test_height_width() -> None:
    assert TrainSettings(imgsz=320).height_width == (320, 320)
    assert PredictSettings(imgsz=(320, 640)).height_width == (320, 640)
