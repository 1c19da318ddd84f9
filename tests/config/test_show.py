"""Settings as text: the shipped default.yaml is the schema's, YAML reads back, the help names every setting."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from gfldet.config.assets import cfg_folder
from gfldet.config.schema import COMMANDS, GROUPS, settings_of
from gfldet.config.show import default_yaml, help_table, scalar, settings_yaml


def test_shipped_default_yaml_is_the_schemas() -> None:
    shipped = (cfg_folder() / "default.yaml").read_text(encoding="utf-8")
    assert shipped == default_yaml(), "out of date: run `gfldet settings > cfg/default.yaml`"


def test_default_yaml_holds_every_key_with_its_default_and_a_comment() -> None:
    text = default_yaml()
    settings = [s for group in GROUPS for s in settings_of(group)]
    plain = {s.name: list(s.default) if isinstance(s.default, tuple) else s.default for s in settings}
    assert yaml.safe_load(text) == plain
    for s in settings:
        line = next(line for line in text.splitlines() if line.startswith(f"{s.name}:"))
        assert s.help in line
        assert f"[{s.kind.describe()}]" in line
        assert s.unit in line


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -3, 1.0, 1e-05, 1.5e-07, 1e22, 0.1),
        *("", "text", "a/b.pt", "on", "No", "NULL", "y", "12", "1e3", "0x1f", ".5", "-.inf", "...", "~", "a: b", "#c"),
        *("it's", 'say "ja"', "größe", "line\nbreak", "[a, b]", "=", "<<", "2026-01-01", " a", "a ", "C:\\x", "_1"),
        *([], [1, "two", None], [[640, 480]], ".nan", ".inf", "./a", "../a", "😀", "/a", "/"),
    ],
)
def test_scalar_reads_back(value: Any) -> None:
    back = yaml.safe_load(f"key: {scalar(value)}")["key"]
    assert back == value
    assert type(back) is type(value)


def test_settings_yaml_has_its_head_as_a_comment() -> None:
    assert settings_yaml({"a": 1, "b": None}, "of this run") == "# of this run\na: 1\nb: null\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_line_for_each_setting_of_the_command(command: str) -> None:
    table = help_table(command)
    names = re.findall(r"^  (\w+) ", table, flags=re.MULTILINE)
    assert sorted(names) == sorted(s.name for s in settings_of(COMMANDS[command]))
    assert max(map(len, table.splitlines())) <= 120
