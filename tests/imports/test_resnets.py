"""torchvision's weights: what is read computes the features that torchvision's own code computes; the rest is refused.

The files are made by torchvision with random weights, norms and their statistics included.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from gfldet.config.assets import resolve_model_yaml
from gfldet.config.load import resolve
from gfldet.errors import CheckpointError, ConfigError
from gfldet.imports.registry import read_foreign
from gfldet.imports.resnets import EPS
from gfldet.imports.start import read_start
from gfldet.model import Model
from gfldet.nn.backbones import ResNetFPN
from gfldet.nn.build import Description, read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.store import transfer
from gfldet.train.prepare import chosen_weights, take_weights

DETECTORS = {"FCOS": detection.FCOS, "RetinaNet": detection.RetinaNet}
State = dict[str, Tensor]
_long = partial(pytest.param, marks=pytest.mark.long)


@torch.no_grad()
def shaken(module: nn.Module) -> Any:
    """The same with norms that are no identities, whose variances lie far below and above EPS."""
    generator = torch.Generator().manual_seed(7)

    def rand(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    for norm in module.modules():
        if isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            variance = norm.running_var
            assert isinstance(variance, Tensor)
            variance.copy_(rand(variance, 0.5, 2) * 10 ** -rand(variance, 0, 9).floor())
            norm.weight.copy_(rand(variance, 0.5, 1) * variance.sqrt())
            norm.bias.copy_(rand(variance, -0.1, 0.1))
            norm.running_mean.copy_(rand(variance, -0.1, 0.1) * variance.sqrt())
    return module.eval()


def detector(kind: str, resnet: str = "resnet18", frozen: bool = True, eps: float = EPS) -> Any:
    """A detector as torchvision's builders make it, on any ResNet."""
    norm = partial(FrozenBatchNorm2d, eps=eps) if frozen else nn.BatchNorm2d
    body = getattr(models, resnet)(norm_layer=norm)
    backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    return shaken(DETECTORS[kind](backbone, 4))


@pytest.fixture(scope="module")
def fcos() -> Any:
    return detector("FCOS")


@pytest.fixture(scope="module")
def retinanet() -> Any:
    """The norms of the published RetinaNet add nothing to their variances."""
    return detector("RetinaNet", eps=0.0)


@pytest.fixture(scope="module")
def resnet() -> Any:
    return shaken(models.resnet18())


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def features(theirs: Any, images: Tensor) -> list[Tensor]:
    """What torchvision's own code has after its pyramid, for images as it is given them."""
    return list(theirs.backbone(torch.stack([theirs.transform.normalize(image) for image in images])).values())


def body_of(file: Path, resnet: str = "resnet18") -> ResNetFPN:
    """The body of ours with the weights of a file, which are all of it and nothing else."""
    foreign = read_foreign(file)
    assert foreign.description.rows[0] == (-1, 1, "ResNetFPN", [resnet, 256])
    body = ResNetFPN(resnet, 256)
    body.load_state_dict({name.removeprefix("graph.layers.0."): value for name, value in foreign.weights.items()})
    return body.eval()


@torch.no_grad()
def assert_same(body: ResNetFPN, images: Tensor, expected: list[Tensor]) -> None:
    """The features of a body, before and after its norms are folded."""
    assert 0.1 < max(float(feature.abs().max()) for feature in expected) < 100
    for fused in (False, True):
        if fused:
            body.fuse()
            assert not any(isinstance(module, nn.BatchNorm2d) for module in body.modules())
        for mine, theirs in zip(body(images), expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------- features of detectors


@pytest.mark.long
def test_a_retinanet_of_torchvision_s_own_builder(images: Tensor, tmp_path: Path) -> None:
    theirs = shaken(detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5))
    torch.save(theirs.state_dict(), tmp_path / "r.pth")  # from scratch: plain batch norms
    foreign = read_foreign(tmp_path / "r.pth")
    assert (foreign.family, foreign.body_only, foreign.description.name) == ("torchvision's RetinaNet", True, "gfl-r50")
    assert foreign.description == read_description(*resolve_model_yaml("gfl-r50"))
    assert foreign.left == (f"its head ({len(theirs.head.state_dict())} tensors), which is none of ours",)
    assert "BSD-3-Clause" in str(foreign.licence)
    assert_same(body_of(tmp_path / "r.pth", "resnet50"), images, features(theirs, images))


def test_an_fcos_of_torchvision_s_own_builder_has_the_same_names(fcos: Any) -> None:
    """So what holds on a resnet18 here holds on the published resnet50."""
    with torch.device("meta"):
        published = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None)
    names = {name for name in published.state_dict() if ".layer" not in name and not name.endswith("batches_tracked")}
    assert names == {name for name in fcos.state_dict() if ".layer" not in name}


