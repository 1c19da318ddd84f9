"""A YOLOv8 checkpoint's tree of modules -> a description of ours and its weights.

The tree tells the graph: each layer's class, inputs and shapes make a row of a model YAML.  A model of ours built from
these rows is then laid beside the tree, and every module of it has to be there with the same settings and tensors of
the same names and shapes, and nothing else.  So what is taken over computes the same, whatever its scale and classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from gfldet.errors import ConfigError
from gfldet.imports.foreign import ForeignModel, check_bins, class_names, image_size, shown, text
from gfldet.imports.shapes import MAX_CLASSES
from gfldet.nn import blocks
from gfldet.nn.build import MAX_REG_MAX, Description
from gfldet.nn.limits import AtMost
from gfldet.nn.tasks import DetectionModel
from gfldet.store.archive import Refusal
from gfldet.store.unpickle import Archive, Record, Stored

MODEL = "DetectionModel"
HEAD = "Detect"
LAYERS = ("Conv", "C2f", "SPPF", "Upsample", "Concat", HEAD)
PARTS = ("Bottleneck", "DFL", "Sequential", "ModuleList", "Conv2d", "BatchNorm2d", "SiLU", "MaxPool2d")
SUPPORTED = f"only YOLOv8 detection models can be read, whose layers are {', '.join(LAYERS)}"
MAX_LAYERS = 200
MAX_PARTS = 5000  # modules in all; the largest YOLOv8 has some hundreds
HALF_BYTES = 2  # of a number in float16, the smallest in which weights are kept
MAPS = 1 << 25  # numbers of the maps of the small image by which strides are measured
UNLIMITED = 1e9  # channels: the rows hold those that the tree has, so nothing is to be scaled


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """One recorded module: its class without the package, attributes, submodules, parameters and buffers."""

    kind: str
    attributes: Mapping[str, Any]
    children: Mapping[str, Any]
    tensors: Mapping[str, Stored]

    def child(self, path: str) -> Module:
        """The module at a path such as `m.0.cv1`; Refusal where there is none."""
        found = self
        for name in path.split("."):
            if name not in found.children:
                raise Refusal(f"its {found.kind} has no part {name!r} ({path})")
            found = module_of(found.children[name])
        return found


def module_of(record: Any) -> Module:
    """A record of a `torch.nn.Module` as a `Module`; Refusal for anything else."""
    state = record.state if isinstance(record, Record) else None
    parts = [state.get(key) if isinstance(state, dict) else None for key in ("_modules", "_parameters", "_buffers")]
    if not isinstance(state, dict) or not all(isinstance(part, dict) for part in parts):
        raise Refusal(
            f"a {record.kind if isinstance(record, Record) else type(record).__name__} where a module belongs"
        )
    children, *own = ({k: v for k, v in (part or {}).items() if v is not None} for part in parts)
    tensors = {name: value for part in own for name, value in part.items()}
    if not all(isinstance(value, Stored) for value in tensors.values()):
        raise Refusal(f"a {record.kind} whose weights are no tensors")
    return Module(record.kind.rpartition(".")[2], state, children, tensors)


def model_in(archive: Archive) -> Any:
    """What a checkpoint holds as its model: the average of the weights, which is what that tool validates, if any."""
    return archive.tree.get("ema") or archive.tree.get("model") if isinstance(archive.tree, dict) else None


def read(archive: Archive, stem: str) -> ForeignModel:
    """The detector in an archive; `stem` names it where it has no name itself.

    Raises Refusal with the layer or the entry for which it cannot be taken.
    """
    saved, record = archive.tree, model_in(archive)
    if not isinstance(record, Record):
        raise Refusal("it has no entry 'ema' or 'model' with a whole model in it")
    root = module_of(record)
    if root.kind != MODEL or not record.kind.startswith("ultralytics."):
        raise Refusal(f"its model is a {record.kind}; {SUPPORTED}")
    layers = [module_of(value) for value in root.child("model").children.values()]
    _check_kinds(layers)
    description = _describe(root, layers, stem)
    try:
        # The file has not been believed yet: its model takes no more numbers than the file has room for.  (The device
        # "meta" would take none, but torch imports for seconds what it needs for that.)
        with torch.random.fork_rng(devices=[]), AtMost(archive.size // HALF_BYTES + MAPS):
            model = DetectionModel(description)
    except (ConfigError, RuntimeError, ValueError, TypeError) as error:
        raise Refusal(f"its layers do not make a detector ({str(error)[:150]})") from error
    _compare(model, root)
    weights = _weights(archive, model, root)
    args = [_entries(value) for value in (root.attributes.get("args"), saved.get("train_args"))]
    return ForeignModel(
        description,
        class_names(root.attributes.get("names"), description.nc),
        weights,
        next((size for given in args if (size := image_size(given.get("imgsz")))), None),
        _strides(archive, layers[-1], model.strides),
        text(saved.get("license")),
        "YOLOv8",
    )


def _entries(value: Any) -> Mapping[str, Any]:
    """Settings that are a dict, or an object with them as its attributes."""
    value = value.state if isinstance(value, Record) else value
    return value if isinstance(value, dict) else {}


def _check_kinds(layers: list[Module]) -> None:
    """Refusal that names the first layer or part which a YOLOv8 detector does not have."""
    if not 1 < len(layers) <= MAX_LAYERS:
        raise Refusal(f"its model has {len(layers)} layers; {SUPPORTED}")
    parts = 0
    for number, layer in enumerate(layers):
        if layer.kind not in LAYERS or (layer.kind == HEAD) != (number == len(layers) - 1):
            raise Refusal(f"its layer {number} is a {layer.kind}; {SUPPORTED}, the last of them {HEAD}")
        for path, part in _inside(layer):
            parts += 1  # one module may be named in many places, so that a small file could have any number
            if parts > MAX_PARTS:
                raise Refusal(f"its model has more than {MAX_PARTS} modules")
            if part.kind not in (*PARTS, "Conv"):
                raise Refusal(f"its layer {number} ({layer.kind}) has a {part.kind} in it, as {path}; {SUPPORTED}")


def _inside(module: Module, path: str = "", depth: int = 0) -> Iterator[tuple[str, Module]]:
    """Every module below one, with its path."""
    if depth > 6:
        raise Refusal("modules nested more deeply than in any detector")
    for name, value in module.children.items():
        part = module_of(value)
        yield f"{path}{name}", part
        yield from _inside(part, f"{path}{name}.", depth + 1)


def _describe(root: Module, layers: list[Module], stem: str) -> Description:
    """The layers as rows of a model YAML, with their real channels and repeats."""
    head = layers[-1]
    rows = tuple((_sources(layer, number), *_row(layer)) for number, layer in enumerate(layers))
    bins, nc = (_shape(head.child(f"{part}.0.2"), "weight")[0] for part in ("cv2", "cv3"))
    if not 4 <= bins <= 4 * MAX_REG_MAX or not 1 <= nc <= MAX_CLASSES:
        raise Refusal(f"a head of {bins} outputs for boxes and {nc} for classes")
    file = _entries(root.attributes.get("yaml")).get("yaml_file")
    name = PurePosixPath(file).stem if isinstance(file, str) and file else stem
    return Description(name[:100], nc, bins // 4, 1.0, 1.0, UNLIMITED, rows)


def _row(layer: Module) -> tuple[int, str, list[Any]]:
    """(repeats, module, args) of a layer."""
    if layer.kind == HEAD:
        return 1, "GFLHead", ["nc"]
    if layer.kind == "Concat":
        return 1, "Concat", [1]
    if layer.kind == "Upsample":
        factor = layer.attributes.get("scale_factor")
        if factor not in (2, 3, 4):
            raise Refusal(f"an Upsample by {shown(factor)}; a factor of 2, 3 or 4 is known")
        return 1, "Upsample", [None, int(factor), "nearest"]
    if layer.kind == "Conv":
        shape, stride = _shape(layer.child("conv"), "weight"), layer.child("conv").attributes.get("stride")
        if stride not in ((1, 1), (2, 2)):
            raise Refusal(f"a Conv of stride {shown(stride)}; 1 and 2 are known")
        return 1, "Conv", [shape[0], shape[2], stride[0]]
    width = _shape(layer.child("cv2.conv"), "weight")[0]
    if layer.kind == "SPPF":
        kernel = layer.child("m").attributes.get("kernel_size")
        if kernel not in (3, 5, 7, 9, 13):
            raise Refusal(f"an SPPF over {shown(kernel)}; 5 is what YOLOv8 has")
        return 1, "SPPF", [width, kernel]
    repeats = len(layer.child("m").children)
    return repeats, "C2f", [width, repeats > 0 and layer.child("m.0").attributes.get("add") is True]


def _sources(layer: Module, number: int) -> int | list[int]:
    """The `f` of layer `number`: from which layers above it reads."""
    given = layer.attributes.get("f")
    values: list[Any] = given if isinstance(given, list) else [given]
    if not values or len(values) > MAX_LAYERS or not all(type(v) is int for v in values):
        raise Refusal(f"its layer {number} ({layer.kind}) does not tell from which layers it reads")
    if any(not -1 <= (v if v >= 0 else number + v) < number for v in values):
        raise Refusal(f"its layer {number} ({layer.kind}) reads from {shown(given)}, which is not above it")
    return values if isinstance(given, list) else int(values[0])


def _shape(module: Module, name: str) -> tuple[int, ...]:
    """The shape of a convolution's weight, of four sides."""
    if name not in module.tensors or len(module.tensors[name].shape) != 4:
        raise Refusal(f"a {module.kind} without a weight of four sides where a convolution belongs")
    return module.tensors[name].shape


