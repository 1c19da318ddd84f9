"""torchvision's FCOS and RetinaNet, and its plain ResNets -> the body of `gfl-r50` and its weights.

The body is of torchvision here as there (`nn.backbones.ResNetFPN`): the names of its tensors are the same but for how
they begin, and the images that it takes as well.  So the weights fit every model of ours on the same ResNet.  The heads
are none of ours and stay behind.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from gfldet.config.assets import cfg_folder
from gfldet.imports.files import ForeignFile, StateDict
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.shapes import check_shapes
from gfldet.nn.backbones import ResNetFPN
from gfldet.nn.build import Description, read_description
from gfldet.store.archive import Refusal

READS = "weights of torchvision's FCOS or RetinaNet (resnet50_fpn, v1) or of its ResNets (.pth)"
LICENCE = "BSD-3-Clause if it is a file that torchvision's authors published; the file itself tells none"
KINDS = {  # how a tensor begins which none of the kinds further down has -> the detector, as torchvision calls it
    "roi_heads.mask_predictor.": "Mask R-CNN",
    "roi_heads.keypoint_predictor.": "Keypoint R-CNN",
    "roi_heads.box_predictor.": "Faster R-CNN",
    "head.classification_head.module_list.": "SSD",
    "head.regression_head.bbox_ctrness.": "FCOS",
    "head.classification_head.conv.0.1.": "RetinaNet v2",  # its subnets have norms, its P6 is made of C5
    "head.classification_head.cls_logits.": "RetinaNet",
}
BODIES = ("backbone.body.", "backbone.features.")  # one of which all of these have
RESNET = frozenset({"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"})
READ = ("FCOS", "RetinaNet", "ResNet")
DEPTHS: dict[tuple[int, ...], str] = {  # blocks of the four stages, convolutions of a block -> the ResNet
    (2, 2, 2, 2, 2): "resnet18",
    (3, 4, 6, 3, 2): "resnet34",
    (3, 4, 6, 3, 3): "resnet50",
    (3, 4, 23, 3, 3): "resnet101",
    (3, 8, 36, 3, 3): "resnet152",
}
OURS = "graph.layers.0."
COUNTER = ".num_batches_tracked"  # of a batch norm; frozen ones have none, nor had any before torch 0.4.1
EPS = 1e-5  # of the batch norms in a ResNet of torchvision


def recognises(file: ForeignFile) -> bool:
    """A state dict with the names of a detector of torchvision, or of a ResNet."""
    return file.state is not None and kind_of(file.state.shapes) is not None


def kind_of(names: Collection[str]) -> str | None:
    """The model of torchvision that tensors of these names are of."""
    if RESNET.issubset(names):
        return "ResNet"
    if not any(name.startswith(BODIES) for name in names):
        return None
    return next((kind for start, kind in KINDS.items() if any(name.startswith(start) for name in names)), None)


def read(file: ForeignFile) -> ForeignModel:
    """The ResNet of a file and, where it has one, its pyramid.

    Raises Refusal with the first tensor for which they cannot be taken, or with the detector that is none of these.
    """
    state = file.tensors()
    kind = kind_of(state.shapes)
    if kind not in READ:
        raise Refusal(f"its tensors are those of {kind}; FCOS, RetinaNet (both v1) and plain ResNets can be taken")
    start, part, rest = ("", "body.", "fc.") if kind == "ResNet" else ("backbone.", "", "head.")
    places = {
        OURS + part + _present(name.removeprefix(start)): name for name in state.shapes if not name.startswith(rest)
    }
    resnet = resnet_of(places)
    description = gfl_on(resnet)
    with torch.device("meta"):  # shapes without memory: the file has not been believed yet
        ours = ResNetFPN(*description.rows[0][3]).state_dict()
    body = {OURS + name: tuple(value.shape) for name, value in ours.items() if name.startswith(part)}
    called = {name: places.get(name, start + name.removeprefix(OURS + part)) for name in body}
    expected = {
        called[name]: shape
        for name, shape in body.items()
        if not name.endswith(COUNTER) or called[name] in state.shapes
    }
    what = f"{kind} on a {resnet}" if start else f"a {resnet}"
    check_shapes(state.shapes, expected, what, lambda name: name.startswith(rest))
    # Frozen norms add 1e-5 to the variance as others do, but in the RetinaNet that torchvision publishes they add 0
    # (`overwrite_eps`).  One trained from the ResNet alone adds 1e-5; its file is alike.
    frozen = not any(name.endswith(COUNTER) for name in places)
    weights = _weights(state, called, 0.0 if frozen and kind == "RetinaNet" else EPS)
    left = sum(name.startswith(rest) for name in state.shapes)
    return ForeignModel(
        description,
        tuple(f"class{i}" for i in range(description.nc)),
        weights,
        licence=LICENCE,
        family=f"torchvision's {kind}",
        body_only=True,
        left=(f"its {'head' if start else 'classifier'} ({left} tensors), which is none of ours",) if left else (),
    )


def resnet_of(places: Collection[str]) -> str:
    """The ResNet whose blocks have tensors at these places of ours; Refusal if it is none that we have."""
    found = {match.groups() for name in places if (match := re.search(r"body\.layer([1-4])\.(\d+)\.conv(\d)\.", name))}
    blocks = [len({block for stage, block, _ in found if stage == number}) for number in "1234"]
    convolutions = len({conv for *_, conv in found})
    resnet = DEPTHS.get((*blocks, convolutions))
    if resnet is None:
        raise Refusal(
            f"its body has {', '.join(map(str, blocks))} blocks of {convolutions} convolutions in four stages; one of "
            f"{', '.join(DEPTHS.values())} is expected"
        )
    return resnet


def gfl_on(resnet: str) -> Description:
    """GFL on a ResNet of any depth: `gfl-r50`, or what it is with another body."""
    gfl = read_description(cfg_folder() / "models" / "gfl-r50.yaml")
    origin, repeats, module, (_, width) = gfl.rows[0]
    rows = ((origin, repeats, module, [resnet, width]), *gfl.rows[1:])
    return dataclasses.replace(gfl, name=f"gfl-{resnet.replace('resnet', 'r')}", rows=rows)


def _present(name: str) -> str:
    """A name of the pyramid as torchvision has had it since 0.13, when each convolution moved into a block."""
    return re.sub(r"^(fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", name)


def _weights(state: StateDict, called: Mapping[str, str], eps: float) -> dict[str, Tensor]:
    """Tensors by our names, of norms that add EPS to a variance where those of the file add `eps`."""
    weights: dict[str, Tensor] = {}
    for name, there in called.items():
        if name.endswith(COUNTER):
            weights[name] = state.tensor(there).long() if there in state.shapes else torch.zeros((), dtype=torch.int64)
            continue
        weights[name] = state.tensor(there)
        if not weights[name].is_floating_point():
            raise Refusal(f"its {there} holds whole numbers ({weights[name].dtype}), which weights are not")
        if name.endswith(".running_var"):
            variance = weights[name].double()
            if bool((variance < 0).any()) or bool((variance + eps == 0).any()):
                raise Refusal(f"its {there} has variances that are not above 0")
            # The weight takes up the difference, since a variance that is below EPS could not.
            weight = name.removesuffix("running_var") + "weight"
            weights[weight] = (weights[weight] * ((variance + EPS) / (variance + eps)).sqrt()).float()
    return weights