def test_fcos(fcos: Any, images: Tensor, tmp_path: Path) -> None:
    torch.save(fcos.state_dict(), tmp_path / "f.pth")
    assert_same(body_of(tmp_path / "f.pth"), images, features(fcos, images))


@pytest.mark.long
def test_into_every_model_on_its_resnet(fcos: Any, tmp_path: Path) -> None:
    """Their bodies are described alike; so what is taken into one is taken into all."""
    gfl, *others = (read_description(*resolve_model_yaml(f"{n}-r18")) for n in ("gfl", "atss", "gflv2", "retinanet"))
    assert all(other.rows[0] == gfl.rows[0] for other in others)
    torch.save(fcos.state_dict(), tmp_path / "f.pth")
    start = read_start(tmp_path / "f.pth")
    model = DetectionModel(others[0], [f"thing {i}" for i in range(80)])
    assert transfer.transfer(model, start.checkpoint).extent == "body"
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in start.checkpoint.weights.items())


@pytest.mark.long
def test_the_norms_of_a_published_retinanet(retinanet: Any, images: Tensor, tmp_path: Path) -> None:
    """Read as norms that add 1e-5, as every other file is, its features would be others."""
    torch.save(retinanet.state_dict(), tmp_path / "r.pth")
    expected = features(retinanet, images)
    assert_same(body_of(tmp_path / "r.pth"), images, expected)
    other = detector("RetinaNet")
    other.load_state_dict(retinanet.state_dict())
    assert not torch.allclose(features(other, images)[0], expected[0], atol=0.01)
    norm = "graph.layers.0.body.bn1."
    weights = read_foreign(tmp_path / "r.pth").weights
    assert torch.equal(weights[norm + "running_var"], retinanet.backbone.body.bn1.running_var)
    assert torch.equal(weights[norm + "num_batches_tracked"], torch.tensor(0))


@pytest.mark.long
def test_norms_that_were_trained(images: Tensor, tmp_path: Path) -> None:
    theirs = detector("RetinaNet", frozen=False)
    torch.save(theirs.state_dict(), tmp_path / "r.pth")
    assert_same(body_of(tmp_path / "r.pth"), images, features(theirs, images))
    weights = read_foreign(tmp_path / "r.pth").weights
    assert torch.equal(weights["graph.layers.0.body.bn1.weight"], theirs.backbone.body.bn1.weight)


def assert_fcos(file: Path, fcos: Any) -> None:
    """A file has the weights of `fcos`."""
    state = fcos.backbone.state_dict()
    for name, value in read_foreign(file).weights.items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, state[name.removeprefix("graph.layers.0.")])


@pytest.mark.long
def test_files_of_older_versions(fcos: Any, tmp_path: Path) -> None:
    """Before 0.13 the convolutions of the pyramid stood in no block; before torch 1.6 a file was no archive."""
    state = {}
    for name, value in fcos.state_dict().items():
        old = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if "_blocks." in name else name
        state[old] = value
    assert "backbone.fpn.inner_blocks.0.weight" in state
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for file in ("new.pth", "old.pth"):
        assert_fcos(tmp_path / file, fcos)


def test_checkpoints_of_torchvision_s_trainer(fcos: Any, tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in fcos.state_dict().items()}
    held = {"model": state, "optimizer": {"state": {}}, "args": Namespace(lr=0.1), "epoch": 3}
    torch.save(held, tmp_path / "model_3.pth")
    assert_fcos(tmp_path / "model_3.pth", fcos)


@pytest.mark.long
def test_half_precision(fcos: Any, tmp_path: Path) -> None:
    torch.save({name: value.half() for name, value in fcos.state_dict().items()}, tmp_path / "f.pth")
    weights = read_foreign(tmp_path / "f.pth").weights
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


# --------------------------------------------------------------------------------------------------- plain ResNets


def test_a_resnet(resnet: Any, tmp_path: Path) -> None:
    state = resnet.state_dict()
    torch.save(state, tmp_path / "mine.pth")
    torch.save({n: v for n, v in state.items() if "num_batches" not in n}, tmp_path / "before-0.4.1.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for file in ("mine.pth", "before-0.4.1.pth", "old.pth"):
        foreign = read_foreign(tmp_path / file)
        assert (foreign.family, foreign.description.name) == ("torchvision's ResNet", "gfl-r18")
        assert foreign.left == ("its classifier (2 tensors), which is none of ours",)
        own = {name.removeprefix("graph.layers.0.body."): value for name, value in foreign.weights.items()}
        assert own.keys() == state.keys() - {"fc.weight", "fc.bias"}
        assert all(torch.equal(value, state[name]) for name, value in own.items())


def test_a_resnet_is_a_model_to_train(resnet: Any, tmp_path: Path) -> None:
    """Its pyramid and head are fresh; so it finds nothing yet."""
    torch.save(resnet.state_dict(), tmp_path / "r.pth")
    model = Model(tmp_path / "r.pth")
    assert model.description == read_description(*resolve_model_yaml("gfl-r18"))
    assert torch.equal(model.model.state_dict()["graph.layers.0.body.conv1.weight"], resnet.conv1.weight)
    with pytest.raises(ConfigError, match=r"r\.pth: these are the weights of a body alone"):
        model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, save=False, verbose=False)