def their_path(path: str, head: int) -> str:
    """Where the tree has a module or tensor of ours: `graph.layers.22.box.0.1` is `model.22.cv2.0.1`."""
    path = path.replace("graph.layers", "model", 1)
    for ours, theirs in (("box", "cv2"), ("cls", "cv3")):
        path = path.replace(f"model.{head}.{ours}", f"model.{head}.{theirs}", 1)
    return path.replace(f"model.{head}.bins", f"model.{head}.dfl.conv.weight", 1)


SETTINGS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    nn.BatchNorm2d: ("eps",),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.SiLU: (),
    blocks.Upsample: ("size", "scale_factor", "mode"),
    blocks.Bottleneck: ("add",),
    blocks.Concat: ("dim",),
}
THEIR_NAMES = {"dim": "d"}


def _compare(model: DetectionModel, root: Module) -> None:
    """Refusal if a module of ours is missing in the tree, is of another class or has other settings there."""
    head = len(model.graph.layers) - 1
    for path, ours in model.named_modules():
        if type(ours) not in SETTINGS:
            continue
        there = their_path(path, head)
        theirs = root.child(there)
        if theirs.kind != type(ours).__name__:
            raise Refusal(f"its {there} is a {theirs.kind} instead of a {type(ours).__name__}")
        for name in SETTINGS[type(ours)]:
            mine, value = getattr(ours, name), theirs.attributes.get(THEIR_NAMES.get(name, name))
            if mine != value:
                raise Refusal(f"its {there} has {name}={shown(value)}; {mine!r} is what can be taken over")


