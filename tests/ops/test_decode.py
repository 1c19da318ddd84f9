"""One decoding in two layouts: points first for losses, channels first for inference."""

from __future__ import annotations

import pytest
import torch

from gfldet.ops.boxes import xywh_to_xyxy
from gfldet.ops.decode import decode, split_maps


def some_maps(reg_max: int, classes: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4 * reg_max + classes, 64 // s, 96 // s, generator=generator) * 3 for s in (8, 32)]


@pytest.mark.parametrize("reg_max", [1, 4, 16])
def test_both_layouts_say_the_same(reg_max: int) -> None:
    maps = some_maps(reg_max)
    decoded = decode(maps, 3, torch.arange(float(reg_max)), reg_max, (8, 32), keep_bins=True)
    flat = split_maps(maps, reg_max, (8, 32))
    torch.testing.assert_close(xywh_to_xyxy(decoded.boxes.transpose(1, 2)), flat.boxes(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(decoded.scores.transpose(1, 2), flat.logits.sigmoid())
    assert decoded.bins is not None
    assert decoded.bins.shape == (2, 4, reg_max, 8 * 12 + 2 * 3)
    assert torch.equal(decoded.bins.permute(0, 3, 1, 2), flat.bins)


def test_names_and_the_stack_are_one_thing() -> None:
    decoded = decode(some_maps(4), 3, torch.arange(4.0), 4, (8, 32))
    assert decoded.bins is None
    assert len(decoded) == 2
    stacked = decoded.stacked()
    assert stacked.shape == (2, 4 + 3, 102)
    assert torch.equal(stacked[:, :4], decoded.boxes)
    assert torch.equal(stacked[:, 4:], decoded.scores)
    points = torch.tensor([101, 0])
    torch.testing.assert_close(decoded.corners(1, points), xywh_to_xyxy(stacked[1, :4].T[points]))