@pytest.mark.parametrize("name", ["resnet34", "resnet50", _long("resnet101"), _long("resnet152")])
def test_every_resnet_is_told_by_its_blocks(name: str, tmp_path: Path) -> None:
    """From shapes alone, which are looked at first: every tensor is one number, repeated, and refused for it."""
    with torch.device("meta"):
        theirs = getattr(models, name)()
    state = {key: torch.zeros(()).expand(value.shape) for key, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(CheckpointError, match=r"a tensor of .* reaches outside of the 1 numbers"):
        read_foreign(tmp_path / "r.pth")


# ------------------------------------------------------------------------------------------------ what is refused


def names_of(model: str) -> State:
    """The names of a detector of torchvision, each with a tensor of one number."""
    with torch.device("meta"):
        made = getattr(detection, model)(weights=None, weights_backbone=None)
    return {name: torch.zeros(1) for name in made.state_dict()}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("retinanet_resnet50_fpn_v2", "RetinaNet v2"),
        ("fasterrcnn_mobilenet_v3_large_fpn", "Faster R-CNN"),
        ("maskrcnn_resnet50_fpn", "Mask R-CNN"),
        _long("keypointrcnn_resnet50_fpn", "Keypoint R-CNN"),
        ("ssd300_vgg16", "SSD"),
        _long("ssdlite320_mobilenet_v3_large", "SSD"),
    ],
)
def test_other_detectors_of_torchvision(model: str, told: str, tmp_path: Path) -> None:
    torch.save(names_of(model), tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError,
        match=rf"x\.pth: refused as torchvision: its tensors are those of {told}; FCOS, RetinaNet "
        r"\(both v1\) and plain ResNets can be taken; give ",
    ):
        read_foreign(tmp_path / "x.pth")


def light(theirs: Any) -> State:
    """Its tensors, of which the large ones repeat one number: they are refused as soon as they are read, but not yet
    while shapes are looked at, nor are they among the first that are read."""
    return {
        name: value.flatten()[0].clone().expand(value.shape) if value.numel() > 40_000 else value.clone()
        for name, value in theirs.state_dict().items()
    }


def _without(name: str) -> Callable[[State], Any]:
    return lambda state: state.pop(name)


def _with(name: str, value: Tensor) -> Callable[[State], Any]:
    return lambda state: state.update({name: value})


LATERAL, NORM = "backbone.fpn.inner_blocks.0.0.weight", "backbone.body.layer1.0.bn1"
CHANGES: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (_without(f"{NORM}.bias"), rf"its {NORM}\.bias is missing; \[64\] is expected in FCOS on a resnet18"),
    "transposed": (
        lambda state: state.update({LATERAL: state[LATERAL].transpose(0, 1)}),
        rf"its {LATERAL} is \[128, 256, 1, 1\]; \[256, 128, 1, 1\] is expected in FCOS on a resnet18",
    ),
    "too many": (
        _with("backbone.fpn.extra_blocks.p8\n\x1b[31m", torch.zeros(256)),
        r"it has 1 tensors that FCOS on a resnet18 does not have, such as backbone\.fpn\.extra_blocks\.p8  \[31m; ",
    ),
    "another pyramid": (
        _with("backbone.fpn.extra_blocks.p6.weight", torch.zeros(256, 512, 3, 3)),
        r"its backbone\.fpn\.extra_blocks\.p6\.weight is \[256, 512, 3, 3\]; \[256, 256, 3, 3\] is expected",
    ),
    "a block too many": (
        _with("backbone.body.layer2.2.conv1.weight", torch.zeros(128, 128, 3, 3)),
        r"its body has 2, 3, 2, 2 blocks of 2 convolutions in four stages; one of resnet18, .*, resnet152 is expected",
    ),
    "another body": (
        lambda state: [state.pop(name) for name in list(state) if ".layer" in name],
        "its body has 0, 0, 0, 0 blocks of 0 convolutions",
    ),
    "int8": (
        _with("backbone.body.conv1.weight", torch.zeros(64, 3, 7, 7, dtype=torch.int8)),
        r"its backbone\.body\.conv1\.weight holds whole numbers \(torch\.int8\), which weights are not",
    ),
    "no number": (
        _with(f"{NORM}.weight", torch.full((64,), float("nan"))),
        rf"its {NORM}\.weight has values that are no",
    ),
    "a negative variance": (
        _with(f"{NORM}.running_var", torch.full((64,), -1e-6)),
        rf"its {NORM}\.running_var has variances that are not above 0",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_do_not_fit(change: str, fcos: Any, tmp_path: Path) -> None:
    alter, told = CHANGES[change]
    state = light(fcos)
    alter(state)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=rf"bad\.pth: refused as torchvision: {told}") as refused:
        read_foreign(tmp_path / "bad.pth")
    assert "; give a YOLOv8" in str(refused.value)


