"""Floats and tensors become the uint8 pictures that they are of; what could be either range is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gfldet.data.samples import float_scale, is_tensor, pictures_of, to_uint8
from gfldet.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
TENSOR = torch.from_numpy(RGB).permute(2, 0, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_either_range_give_the_samples_they_came_from(dtype: type) -> None:
    for floats in ((RGB / 255).astype(dtype), RGB.astype(dtype)):
        assert (to_uint8(floats, float_scale(floats, "x")) == RGB).all()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0.0, 0.0], [0, 0]),
        ([0.0, 1.0], [0, 255]),
        ([-1e-7, 1.0000001], [0, 255]),  # as a resize leaves them
        ([0.4999, 2.5], [0, 2]),
        ([254.6, 255.0], [255, 255]),
    ],
)
def test_ranges(samples: list[float], expected: list[int]) -> None:
    array = np.array(samples, np.float32)
    assert to_uint8(array, float_scale(array, "x")).tolist() == expected


@pytest.mark.parametrize("samples", [[0, 1.08], [0, 2.0], [-1, 1], [-2.1, 2.6], [0, 300], [0, np.nan], [0, np.inf]])
def test_other_ranges_are_refused(samples: list[float]) -> None:
    with pytest.raises(
        DataError, match=r"x: float samples from .* to .*; expected 0 to 1, or 0 to 255 with one above 2"
    ):
        float_scale(np.array(samples), "x")


@pytest.mark.parametrize(
    "tensor",
    [
        TENSOR,
        TENSOR / 255,
        TENSOR.float(),
        (TENSOR / 255).double().requires_grad_(),
        (TENSOR / 255)[None].to(memory_format=torch.channels_last),
        TENSOR.repeat(3, 1, 1, 1)[1:2],
    ],
)
def test_tensors_are_rgb_with_their_channels_first(tensor: torch.Tensor) -> None:
    (picture,) = pictures_of(tensor)
    assert picture.dtype == np.uint8
    assert (picture == RGB[..., ::-1]).all()


def test_batches_and_grey() -> None:
    batch = torch.stack((TENSOR, TENSOR.flip(2)))
    for picture, turn in zip(pictures_of(batch), (1, -1), strict=True):
        assert (picture == RGB[:, ::turn, ::-1]).all()
    assert pictures_of(TENSOR[:1])[0].shape == (5, 7, 1)
    both: list[NDArray[np.uint8]] = pictures_of(torch.stack((torch.zeros(3, 2, 2), torch.full((3, 2, 2), 200.0))))
    assert [picture.max() for picture in both] == [0, 200]  # one range for all of a tensor
    assert np.abs(pictures_of((TENSOR / 255).bfloat16())[0].astype(int) - RGB[..., ::-1]).max() <= 1


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.zeros(8, 8, 3), r"a tensor of shape \(8, 8, 3\); expected \(B, 3, H, W\) or \(3, H, W\), RGB"),
        (torch.zeros(1, 1, 3, 8, 8), "a tensor of shape"),
        (torch.zeros(0, 3, 8, 8), "a tensor of shape"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "a tensor of torch.int64; expected floats from 0 to 1, or uint8"),
        (torch.full((3, 8, 8), -3.0), "source: a tensor: float samples from -3 to -3"),
    ],
)
def test_tensors_that_are_no_pictures(tensor: torch.Tensor, told: str) -> None:
    with pytest.raises(DataError, match=told):
        pictures_of(tensor)


def test_torch_is_not_imported_for_it() -> None:
    code = "import sys; from gfldet.data import samples; assert not (samples.is_tensor(1) or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert is_tensor(TENSOR)
    assert not is_tensor(RGB)
