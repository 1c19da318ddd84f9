"""The user's files: whether they are there, and their bytes, text, JSON and YAML.

Every reader of a user's file comes here, so that what a path or a file's content can do is dealt with once.  A path may
have any letters and any length and may lead anywhere: the questions `is_file`, `is_folder` and `exists` raise nothing.
Only regular files are read: a pipe or a device could wait or go on for ever.  The readers end in a value or in the
error of the class that the caller gives, with the file's name and, where there is one, the line.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.resolver import Resolver

from gfldet.errors import UserError, shown

try:  # libyaml's parser is four times as fast
    from yaml.cyaml import CParser as Parser  # type: ignore[attr-defined]
except ImportError:
    from yaml import SafeLoader as Parser  # type: ignore[assignment]

MAX_TEXT = 16 << 20  # bytes of a label file or a YAML; 16 MB of rows are some 400,000 boxes
MAX_LIST = 256 << 20  # bytes of a list of paths
MAX_YAML = 4 << 20  # bytes; PyYAML takes some ten seconds for more
MAX_NODES = 250_000  # values of a YAML, counted as often as aliases repeat them; nobody has so many classes
MAX_DIGITS = 200  # of a number; what has more does not fit a float


class Unreadable(Exception):
    """Why a file is not read, without its name: `reason`, and the `line` (from 1; 0 where there is none)."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@contextmanager
def told_as(error: type[UserError], file: str | Path) -> Iterator[None]:
    """Turns `Unreadable` into `error`, which names the file and the line."""
    try:
        yield
    except Unreadable as found:
        line = f":{found.line}" if found.line else ""
        raise error(f"{file}{line}: {found.reason}") from found


# ---------------------------------------------------------------- paths


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file.  False also for a path that no file can have, or that nobody may look up."""
    return os.path.isfile(path)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; else as `is_file`."""
    return os.path.isdir(path)


def exists(path: str | Path) -> bool:
    """Whether there is anything; else as `is_file`."""
    return os.path.exists(path)


def is_root(path: str | Path) -> bool:
    """Whether a folder is, or leads to, the root of the whole file system: to look through it would take minutes."""
    real = os.path.realpath(path)
    return os.path.dirname(real) == real


def name_problem(path: str | Path) -> str:
    """Why there can be no file or folder of this name; empty if there can."""
    try:
        os.stat(path)
    except OSError as error:
        return f"{error.strerror}" if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else ""
    except ValueError:
        return "no file can have this name"
    return ""


def names_in(folder: str | Path) -> list[str]:
    """The names in a folder, in any order; none for a folder that is missing or that nobody may list."""
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []


def file_names(folder: str | Path) -> set[str]:
    """The names of the regular files in a folder; else as `names_in`."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return set()


def listing(folder: str | Path) -> list[Path]:
    """What is in a folder, by name; else as `names_in`."""
    return [Path(folder, name) for name in sorted(names_in(folder))]


def size(path: str | Path) -> int:
    """Bytes of a file; 0 for one that is missing."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


# ---------------------------------------------------------------- bytes


def opened(path: str | Path, limit: int | None = None) -> BinaryIO:
    """A regular file of at most `limit` bytes, open for reading; raises Unreadable."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise Unreadable("cannot be read (it is a folder)")
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("cannot be read (it is a pipe or a device); give a file")
        if limit is not None and found.st_size > limit:
            raise Unreadable(f"has {found.st_size / 1e6:.0f} MB, and {limit / 1e6:.0f} MB is the most that is read")
        return open(path, "rb")
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL, or letters that the system's encoding does not have
        raise Unreadable("cannot be read (no file can have this name)") from error


def version(path: str | Path) -> tuple[int, int]:
    """When a regular file was last changed, in ns, and its bytes; raises Unreadable."""
    with opened(path) as file:
        found = os.fstat(file.fileno())
        return found.st_mtime_ns, found.st_size


def contents(path: str | Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file, at most `limit` of them; raises Unreadable."""
    with opened(path, limit) as file:
        try:
            return file.read()
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or error})") from error
        except MemoryError as error:
            raise Unreadable("cannot be read (it is larger than the free memory)") from error