@pytest.mark.long
def test_a_variance_of_nothing(retinanet: Any, resnet: Any, tmp_path: Path) -> None:
    """It is no divisor where nothing is added to it; elsewhere it is."""
    state = {**light(retinanet), f"{NORM}.running_var": torch.zeros(64)}
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(CheckpointError, match=r"bn1\.running_var has variances that are not above 0"):
        read_foreign(tmp_path / "r.pth")
    torch.save({**resnet.state_dict(), "bn1.running_var": torch.zeros(64)}, tmp_path / "r.pth")
    assert not read_foreign(tmp_path / "r.pth").weights["graph.layers.0.body.bn1.running_var"].any()


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2"])
def test_other_resnets(name: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in getattr(models, name)().state_dict().items()}
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}, tmp_path / "r.pth")
    with pytest.raises(CheckpointError, match=r"its layer1\.0\.conv1\.weight is .* is expected in a resnet50; give "):
        read_foreign(tmp_path / "r.pth")


def test_no_network_of_torchvision(tmp_path: Path) -> None:
    """Names that are near are not enough."""
    for names in ({"backbone.body.conv1.weight"}, {"roi_heads.box_predictor.bias"}, {"conv1.weight", "bn1.weight"}):
        torch.save({name: torch.zeros(1) for name in names}, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match=r"x\.pth: refused: it holds . tensors, such as"):
            read_foreign(tmp_path / "x.pth")


# ------------------------------------------------------------------------------------------------- as `pretrained=`

NET = """\
backbone:
  - [-1, 1, ResNetFPN, [resnet18, 64]]
head:
  - [-1, 1, SharedHead, [nc]]
"""


def test_pretrained_imagenet(resnet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file in torch's cache, which may be of torch's older form; its licence comes along."""
    (tmp_path / "net.yaml").write_text(NET)
    model = DetectionModel(read_description(tmp_path / "net.yaml"))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    settings = resolve("train", {"pretrained": "imagenet"})
    told: list[str] = []
    with pytest.raises(CheckpointError, match=r"^pretrained=imagenet: no resnet18-\*\.pth in "):
        take_weights(model, chosen_weights(model, settings, None), told.append)
    file = tmp_path / "hub" / "checkpoints" / "resnet18-5c106cde.pth"
    file.parent.mkdir(parents=True)
    torch.save(resnet.state_dict(), file, _use_new_zipfile_serialization=False)
    taken = take_weights(model, chosen_weights(model, settings, None), told.append)
    assert "BSD-3-Clause" in taken.licence
    assert taken.extent == "parts"
    assert told[0].startswith(
        f"weights: {file}, weights of torchvision's ResNet for gfl-r18, its body alone\n  120 tensors"
    )
    for name, value in model.state_dict().items():
        own = name.removeprefix("graph.layers.0.body.")
        assert torch.equal(value, fresh[name] if own == name else resnet.state_dict()[own])


@pytest.mark.long
def test_pretrained_of_another_model(fcos: Any, tiny: Description, tmp_path: Path) -> None:
    torch.save(fcos.state_dict(), tmp_path / "f.pth")
    (tmp_path / "net.yaml").write_text(NET.replace("resnet18", "resnet34"))
    settings = resolve("train", {"pretrained": tmp_path / "f.pth"})
    for description, told in (
        (read_description(tmp_path / "net.yaml"), "of a resnet18; net is on a resnet34; give weights of a resnet34"),
        (tiny, "for gfl-r18, of which 0% fit tiny; give them as model= to train the model that they are of"),
    ):
        model = DetectionModel(description)
        start = chosen_weights(model, settings, None)
        with pytest.raises(CheckpointError, match=rf"^{tmp_path}/f\.pth: these are weights {told}"):
            take_weights(model, start, print)
