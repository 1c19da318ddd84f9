"""One foreign file, opened once: what it holds in a form that every family of files can look at.

A file of `torch.save` is read by `unpickle`, which runs nothing in it; one that torch wrote before its 1.6 (no archive)
by torch's own reader of tensors and plain data, which runs nothing either.  An ONNX file is read as a graph.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfldet.errors import ConfigError, counted
from gfldet.store import unpickle
from gfldet.store.archive import MAX_PICKLE, Refusal
from gfldet.store.checkpoint import first_line
from gfldet.store.unpickle import REBUILT, STORAGES, Allowed, Archive, Record, Stored

WRAPPERS = ("module.", "model.", "_orig_mod.")  # of parallel, lightning and compiled models: before every name
HOLDERS = ("ema", "model", "state_dict", "model_state_dict")  # where checkpoints keep their tensors
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how a file of torch before 1.6 begins: its magic number, pickled
LEGACY_PICKLES = 5  # magic number, protocol, the machine that wrote it, the tree, the names of the storages after them
LEGACY_NAMES = frozenset(STORAGES) | REBUILT | {"torch._utils._rebuild_tensor"}
MAX_TENSORS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class StateDict:
    """Tensors by name, without the wrappers that all names share; `shapes` has every one of them."""

    shapes: Mapping[str, tuple[int, ...]]
    _stored: Mapping[str, Any] = field(repr=False)
    _read: Callable[[Any], Tensor] = field(repr=False)

    def tensor(self, name: str) -> Tensor:
        """One tensor; float32 if it is of a floating type.  Refusal if it is missing, damaged or not finite."""
        if name not in self.shapes:
            raise Refusal(f"it has no {name}")
        value = self._read(self._stored[name])
        if not value.is_floating_point():
            return value
        value = value.float()
        if not bool(value.isfinite().all()):
            raise Refusal(f"its {name} has values that are no finite numbers")
        return value


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """An ONNX graph: `values` are the tensors in it by name (as onnx has them), `told` its metadata."""

    graph: Any
    values: Mapping[str, Any]
    told: Mapping[str, str]

    def conv_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the weights of its convolutions, in the order of the graph; empty for one that is not in it."""
        weights = [self.values.get(node.input[1]) for node in self.graph.node if node.op_type == "Conv"]
        return [() if weight is None else tuple(weight.dims) for weight in weights]

    def tensor(self, name: str) -> Tensor:
        """One tensor; float32 if it is of a floating type."""
        from onnx import numpy_helper

        if name not in self.values:
            raise Refusal(f"it has no tensor {name:.80}")
        if self.values[name].external_data:
            raise Refusal("its weights are in another file; export it as one file")
        value = torch.from_numpy(numpy_helper.to_array(self.values[name]).copy())
        return value.float() if value.is_floating_point() else value


@dataclass(frozen=True, slots=True, eq=False)
class ForeignFile:
    """An open file: `archive` and, where it holds one, `state` of a file of torch, `onnx` of an ONNX file."""

    path: Path
    archive: Archive | None = None
    state: StateDict | None = None
    onnx: OnnxFile | None = None

    def tensors(self) -> StateDict:
        """Its tensors by name; Refusal where it holds none."""
        if self.state is None:
            raise Refusal("it has no tensors")
        return self.state

    def summary(self) -> str:
        """What the file holds, in a few words for a message."""
        if self.onnx is not None:
            nodes, tensors = len(self.onnx.graph.node), len(self.onnx.values)
            return f"an ONNX graph of {counted(nodes, 'node')} and {counted(tensors, 'tensor')}"
        if self.state is not None:
            return f"{len(self.state.shapes)} tensors, such as {min(self.state.shapes)[:80]!r}"
        tree = None if self.archive is None else self.archive.tree
        if isinstance(tree, dict):
            kinds = [value.kind for value in tree.values() if isinstance(value, Record)]
            held = f", a {kinds[0][:80]} among them" if kinds else ""
            return f"the entries {[str(key)[:40] for key in list(tree)[:6]]}{held}, and no tensors by name"
        if isinstance(tree, Stored):
            return "a tensor without a name"
        return f"a {tree.kind[:80] if isinstance(tree, Record) else type(tree).__name__}"


