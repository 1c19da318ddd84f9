"""A user's files: what a path and its content may be, and what is said of those that cannot be read."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gfldet import files
from gfldet.errors import ConfigError, DataError
from gfldet.files import Unreadable, contents, read_json, read_text, read_yaml

REPEATED = settings(max_examples=15, derandomize=True, database=None, deadline=None)
PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20)
TREES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def reason(path: Path, text: str | bytes) -> str:
    """What is said of a YAML file of this text, without its name."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as caught:
        read_yaml(path, DataError)
    told = str(caught.value)
    assert told.startswith(str(path))
    assert "\n" not in told
    assert len(told) < 1000
    return told.removeprefix(str(path))


# ---------------------------------------------------------------- paths


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, str]:
    """Paths that lead to no file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    names = {"long": "x" * 300, "nul": "a\0b", "half": "\ud800", "pipe": "pipe", "loop": "loop/a", "folder": "folder"}
    return {kind: f"{tmp_path}/{name}" for kind, name in names.items()} | {"device": "/dev/zero"}


def test_questions_raise_nothing(odd: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("abc")
    assert files.is_file(tmp_path / "file")
    assert files.size(tmp_path / "file") == 3
    for kind, path in odd.items():
        assert not files.is_file(path), kind
        assert files.is_folder(path) == (kind == "folder")
        assert files.exists(path) == (kind in ("folder", "pipe", "device"))
        assert files.listing(path) == []
        assert files.size(path) >= 0
    assert [path.name for path in files.listing(tmp_path)] == ["file", "folder", "loop", "pipe"]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("long", "cannot be read (File name too long)"),
        ("nul", "cannot be read (no file can have this name)"),
        ("half", "cannot be read (no file can have this name)"),
        ("pipe", "cannot be read (it is a pipe or a device); give a file"),
        ("device", "cannot be read (it is a pipe or a device); give a file"),
        ("loop", "cannot be read (Too many levels of symbolic links)"),
        ("folder", "cannot be read (it is a folder)"),
    ],
)
def test_what_is_no_file_is_told(odd: dict[str, str], kind: str, told: str) -> None:
    with pytest.raises(Unreadable) as caught:
        contents(odd[kind])
    assert caught.value.reason == told


def test_sizes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 100)
    assert contents(tmp_path / "a.txt", 100) == b"x" * 100
    with pytest.raises(DataError, match=r"a\.txt: has 0 MB, and 0 MB is the most that is read"):
        read_text(tmp_path / "a.txt", DataError, 99)


def test_text_without_its_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffé\r\n".encode())
    assert read_text(tmp_path / "a.txt", DataError) == "é\r\n"
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(ConfigError, match=r"a\.txt: is not a UTF-8 text file \(byte 2\); save it as UTF-8"):
        read_text(tmp_path / "a.txt", ConfigError)


# ---------------------------------------------------------------- YAML


def test_a_yaml_with_its_keys(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# first\na: &x {b: 1}\nc:\n  <<: *x\n  d: [1.5, on]\na: 2\n")
    found = read_yaml(tmp_path / "a.yaml", DataError)
    assert found.value == {"a": 2, "c": {"b": 1, "d": [1.5, True]}}
    assert found.keys == (("a", 2), ("c", 3), ("a", 6))
    assert found.text.startswith("# first")
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "a.yaml", DataError).value is None


@given(TREES)
@REPEATED
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    assert read_yaml(path, DataError).value == yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert read_json(path, DataError) == tree


@given(st.text(alphabet=st.sampled_from("ab1.:-?,[]{}&*!|>'\"%@#<\n\t 0é\0x_e+~"), max_size=60))
@REPEATED
def test_any_text_is_a_value_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    for reader in (read_yaml, read_json):
        with suppress(DataError):
            reader(path, DataError)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2001-99-99", ":2: is not valid YAML: '2001-99-99' cannot be read as timestamp"),
        ("x: !!int x", ":1: is not valid YAML: 'x' cannot be read as int"),
        ("x: !!bool x", ":1: is not valid YAML: 'x' cannot be read as bool"),
        ("x: !!float {a: 1}", ":1: is not valid YAML: expected a scalar node, but found mapping"),
        ("x: !!python/object:os.system x", ":1: is not valid YAML: could not determine a constructor"),
        ("x: " + "1" * 5000, ":1: is not valid YAML: a number of 5000 digits"),
        ("x: 0b" + "1" * 30_000, ":1: is not valid YAML: a number of 30002 digits"),
        ("x: 1" + ":1" * 3000, ":1: is not valid YAML: a number of 6001 digits"),
        ("- " * 5000, ": is not valid YAML: its brackets or blocks are nested too deep"),
        ("a: 1\n---\nb: 2", ":2: is not valid YAML: but found another document"),
        ("a: &a [*a]", ":1: an alias stands within what it names; write it without"),
        ("a: *b", ":1: is not valid YAML: found undefined alias 'b'"),
        (b"a: \xff", ": is not a UTF-8 text file (byte 3); save it as UTF-8"),
        ("a: \0", ": is not valid YAML: "),
        ("x: " + "a" * (5 << 20), ": has 5 MB, and 4 MB is the most that is read"),
    ],
)
def test_a_yaml_that_cannot_be_read(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert reason(tmp_path / "a.yaml", text).startswith(told)


def test_brackets_without_an_end(tmp_path: Path) -> None:
    assert "is not valid YAML" in reason(tmp_path / "a.yaml", "[" * 100_000)


@pytest.mark.parametrize(
    "link", ["[*a{i}, *a{i}, *a{i}, *a{i}]", "{{<<: [*a{i}, *a{i}, *a{i}]}}", "{{? x : *a{i}, ? y : *a{i}}}"]
)
def test_aliases_that_unfold_without_an_end(tmp_path: Path, link: str) -> None:
    first = "[x, x]" if link.startswith("[") else "{x: 1}"
    lines = [f"a0: &a0 {first}", *(f"a{i + 1}: &a{i + 1} {link.format(i=i)}" for i in range(30)), "names: *a30"]
    told = reason(tmp_path / "a.yaml", "\n".join(lines))
    assert told == ": its aliases unfold to more than 250000 values; write it without them"


def test_more_values_than_any_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_NODES", 100)
    told = reason(tmp_path / "a.yaml", "- a\n" * 100)
    assert told == ": holds more than 100 values, which no file of this kind needs"


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"a": \n1,}', ":2: is not valid JSON: Expecting property name"),
        (b"[" * 200_000, ": is not valid JSON: its brackets are nested too deep"),
        (b'"\xff"', ": is not valid JSON: it is not UTF-8 text"),
        (b"", ":1: is not valid JSON: Expecting value"),
    ],
)
def test_a_json_that_cannot_be_read(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(DataError) as caught:
        read_json(tmp_path / "a.json", DataError)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}{told}")


def test_numbers_beyond_floats_are_infinite(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f"[{'9' * 5000}, -{'9' * 400}, 1e400, {'9' * 100}]")
    assert read_json(tmp_path / "a.json", DataError) == [float("inf"), -float("inf"), float("inf"), int("9" * 100)]
