"""Settings as text: the table of the help, `cfg/default.yaml`, and the YAML that a run keeps.

`gfldet settings` prints `default_yaml()`; `gfldet settings > cfg/default.yaml` updates the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from textwrap import wrap
from typing import Any

from gfldet.config.schema import COMMANDS, GROUPS, commands_with, groups_of, settings_of
from gfldet.config.setting import Setting

_HEAD = """\
# Every setting of gfldet with its default, its meaning and [what it takes].  Generated from gfldet/config by
# `gfldet settings`.  A copy may hold fewer keys and serve every command: gfldet train cfg=my.yaml epochs=20
"""
# YAML 1.1 and 1.2 read this as text without quotes, unless it is one of _WORDS.
_PLAIN = re.compile(r"(\.{0,2}/)?[A-Za-z_][\w./-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}


def default_yaml() -> str:
    """The text of `cfg/default.yaml`."""
    parts = [_HEAD]
    for group in GROUPS:
        rows = [(f"{s.name}: {scalar(s.default)}", _explained(s)) for s in settings_of(group)]
        width = max(len(left) for left, _ in rows)
        parts.append(f"\n# ---- {group.__doc__} ({', '.join(commands_with(group))})\n")
        parts.extend(f"{left.ljust(width)}  # {right}\n" for left, right in rows)
    return "".join(parts)


def settings_yaml(values: dict[str, Any], head: str) -> str:
    """Settings as YAML, one per line, after the comment lines of `head`; PyYAML reads the same values back."""
    comment = "".join(f"# {line}\n" for line in head.splitlines())
    return comment + "".join(f"{name}: {scalar(value)}\n" for name, value in values.items())


def scalar(value: Any) -> str:
    """None, a bool, a number, text, or a list of these, as YAML on one line."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(scalar(item) for item in value)}]"
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")  # YAML 1.1 reads 1e-05 as text
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)  # null, true, false, integers and quoted text are the same in YAML


def help_table(command: str, width: int = 120) -> str:
    """The settings of a command in groups, one per line: name, default, meaning and [what is accepted]."""
    lines: list[str] = []
    for title, settings in groups_of(command):
        lines.append(f"\n{title}:")
        for s in settings:
            default = "" if s.required else "none" if s.default is None else scalar(s.default)
            lines.extend(_row(s.name, default, _explained(s), width))
    return "\n".join(lines)


def commands_table() -> str:
    """The commands, one per line, with what they do."""
    return "\n".join(f"  {name:<10}{settings.__doc__}" for name, settings in COMMANDS.items())


def _row(name: str, default: str, text: str, width: int) -> Iterable[str]:
    lead = f"  {name:<13} {default:<15} "
    first, *rest = wrap(text, max(width - len(lead), 30))
    return [lead + first, *(" " * len(lead) + line for line in rest)]


def _explained(setting: Setting) -> str:
    unit = f" ({setting.unit})" if setting.unit else ""
    return f"{setting.help}{unit} [{setting.kind.describe()}]"
