"""What the shapes in a foreign file tell: its size, its classes, and whether it is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from gfldet.config.assets import cfg_folder, scales_of
from gfldet.errors import counted
from gfldet.nn.build import Description, read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.store.archive import Refusal

Shape = tuple[int, ...]
MAX_CLASSES = 100_000


def size_of(
    family: str, yaml: str, nc: int, place: str, found: Shape, expected: Callable[[Description], Shape]
) -> Description:
    """The scale of a model YAML of ours, for `nc` classes, that a file of `family` is of.

    It is told by the shape `found` of the file's tensor `place`, which is another one in each scale: `expected`.
    Raises Refusal, with the shapes of all, where it is that of none.
    """
    path = cfg_folder() / "models" / yaml
    scales = {scale: read_description(path, scale, nc) for scale in scales_of(path)}
    shapes = {scale: expected(description) for scale, description in scales.items()}
    for scale, shape in shapes.items():
        if shape == found:
            return scales[scale]
    sizes = ", ".join(f"{list(shape)} in {scale}" for scale, shape in shapes.items())
    raise Refusal(f"its {place} is {list(found)}, which no known size of {family} has: {sizes}")


def check_classes(nc: int) -> None:
    """Refusal for a number of classes that no detector has."""
    if not 1 <= nc <= MAX_CLASSES:
        raise Refusal(f"its outputs are for {counted(nc, 'class')}")


def unfilled(description: Description) -> DetectionModel:
    """A model of ours for the shapes in it.  Its fresh weights cost no random numbers of the caller's.

    On the CPU: torch takes seconds to import what makes one on "meta", which is for descriptions that a file tells.
    """
    with torch.random.fork_rng(devices=[]):
        return DetectionModel(description)


def body_shapes(model: DetectionModel) -> dict[str, Shape]:
    """Names and shapes of a model's state below its head."""
    head = model.description.head_prefix
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if not name.startswith(head)}


def check_shapes(
    found: Mapping[str, Shape], expected: Mapping[str, Shape], what: str, others: Callable[[str], bool]
) -> None:
    """Refusal with the first tensor of a file that is missing or of another shape than in `what`, or too many.

    `found` and `expected` go by the file's names; `others` tells of a name that may be there beside.
    """
    for name, shape in expected.items():
        if found.get(name) != shape:
            told = list(found[name]) if name in found else "missing"
            raise Refusal(f"its {name} is {told}; {list(shape)} is expected in {what}")
    extra = [name for name in found if name not in expected and not others(name)]
    if extra:
        raise Refusal(f"it has {len(extra)} tensors that {what} does not have, such as {min(extra):.80}")


def four_sides(shapes: Mapping[str, Shape], name: str) -> Shape:
    """The shape of a convolution's weight; Refusal where it is missing or has not four sides."""
    if len(shapes.get(name, ())) != 4:
        raise Refusal(f"its {name} is {list(shapes[name]) if name in shapes else 'missing'}; four sides are expected")
    return shapes[name]