@contextmanager
def opened(path: Path, allowed: Allowed) -> Iterator[ForeignFile]:
    """A file of torch or of ONNX, by its name's ending, open for reading.

    Raises Refusal for one that is damaged, or whose pickle names anything beyond tensors and what is `allowed`, and
    ConfigError where the package for ONNX files is not installed.
    """
    if _begins(path, b"<"):  # no other kind of file does
        raise Refusal("it is a web page, as downloads give that went wrong; download the file itself")
    if path.suffix.lower() == ".onnx":
        yield ForeignFile(path, onnx=_onnx(path))
    elif _begins(path, LEGACY):
        yield ForeignFile(path, state=_state_in(_legacy(path), Tensor, lambda value: value))
    else:
        with unpickle.opened(path, allowed) as archive:
            yield ForeignFile(path, archive, _state_in(archive.tree, Stored, archive.tensor))


def _legacy(path: Path) -> Any:
    """What a file of torch before its 1.6 holds, by torch's own reader of tensors and plain data.

    Its pickles are looked through first: that reader also takes calls which fill any amount of memory.
    """
    try:
        _check_legacy(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Refusal:
        raise
    except Exception as error:  # bytes of any kind may be in there, and torch raises almost anything
        raise Refusal(f"not a readable checkpoint ({first_line(error)}); copy it again or use another") from error


def _check_legacy(path: Path) -> None:
    """Refusal for pickles that name anything but tensors, or that are too large."""
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            for opcode, argument, at in pickletools.genops(file):
                named = str(argument).replace(" ", ".")
                if opcode.name == "GLOBAL" and named not in LEGACY_NAMES:
                    raise Refusal(f"it asks for {named:.100}, so it holds more than tensors and plain data")
                if at is not None and at > MAX_PICKLE:
                    raise Refusal(f"its pickle is larger than {MAX_PICKLE >> 20} MB, which no detector needs")


def _begins(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _onnx(path: Path) -> OnnxFile:
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(
            f'{path}: the package onnx, which reads it, is missing; pip install "gfldet[onnx]"'
        ) from error
    try:
        proto = onnx.load(str(path), load_external_data=False)  # a path in a file is not followed
    except Exception as error:  # protobuf's own, which is no dependency of ours
        raise Refusal("no ONNX graph, or one that was cut short; copy or download it again") from error
    if any(node.op_type == "Conv" and len(node.input) < 2 for node in proto.graph.node):
        raise Refusal("its graph has a Conv without weights, which is no convolution")
    values = {tensor.name: tensor for tensor in proto.graph.initializer}
    values |= {
        n.output[0]: a.t for n in proto.graph.node if n.op_type == "Constant" for a in n.attribute if a.HasField("t")
    }
    return OnnxFile(proto.graph, values, {entry.key: entry.value for entry in proto.metadata_props})


def _state_in(tree: Any, kind: type, read: Callable[[Any], Tensor]) -> StateDict | None:
    """The tensors by name that a checkpoint holds, of `kind` until they are `read`; None if there are none."""
    if not isinstance(tree, dict):
        return None
    for place in (tree, *(tree.get(key) for key in HOLDERS)):
        tensors = place if isinstance(place, dict) else {}
        tensors = {name: value for name, value in tensors.items() if isinstance(value, kind) and isinstance(name, str)}
        if len(tensors) > MAX_TENSORS:
            raise Refusal(f"it has {len(tensors)} tensors, more than any detector")
        if tensors:
            named = _unwrapped(tensors)
            return StateDict({name: tuple(value.shape) for name, value in named.items()}, named, read)
    return None


def _unwrapped(tensors: dict[str, Any]) -> dict[str, Any]:
    """Names without the wrappers that stand before all of them."""
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in tensors)), None):
        tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors
