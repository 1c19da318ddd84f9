"""The kept detector is made once, and made anew after any change of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from gfldet import Model
from gfldet.detect import torch_detector
from gfldet.detect.torch_detector import KeptDetector, for_inference
from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel

CPU = torch.device("cpu")
FRAMES = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)


@pytest.fixture
def net(tiny: Description) -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(tiny, ("red", "blue"))


def scores(detector: torch_detector.TorchDetector) -> torch.Tensor:
    return detector.infer(FRAMES).decoded().stacked()


def first(net: DetectionModel) -> nn.Parameter:
    return next(p for p in net.parameters() if p.ndim == 4)


def by_array(net: DetectionModel) -> None:
    first(net).detach().numpy()[0] *= 2


def by_data(net: DetectionModel) -> None:
    first(net).data.copy_(first(net).data.flip(1))  # the same numbers in another order


def by_step(net: DetectionModel) -> None:
    with torch.no_grad():
        first(net).add_(1e-3)


def by_loading(net: DetectionModel) -> None:
    net.load_state_dict({name: value * 1.1 for name, value in net.state_dict().items()})


def by_assignment(net: DetectionModel) -> None:
    first(net).data = first(net).data * 2


def by_statistics(net: DetectionModel) -> None:
    norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.running_mean is not None
    norm.running_mean.data += 1


def by_another_layer(net: DetectionModel) -> None:
    conv = next(m for m in net.modules() if hasattr(m, "act"))
    conv.act = nn.ReLU()  # type: ignore[assignment]


def by_names(net: DetectionModel) -> None:
    net.names[0] = "scarlet"


@pytest.mark.parametrize(
    "change",
    [by_array, by_data, by_step, by_loading, by_assignment, by_statistics, by_another_layer, by_names],
    ids=lambda change: change.__name__,
)
def test_a_change_is_seen(net: DetectionModel, change: Callable[[DetectionModel], None]) -> None:
    kept = KeptDetector()
    before = kept.of(net, CPU)
    assert kept.of(net, CPU) is before
    change(net)
    after = kept.of(net, CPU)
    assert after is not before
    fresh = for_inference(net, CPU)
    assert torch.equal(scores(after), scores(fresh))
    assert after.names == fresh.names
    assert kept.of(net, CPU) is after


def test_another_model_with_the_same_weights_is_another(net: DetectionModel) -> None:
    kept = KeptDetector()
    assert kept.of(net, CPU) is not kept.of(copy.deepcopy(net), CPU)


def test_predictions_of_a_loop_make_one_detector(trained: object, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def counted(model: DetectionModel, device: torch.device) -> torch_detector.TorchDetector:
        made.append(model)
        return for_inference(model, device)

    monkeypatch.setattr(torch_detector, "for_inference", counted)
    model = Model(str(trained))
    given = {"imgsz": 64, "conf": 0.0, "max_det": 5, "threads": 1, "device": "cpu", "verbose": False}
    found = [model.predict(FRAMES[0], **given)[0].boxes.data for _ in range(3)]
    assert len(made) == 1
    assert all(np.array_equal(found[0], again) for again in found)
    first(model.model).data.mul_(3)
    (changed,) = model.predict(FRAMES[0], **given)
    assert len(made) == 2
    assert not np.array_equal(found[0], changed.boxes.data)
