"""torch's zip archives -> inert records and tensors, whatever Python code their pickle asks for.

A pickle is a program for a stack machine.  Here that program is read with `pickletools`, and a machine of our own
carries out the few instructions that build data.  Nothing in it can import or call: a class, a function and a call
become records of their names, and only names that tensors need, or that a family of files may have (`Allowed`), are
taken at all.  So there is no list of dangerous things to keep complete.  Tensors are records too, until
`Archive.tensor` is asked for one.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfldet.store import archive
from gfldet.store.archive import Records, Refusal

STORAGES = {
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
REBUILT = {
    "collections.OrderedDict",
    "torch.Size",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
}
MAX_COPIED = 1_000_000  # values that a pickle may have copied from one of its lists or tuples into another
MAX_SIDES = 64  # of a tensor
# Instructions that put their argument on the stack, or a value of their own, or a tuple of the last few.
PLAIN = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
)
VALUES: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Forbidden(Refusal):
    """A file is not taken since it holds more than tensors, plain data and what is allowed."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What pickles may name beside tensors, to be kept as records: `names` in full, and all that begins with one of
    `packages` (each with its last dot)."""

    names: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the pickle names."""

    text: str


@dataclass(slots=True, eq=False)
class Record:
    """An object that the pickle would have made: the name that it would have called, with what, and its state."""

    kind: str
    args: tuple[Any, ...] = field(repr=False)
    state: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Storage:
    """`numel` numbers of one type in the archive's record `key`."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that is still in the archive; offset and strides in numbers, not in bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """An open archive: `tree` is what its pickle builds, `size` the file's length in bytes."""

    tree: Any
    size: int
    records: Records

    def tensor(self, stored: Stored) -> Tensor:
        """Read one tensor, in its own type; Refusal as `flat` and `view`."""
        return self.view(self.flat(stored.storage), stored).clone(memory_format=torch.contiguous_format)

    def flat(self, storage: Storage) -> Tensor:
        """The numbers of a storage, (numel,); Refusal for a record that is missing or has another length than told."""
        data = bytearray(self.records.read(f"data/{storage.key}"))
        if len(data) != storage.numel * storage.dtype.itemsize:
            name = self.records.prefix + f"data/{storage.key}"
            raise Refusal(f"{name} has {len(data)} bytes, not {storage.numel} numbers of {storage.dtype}")
        return torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)

    def view(self, flat: Tensor, stored: Stored) -> Tensor:
        """A tensor as a view of its storage's numbers `flat`; Refusal for one that reaches outside of them or shows
        more numbers than they are."""
        numel = math.prod(stored.shape)
        if numel == 0:
            return flat.new_empty(stored.shape)
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.strides, strict=True))
        if numel > len(flat) or last >= len(flat):
            name = f"{self.records.prefix}data/{stored.storage.key}"
            raise Refusal(f"a tensor of {list(stored.shape)} reaches outside of the {len(flat)} numbers of {name}")
        return flat.as_strided(stored.shape, stored.strides, stored.offset)

    def plain(self) -> Any:
        """`tree` with its tensors read, which share their numbers where the file's do.

        Refusal for a tree that holds anything beside tensors and plain data, or that is nested too deep.
        """
        try:
            return _plain(self, self.tree, {}, {})
        except RecursionError as error:
            raise Refusal("its lists are nested too deep") from error


def _plain(source: Archive, value: Any, done: dict[int, Any], flats: dict[Storage, Tensor]) -> Any:
    """See `Archive.plain`; `done` has what was made of the containers, which may be shared or hold themselves."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, list):
        done[id(value)] = made = []
        made += [_plain(source, item, done, flats) for item in value]
    elif isinstance(value, dict):
        done[id(value)] = table = {}
        for key, item in value.items():
            table[_plain(source, key, done, flats)] = _plain(source, item, done, flats)
    elif isinstance(value, tuple):
        done[id(value)] = tuple(_plain(source, item, done, flats) for item in value)
    elif isinstance(value, Stored):
        if value.storage not in flats:
            flats[value.storage] = source.flat(value.storage).clone()  # torch's own memory, which is aligned
        done[id(value)] = source.view(flats[value.storage], value)
    else:
        told = (
            value.kind if isinstance(value, Record) else value.text if isinstance(value, Name) else type(value).__name__
        )
        raise Forbidden(f"it holds {told:.100}, which is no plain data")
    return done[id(value)]


@contextmanager
def opened(path: Path, allowed: Allowed) -> Iterator[Archive]:
    """A file of `torch.save`, open for reading.

    Raises Refusal as `archive.opened`, and for a pickle that names anything beyond tensors and what is `allowed`.
    """
    with archive.opened(path) as records:
        yield Archive(unpickled(records.pickle(), allowed), path.stat().st_size, records)


def unpickled(data: bytes, allowed: Allowed) -> Any:
    """What a pickle builds, as plain data, `Record`, `Name` and `Stored`; nothing is imported or called.

    Raises Refusal naming the class, function or instruction that is not taken.
    """
    machine = _Machine(allowed)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(f"its pickle is damaged ({type(error).__name__}: {str(error)[:100]})") from error
    raise Refusal("its pickle has no end")


class _Machine:
    """The stack, the values set aside (`memo`) and the marks where lists of items begin."""

    def __init__(self, allowed: Allowed) -> None:
        self.allowed = allowed
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in PLAIN:
            self.stack.append(argument)
        elif name in VALUES:
            self.stack.append(VALUES[name])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "GLOBAL":
            self.stack.append(self.named(argument.replace(" ", ".")))
        elif name == "INST":  # the same in one with a call; not written since Python 2, but told by its name too
            raise Refusal(f"the pickle instruction INST for {self.named(argument.replace(' ', '.')).text}")
        elif name == "STACK_GLOBAL":
            module, attribute = self.popped(2)
            self.stack.append(self.named(f"{module}.{attribute}"))
        elif name not in ("PROTO", "FRAME"):
            self.build(name)

    def build(self, name: str) -> None:
        """Carry out an instruction that makes or fills an object."""
        if name == "EMPTY_DICT":
            self.stack.append({})
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name in TUPLES:
            self.stack.append(tuple(self.popped(TUPLES[name])))
        elif name == "TUPLE":
            self.stack.append(tuple(self.marked()))
        elif name in ("SETITEM", "SETITEMS"):
            items = self.popped(2) if name == "SETITEM" else self.marked()
            for key, value in zip(items[::2], items[1::2], strict=True):
                _set(self.stack[-1], key, value)
        elif name in ("APPEND", "APPENDS"):
            items = self.popped(1) if name == "APPEND" else self.marked()
            if not isinstance(self.stack[-1], list):
                raise Refusal(f"its pickle appends to a {type(self.stack[-1]).__name__}")
            self.stack[-1].extend(items)
        elif name in ("REDUCE", "NEWOBJ"):
            called, arguments = self.popped(2)
            self._count(arguments)
            self.stack.append(_made(called, arguments))
        elif name == "BUILD":
            (state,) = self.popped(1)
            _give_state(self.stack[-1], state)
        elif name == "BINPERSID":
            (told,) = self.popped(1)
            self.stack.append(_storage(told))
        else:
            raise Refusal(f"the pickle instruction {name}, which torch.save does not write")

    def _count(self, arguments: Any) -> None:
        """Refusal where calls copy more from lists than any file needs: one list may be given to every call."""
        given = arguments[0] if isinstance(arguments, tuple) and arguments else ()
        self.copied += len(given) if isinstance(given, (list, tuple)) else 0
        if self.copied > MAX_COPIED:
            raise Refusal(f"its pickle copies more than {MAX_COPIED} values, which no detector needs")

    def named(self, text: str) -> Name:
        """A class or function by its full name; Refusal for one that is not allowed."""
        if text in STORAGES or text in REBUILT or text in self.allowed.names or text.startswith(self.allowed.packages):
            return Name(text)
        raise Forbidden(f"it asks for {text[:100]}, which no detector's checkpoint needs and which could run code")

    def popped(self, count: int) -> list[Any]:
        """The last `count` values, taken off the stack."""
        if len(self.stack) < count:
            raise Refusal("its pickle takes more values than it has")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def marked(self) -> list[Any]:
        """The values since the last mark, taken off the stack."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken


def _set(target: Any, key: Any, value: Any) -> None:
    if not isinstance(target, dict):
        raise Refusal(f"its pickle puts items into a {type(target).__name__}")
    # Tuples are left out for their hashes: nested ones could take for ever.
    if not isinstance(key, (str, int, float, bytes, Name, type(None))):
        raise Refusal(f"its pickle has a {type(key).__name__} as a key")
    target[key] = value


def _made(called: Any, arguments: Any) -> Any:
    """What a call would have returned, as data."""
    if not isinstance(called, Name) or not isinstance(arguments, tuple):
        raise Refusal(f"its pickle calls a {type(called).__name__} instead of a class or function by its name")
    if called.text == "collections.OrderedDict":
        made: dict[Any, Any] = {}
        for key, value in arguments[0] if arguments else ():
            _set(made, key, value)
        return made
    if called.text == "torch.Size":
        return _whole(arguments[0])
    if called.text == "torch._utils._rebuild_parameter":
        return arguments[0]
    if called.text == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        sizes, steps, (start,) = _whole(shape), _whole(strides), _whole((offset,))
        if not isinstance(storage, Storage) or len(sizes) != len(steps):
            raise Refusal("an object that stands for a tensor and is none")
        return Stored(storage, start, sizes, steps)
    return Record(called.text, arguments)


def _give_state(target: Any, state: Any) -> None:
    if isinstance(target, Record):
        target.state = state
    elif not isinstance(target, dict):  # an OrderedDict's attributes have no use here
        raise Refusal(f"its pickle gives a state to a {type(target).__name__}")


def _storage(told: Any) -> Storage:
    """A persistent id: ("storage", type, key, device, count)."""
    if not isinstance(told, tuple) or len(told) != 5 or told[0] != "storage":
        raise Refusal("a reference to something else than the numbers of a tensor")
    _, kind, key, _, numel = told
    if not isinstance(kind, Name) or kind.text not in STORAGES or not isinstance(key, str) or not key.isalnum():
        raise Refusal(f"numbers of an unknown type ({kind.text if isinstance(kind, Name) else type(kind).__name__})")
    return Storage(key, STORAGES[kind.text], *_whole((numel,)))


def _whole(values: Any) -> tuple[int, ...]:
    """Sizes, strides and offsets: whole numbers from 0 on."""
    if (
        not isinstance(values, (tuple, list))
        or len(values) > MAX_SIDES
        or not all(type(v) is int and 0 <= v < 1 << 40 for v in values)
    ):
        raise Refusal("a tensor whose sizes, strides or offset are no whole numbers from 0 on")
    return tuple(values)