def _weights(archive: Archive, model: DetectionModel, root: Module) -> dict[str, Tensor]:
    """All tensors of ours; Refusal for one that is missing or of another shape, and for any that is left over."""
    head = len(model.graph.layers) - 1
    if sum(value.numel() for value in model.state_dict().values()) > archive.size:
        raise Refusal("its layers have more weights than the file has bytes")  # the same numbers, many times over
    left = {f"model.{path}.{name}" for path, part in _inside(root.child("model")) for name in part.tensors}
    weights: dict[str, Tensor] = {}
    for name, ours in model.state_dict().items():
        there = their_path(name, head)
        shape = (1, model.reg_max, 1, 1) if ".dfl." in there else tuple(ours.shape)
        weights[name] = _tensor(archive, root, there, shape).to(ours.dtype).view(ours.shape)
        left.discard(there)
    if left:
        raise Refusal(f"it has {len(left)} tensors that a YOLOv8 detector does not have, such as {min(left)}")
    check_bins(weights[f"{model.description.head_prefix}bins"])
    return weights


def _tensor(archive: Archive, root: Module, path: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor at `path` of the tree, of that shape."""
    where, _, last = path.rpartition(".")
    stored = root.child(where).tensors.get(last)
    if stored is None or stored.shape != shape:
        raise Refusal(f"its {path} is {list(stored.shape) if stored else 'missing'}; {list(shape)} is expected")
    return archive.tensor(stored)


def _strides(archive: Archive, head: Module, ours: tuple[int, ...]) -> tuple[int, ...] | None:
    """The strides that the head tells, if any; Refusal if they are not those of its graph."""
    stored = head.attributes.get("stride")
    if not isinstance(stored, Stored):
        return None
    theirs = tuple(archive.tensor(stored).flatten().tolist())
    if theirs != ours:
        raise Refusal(f"its strides are {shown(theirs)}, those of its layers {ours}")
    return ours
