"""What is done to good files: bytes flipped, cut, doubled; values replaced by odd ones; files that are no files.

Each function takes a source of chance, a `random.Random` or that of a property test, and draws from nothing else: equal
sources give equal damage.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml

PIPE, LOOP = "pipe", "loop"  # names of a pipe and of a link to itself that lie in the folder of every case
BEYOND = "9" * 400  # beyond floats
ENDLESS = "9" * 5000  # beyond what Python reads as a number
WORDS = (
    *("", " ", ".", "..", "/", "~", "~nobody/x", "../../x", "C:\\x", "http://u:p@h/x.jpg", "%00"),
    *("x" * 300, "x" * 70_000, "a\0b", "\x1b[31mred", "a\nb", "\u202e", "é", "图片", "\ufeff", "\x85", "\u2028"),
    *("nan", "inf", "-inf", "-1", "0", "1e400", "1e-400", "0x1F", "1_0", "٣", "²", "1.5", "-0.0", BEYOND, ENDLESS),
    *("2001-99-99", "2001-01-01", "!!int x", "!!bool x", "!!timestamp x", "!!binary x", "!!set {a}", "!!python/x y"),
    *("null", "true", "no", "[", "{", "]", "}", "- " * 300, "[" * 3000, "&a [*a]", "*a", "? [a]", "<<: [1]", "1:1:1"),
    *("shapes", "shapes:/val/-1.png", "shapes:/val/x", PIPE, f"{LOOP}/a", "images", "data.yaml", "*.png", "[z-a]"),
    *("None", "nc", "Conv", "GFLHead", "-", "#", "%YAML 9", "---", "...", "<!DOCTYPE a>", "&lt;", "]]>", "<?xml?>"),
)
_RAW = {  # what neither JSON nor YAML's writer writes
    "@beyond": BEYOND,
    "@endless": ENDLESS,
    "@infinite": "1e999",
    "@half": '"\\ud800"',
    "@deep": "[" * 3000 + "]" * 3000,
    "@deeper": "[" * 300_000,
    "@laughs": "[&a0 [x, x], " + ", ".join(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)) + "]",
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.5, 1e308, 2**31, 2**63, 2**64, 10**100, float("nan"), float("inf")),
    *("", "x", "1", "0.5", [], {}, [[]], [None], {"a": [1]}, [1, 2], [0, 0, 1, 1], {"0": "a"}, {"1000000000": "b"}),
    *_RAW,
)


# ---------------------------------------------------------------- bytes


def _place(data: bytes, chance: Random) -> tuple[int, int]:
    """Where a piece of the data begins and ends; pieces are mostly short."""
    start = chance.randrange(len(data) + 1)
    longest = chance.choice((1, 4, 40, 4000))
    return start, min(len(data), start + chance.randrange(longest + 1))


def flipped(data: bytes, chance: Random) -> bytes:
    """A few bits turned over."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 30)) if out else 0):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def cut(data: bytes, chance: Random) -> bytes:
    """Without its end, its beginning or a piece between."""
    start, end = _place(data, chance)
    return chance.choice((data[:start], data[start:], data[:start] + data[end:]))


def doubled(data: bytes, chance: Random) -> bytes:
    """With a piece of it again, once or many times."""
    start, end = _place(data, chance)
    return data[:end] + data[start:end] * chance.choice((1, 2, 100)) + data[end:]


def moved(data: bytes, chance: Random) -> bytes:
    """With a piece of it in another place."""
    start, end = _place(data, chance)
    there = chance.randrange(len(data) + 1)
    rest = data[:start] + data[end:]
    return rest[:there] + data[start:end] + rest[there:]


def spoilt(data: bytes, chance: Random) -> bytes:
    """With bytes in place of a piece that mean something to a reader, or nothing to any."""
    start, end = _place(data, chance)
    words = (b"", b"\0", b"\xff" * 4, b"\0" * 8, b"\x7f\xff\xff\xff", b"\xff\xfe", b"\r", b"\n\n", b"\x80", bytes(4000))
    return data[:start] + chance.choice(words) + data[end:]


def reworded(data: bytes, chance: Random) -> bytes:
    """With an odd word in place of one of its words, or all of these."""
    found = list(re.finditer(rb"[^\s,:\[\]{}<>\"']+", data[:200_000]))
    if not found:
        return data
    one, word = chance.choice(found), chance.choice(WORDS).encode("utf-8", "surrogatepass")
    if chance.randrange(8) == 0:
        return data.replace(one[0], word, 1000)
    return data[: one.start()] + word + data[one.end() :]


def relined(data: bytes, chance: Random) -> bytes:
    """With a line of it missing, doubled, alone or in another place."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
    less = lines[:at] + lines[at + 1 :]
    kinds = (less, lines[: at + 1] + lines[at:], [lines[at]], [*less[:to], lines[at], *less[to:]])
    return b"".join(chance.choice(kinds))


BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(flipped, flipped, cut, doubled, moved, spoilt, reworded, reworded, reworded, relined),
)


# ---------------------------------------------------------------- structures


def value(chance: Random, depth: int = 2) -> Any:
    """A value of any kind: one of VALUES or WORDS, or a list or mapping of some."""
    kind = chance.randrange(8 if depth else 6)
    if kind < 4:
        return copy.deepcopy(chance.choice(VALUES))
    if kind < 6:
        return chance.choice(WORDS)
    some = [value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return some if kind == 6 else {str(chance.choice(WORDS)): one for one in some}


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree of lists and mappings."""
    found: list[tuple[Any, Any]] = []
    left = [tree]
    while left:
        one = left.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            left.append(one[key])
    return found


def restructured(tree: Any, chance: Random) -> Any:
    """A tree with some of its values replaced, removed, renamed, wrapped or doubled; `tree` itself is changed."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = _places(tree)
        if not places or chance.randrange(40) == 0:
            return value(chance)
        inside, key = chance.choice(places)
        kind = chance.randrange(7)
        if kind < 3:
            inside[key] = value(chance)
        elif kind == 3:
            del inside[key]
        elif kind == 4:
            inside[key] = chance.choice(([inside[key]], {"a": inside[key]}, str(inside[key]), [inside[key]] * 3))
        elif kind == 5 and isinstance(inside, dict):
            inside[chance.choice((*inside, *WORDS[:20]))] = inside[key]
        else:
            inside[key] = chance.choice(places)[0]
            if _holds_itself(tree):
                inside[key] = None
    return tree


def _holds_itself(tree: Any, above: tuple[int, ...] = ()) -> bool:
    if id(tree) in above:
        return True
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return any(_holds_itself(part, (*above, id(tree))) for part in parts)


def written(tree: Any, suffix: str) -> bytes:
    """A tree as JSON, which is YAML too, with what JSON's writer does not write."""
    text = json.dumps(tree)
    if suffix == ".yaml":
        text = re.sub(r'"(-?\d+)": ', r"\1: ", text)  # whole numbers as keys, which JSON does not have
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode("utf-8", "surrogatepass")


def tree_of(data: bytes) -> Any:
    """The value in a good JSON or YAML; None for what is neither."""
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
        return None


# ---------------------------------------------------------------- files


def spoil_file(path: Path, chance: Random) -> None:
    """Puts something else in the place of a file: nothing, a folder, a pipe, a link to itself or to nowhere."""
    kind = chance.randrange(6)
    data = path.read_bytes()
    path.unlink()
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to("nowhere")
    elif kind == 4:
        path.write_bytes(data[:1] * 300_000)


def damage(path: Path, chance: Random) -> None:
    """Damages one file, mostly its bytes, of JSON and YAML mostly their values."""
    if not path.is_file() or path.is_symlink():
        return
    if chance.randrange(25) == 0:
        spoil_file(path, chance)
        return
    data = path.read_bytes()
    tree = tree_of(data) if path.suffix in (".json", ".yaml") and chance.randrange(3) else None
    if tree is not None:
        path.write_bytes(written(restructured(tree, chance), path.suffix))
        return
    for _ in range(chance.choice((1, 1, 2, 5))):
        data = chance.choice(BYTES)(data, chance)
    path.write_bytes(data[: 4 << 20])


def prepare(good: Path, folder: Path) -> None:
    """A copy of the good files in a folder of its own, beside the pipe and the link that odd paths may lead to."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    os.mkfifo(folder / PIPE)
    (folder / LOOP).symlink_to(LOOP)
