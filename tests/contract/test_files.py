"""Files of users are read in one place: who looks a path up or reads a file by itself has a reason that stands here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gfldet

PACKAGE = Path(gfldet.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# Methods of paths, and functions, that raise for one path or content or another, or wait at a pipe.
QUESTIONS = {"is_file", "is_dir", "exists", "iterdir", "stat", "read_text", "read_bytes"}
PARSERS = {"load", "loads", "safe_load", "compose"}
OWN = {
    "files": "the place itself",
    "writing": "files that a run writes",
    "results": "files that a run writes",
    "store.runs": "folders that a run writes",
    "train.trainer": "checkpoints that the run itself wrote",
    "export.job": "files that it made itself, beside the target",
    "export.web": "the page in the package",
    "report.document": "the style and the script in the package",
    "export.quantise": "files that it made itself",
    "experiments": "results that it wrote itself",
    "config.assets": "the folder cfg",
    "weights.table": "the folder of public weights",
    "weights.folder": "the folder of public weights",
    "weights.download": "the folder of public weights",
    "machine.system": "files of the system",
    "train.elastic": "files that a run wrote, and those of the system",
    "data.processes": "files of the system",
    "data.shared": "images that were read before",
    "store.archive": "archives, by their bytes; `is_file` was asked before",
    "store.unpickle": "archives, by their bytes; `is_file` was asked before",
    "store.checkpoint": "archives, by their bytes; `is_file` was asked before",
    "detect.card": "text in the metadata of a file, not a file",
}


def calls_of(text: str) -> Iterator[tuple[str, int]]:
    """The calls in a module's text that ask a path or read a file, with their lines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            asks = node.func.attr in QUESTIONS and owner not in ("os", "files")
            if asks or (node.func.attr in PARSERS and owner in ("yaml", "json")):
                yield node.func.attr, node.lineno


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_who_reads_a_file_by_itself(file: Path) -> None:
    calls = list(calls_of(file.read_text(encoding="utf-8")))
    assert module_of(file) in OWN or calls == [], f"ask gfldet.files instead: {calls}"


def test_yaml_is_read_in_one_place() -> None:
    users = {module_of(file) for file in FILES if "import yaml" in file.read_text(encoding="utf-8")}
    assert users == {"files"}


def test_the_rule_itself_refuses() -> None:
    text = "from pathlib import Path\nimport yaml\nPath('a').is_file()\nyaml.safe_load('')\nfiles.exists('a')\n"
    assert [name for name, _ in calls_of(text)] == ["is_file", "safe_load"]