def read_text(path: str | Path, error: type[UserError], limit: int = MAX_TEXT) -> str:
    """The text of a UTF-8 file, without its byte-order mark."""
    with told_as(error, path):
        return _text(contents(path, limit))


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not a UTF-8 text file (byte {error.start}); save it as UTF-8") from error


# ---------------------------------------------------------------- JSON


def read_json(path: str | Path, error: type[UserError]) -> Any:
    """The value in a small JSON file.  A whole number that no float can hold is inf, as 1e400 is."""
    with told_as(error, path):
        return _json(contents(path, MAX_TEXT))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise Unreadable(f"is not valid JSON: {error.msg} (column {error.colno})", error.lineno) from error
    except RecursionError as error:
        raise Unreadable("is not valid JSON: its brackets are nested too deep") from error
    except UnicodeDecodeError as error:
        raise Unreadable("is not valid JSON: it is not UTF-8 text") from error


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


# ---------------------------------------------------------------- YAML


@dataclass(frozen=True, slots=True)
class Yaml:
    """A YAML file: its value, its text, and the plain keys of its outermost mapping as written, each with its line."""

    value: Any
    text: str
    keys: tuple[tuple[str, int], ...]


def read_yaml(path: str | Path, error: type[UserError]) -> Yaml:
    """One YAML document of plain data; `value` is None for an empty file.

    Refused are files of more than MAX_YAML bytes, of more than MAX_NODES values, aliases unfolded, and aliases within
    themselves: so whoever walks through the value comes to an end.
    """
    with told_as(error, path):
        return _yaml(_text(contents(path, MAX_YAML)))


def as_yaml(value: Any) -> str:
    """Plain data as YAML that `read_yaml` takes, keys in their order."""
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False)


def _yaml(text: str) -> Yaml:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Yaml(None, text, ())
        _check_unfolded(node)
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        keys = tuple((key.value, _line(key)) for key, _ in pairs if isinstance(key, yaml.ScalarNode))
        return Yaml(loader.construct_document(node), text, keys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "context", None) or str(error).split("\n")[0]
        line = min(mark.line, text.rstrip().count("\n")) + 1 if mark else 0  # libyaml counts one more at the end
        raise Unreadable(f"is not valid YAML: {reason}", line) from error
    except RecursionError as error:
        raise Unreadable("is not valid YAML: its brackets or blocks are nested too deep") from error


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Loader(Composer, Parser, SafeConstructor, Resolver):
    """PyYAML's loader of plain data; every scalar that it cannot make a value of is an error with its line.

    `Composer` stands first, also where libyaml parses: its recursion ends with an error, that of libyaml with a crash.
    """

    def __init__(self, text: str) -> None:
        Parser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self.nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise Unreadable(f"holds more than {MAX_NODES} values, which no file of this kind needs")
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and len(node.value) > MAX_DIGITS:
            raise ConstructorError(None, None, f"a number of {len(node.value)} digits", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError, MemoryError):
            raise
        except Exception as error:  # PyYAML leaves open what its constructors raise for text that is none of their kind
            problem = f"{shown(node.value)} cannot be read as {shown(kind, quoted=False)}"
            raise ConstructorError(None, None, problem, node.start_mark) from error


def _check_unfolded(root: yaml.Node) -> None:
    """Unreadable if a node, with its aliases unfolded, holds itself or more than MAX_NODES others."""
    sizes: dict[int, int] = {}  # of nodes that were walked through; 0 while that goes on
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    while stack:
        node, walked = stack.pop()
        parts = _parts(node)
        if walked:
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            if sizes[id(node)] > MAX_NODES:
                raise Unreadable(f"its aliases unfold to more than {MAX_NODES} values; write it without them")
        elif id(node) not in sizes:
            sizes[id(node)] = 0
            stack.append((node, True))
            stack += [(part, False) for part in parts]
        elif sizes[id(node)] == 0:
            raise Unreadable("an alias stands within what it names; write it without", _line(node))


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
