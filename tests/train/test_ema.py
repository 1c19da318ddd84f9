"""The average of the weights, followed by hand."""

from __future__ import annotations

import pytest
import torch

from gfldet.nn.build import Description
from gfldet.nn.tasks import DetectionModel
from gfldet.train.ema import WeightAverage


def first_weight(model: torch.nn.Module) -> torch.Tensor:
    return next(model.parameters())


def test_average_by_hand(tiny: Description) -> None:
    model = DetectionModel(tiny)
    torch.nn.init.constant_(first_weight(model), 1.0)
    average = WeightAverage(model, 0.998)
    expected = 1.0
    for update, value in enumerate((3.0, -1.0, 0.5), 1):
        torch.nn.init.constant_(first_weight(model), value)
        average.update()
        decay = (1 + update) / (10 + update)  # 2/11, 3/12, 4/13: below .998
        expected = decay * expected + (1 - decay) * value
        assert first_weight(average.model).unique().tolist() == pytest.approx([expected])
    average.updates = 10**6
    torch.nn.init.constant_(first_weight(model), 1e3)
    average.update()
    assert first_weight(average.model).unique().tolist() == pytest.approx([0.998 * expected + 2], rel=1e-5)


def test_statistics_are_averaged_and_counts_copied(tiny: Description) -> None:
    model = DetectionModel(tiny)
    average = WeightAverage(model, 0.5)
    name = next(n for n in model.state_dict() if n.endswith("running_mean"))
    model.train()(torch.rand(2, 3, 64, 64))
    moved = model.state_dict()[name].clone()
    assert moved.abs().sum() > 0
    average.update()
    torch.testing.assert_close(average.model.state_dict()[name], (1 - 2 / 11) * moved)
    counts = {n: int(v) for n, v in average.model.state_dict().items() if n.endswith("num_batches_tracked")}
    assert set(counts.values()) == {1}


def test_without_decay_the_average_is_the_model(tiny: Description) -> None:
    model = DetectionModel(tiny)
    average = WeightAverage(model, 0.0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    average.update()
    assert all(torch.equal(v, average.model.state_dict()[n]) for n, v in model.state_dict().items())


def test_average_has_weights_of_its_own_and_no_gradients(tiny: Description) -> None:
    model = DetectionModel(tiny).train()
    average = WeightAverage(model, 0.9)
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    before = first_weight(average.model).clone()
    torch.nn.init.zeros_(first_weight(model))
    assert torch.equal(first_weight(average.model), before)
    assert first_weight(model).requires_grad
