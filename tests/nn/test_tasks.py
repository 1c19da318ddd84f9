"""The model's two ways through `forward`, decoding, fusing, biases."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gfldet.config.assets import cfg_folder
from gfldet.losses.detection import v8DetectionLoss
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.ops.boxes import xyxy_to_xywh
from gfldet.ops.decode import split_maps


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    torch.manual_seed(0)
    made = DetectionModel(read_description(cfg_folder() / "models" / "gfldet.yaml", "n", nc=3), ["a", "b", "c"])
    for module in made.modules():  # statistics as after some training, so that fusing has something to fold
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return made


def batch() -> dict[str, torch.Tensor]:
    return {
        "img": torch.rand(2, 3, 64, 96),
        "batch_idx": torch.tensor([0, 1]),
        "cls": torch.tensor([[0], [2]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.6, 0.2, 0.5]]),
    }


def test_forward_dispatches(model: DetectionModel) -> None:
    model.train()
    maps = model(batch()["img"])
    assert [tuple(m.shape) for m in maps] == [(2, 67, 8, 12), (2, 67, 4, 6), (2, 67, 2, 3)]
    loss, items = model(batch())
    assert loss.requires_grad
    assert items.shape == (3,)
    assert not items.requires_grad
    assert isinstance(model.criterion, v8DetectionLoss)
    model.eval()
    decoded, raw = model(batch()["img"])
    assert decoded.shape == (2, 4 + 3, 96 + 24 + 6)
    assert [m.shape for m in raw] == [m.shape for m in maps]
    from_preds, _ = model.loss(batch(), (decoded, raw))
    assert torch.isfinite(from_preds)


def test_decode_agrees_with_the_criterion(model: DetectionModel) -> None:
    model.eval()
    with torch.no_grad():
        decoded, maps = model(batch()["img"])
    head = split_maps(maps, model.reg_max, model.strides)
    torch.testing.assert_close(decoded[:, :4].transpose(1, 2), xyxy_to_xywh(head.boxes()), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(decoded[:, 4:].transpose(1, 2), head.logits.sigmoid())


def test_fused_outputs_are_the_same(model: DetectionModel) -> None:
    import copy

    fused = copy.deepcopy(model)
    fused.fuse()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    model.eval()
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64)
        for ours, theirs in zip(model(images)[1], fused(images)[1], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_biases_start_at_the_prior_and_at_the_half_side() -> None:
    model = DetectionModel(read_description(cfg_folder() / "models" / "gfldet.yaml", "n", nc=2))
    model.head.init_biases(prior=0.01, half_side=40.0)
    for level, stride in enumerate(model.strides):
        bias = model.head.cls[level][-1].bias  # type: ignore[index]
        torch.testing.assert_close(bias.sigmoid(), torch.full((2,), 0.01))
        bins = model.head.box[level][-1].bias.reshape(4, 16)  # type: ignore[index]
        mean = (bins.softmax(-1) * torch.arange(16.0)).sum(-1) * stride
        assert mean.tolist() == pytest.approx([40.0] * 4, rel=0.35)


def test_wrong_sizes_and_names_are_explained(model: DetectionModel) -> None:
    with pytest.raises(ValueError, match="70 x 64 px; both sides must be multiples of 32"):
        model(torch.zeros(1, 3, 70, 64))
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        DetectionModel(model.description, ["a", "b"])
