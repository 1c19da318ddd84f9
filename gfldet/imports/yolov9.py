"""Weights of MultimediaTechLab's YOLOv9 -> `cfg/models/gfldet-v9.yaml` and its weights, all but the auxiliary branch.

Each row of theirs is the row of ours with that number; from row 23 on they are a branch that serves training alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gfldet.config.assets import cfg_folder, scales_of
from gfldet.imports.coco_names import names_of
from gfldet.imports.files import ForeignFile, StateDict
from gfldet.imports.foreign import ForeignModel, check_bins
from gfldet.imports.shapes import check_classes, check_shapes, four_sides, unfilled
from gfldet.nn.build import Description, read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.store.archive import Refusal

READS = "weights of YOLOv9 (t, s, m, c) by MultimediaTechLab (.pt, or .ckpt of a training)"
LICENCE = "MIT if it is a file that MultimediaTechLab published; the file itself tells none"
AVERAGED, TRAINED = "ema.model.", "model.model."  # a training's checkpoint has both; the average is what is validated
HEAD, POOLS = "22", "9"  # rows
BOX_OUT, CLASS_OUT = f"{HEAD}.heads.0.anchor_conv.2.weight", f"{HEAD}.heads.0.class_conv.2.weight"
BINS = tuple(f"{HEAD}.heads.{level}.anc2vec.anc2vec.weight" for level in range(3))
BRANCHES = {"box": "anchor_conv", "cls": "class_conv"}
PARTS = {"cv": "conv", "cv1": "conv1", "cv2": "conv2", "cv3": "conv3", "cv4": "conv4", "m": "bottleneck"}
TELLING = (4, 6, 8, 12, 15, 18, 21)  # rows whose widths tell the size


def recognises(file: ForeignFile) -> bool:
    """A state dict with a branch for boxes as that code calls it."""
    return file.state is not None and any(".anchor_conv." in name for name in file.state.shapes)


def read(file: ForeignFile) -> ForeignModel:
    """The detector in a file, without its auxiliary branch; Refusal that names the first tensor which does not fit."""
    state = file.tensors()
    places = _places(state)
    shapes = {name: state.shapes[place] for name, place in places.items()}
    model = _model_of(shapes)
    _compare(shapes, model)
    weights: dict[str, Tensor] = {}
    for name, ours in model.state_dict().items():
        weights[name] = state.tensor(places[their_name(name)]).to(ours.dtype).view(ours.shape)
    for name in BINS:
        check_bins(state.tensor(places[name]))
    auxiliary, trained = sum(_is_auxiliary(name) for name in shapes), len(state.shapes) - len(shapes)
    left = {
        f"its auxiliary branch ({auxiliary} tensors), which serves training alone": auxiliary,
        f"the weights of its last step ({trained} tensors), of which it has the average too": trained,
    }
    return ForeignModel(
        model.description,
        names_of(model.nc),
        weights,
        None,
        model.strides,
        LICENCE,
        "YOLOv9",
        left=tuple(text for text, count in left.items() if count),
    )


def their_name(name: str) -> str:
    """What that code calls a tensor of ours.  `graph.layers.22.box.0.2.bias` is `22.heads.0.anchor_conv.2.bias`."""
    row, *rest = name.removeprefix("graph.layers.").split(".")
    if rest == ["bins"]:
        return BINS[0]
    if row == HEAD:
        branch, level, *rest = rest
        return ".".join((row, "heads", level, BRANCHES[branch], *rest))
    parts = {**PARTS, "cv2": "conv5"} if row == POOLS else PARTS
    return ".".join((row, *(parts.get(part, part) for part in rest)))


def _places(state: StateDict) -> dict[str, str]:
    """Names as the public files have them -> names in this file."""
    prefix = next((p for p in (AVERAGED, TRAINED) if any(name.startswith(p) for name in state.shapes)), "")
    other = [name for name in state.shapes if not name.startswith((AVERAGED, TRAINED))] if prefix else []
    if other:
        raise Refusal(f"it has {len(other)} tensors that YOLOv9 does not have, such as {min(other):.80}")
    return {name.removeprefix(prefix): name for name in state.shapes if name.startswith(prefix)}


def _is_auxiliary(name: str) -> bool:
    row = name.partition(".")[0]
    return row.isdecimal() and int(row) > int(HEAD)


def _model_of(shapes: Mapping[str, tuple[int, ...]]) -> DetectionModel:
    """The model of ours that has most of the widths of a file, and its classes."""
    boxes, nc = four_sides(shapes, BOX_OUT)[0], four_sides(shapes, CLASS_OUT)[0]
    check_classes(nc)
    yaml = cfg_folder() / "models" / "gfldet-v9.yaml"
    known = [read_description(yaml, scale, nc) for scale in scales_of(yaml)]
    agreeing = [sum(shapes.get(name, ())[:1] == (w,) for name, w in _widths(d).items()) for d in known]
    best = known[agreeing.index(max(agreeing))]
    if max(agreeing) < len(TELLING) - 1:
        found = [shapes.get(name, (0,))[0] for name in _widths(best)]
        sizes = ", ".join(f"{list(_widths(d).values())} in {_size(d)}" for d in known)
        rows = ", ".join(map(str, TELLING))
        raise Refusal(f"its rows {rows} give {found} channels, as those of no known size do: {sizes}")
    if boxes != 4 * best.reg_max:
        raise Refusal(f"its {BOX_OUT} is for {boxes / 4:g} bins a side of a box; {best.reg_max} is what YOLOv9 has")
    return unfilled(best)


def _size(description: Description) -> str:
    return description.name.rpartition("-")[2]


def _widths(description: Description) -> dict[str, int]:
    """The outputs of some rows, by the names of the convolutions that give them."""
    return {f"{row}.conv4.conv.weight": description.rows[row][3][0] for row in TELLING}


def _compare(shapes: Mapping[str, tuple[int, ...]], model: DetectionModel) -> None:
    """Refusal if a tensor is missing, of another shape, or none of the model's or of the auxiliary branch."""
    expected = {their_name(name): tuple(value.shape) for name, value in model.state_dict().items()}
    expected |= dict.fromkeys(BINS, (1, model.reg_max, 1, 1, 1))
    check_shapes(shapes, expected, f"YOLOv9-{_size(model.description)}", _is_auxiliary)
