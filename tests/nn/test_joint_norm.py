"""Joint batch norm of one process is batch norm, in bfloat16 too, whose statistics stay in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gfldet.nn.joint_norm import JointBatchNorm2d


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 2e-5), (torch.bfloat16, 0.02)])
def test_it_is_batch_norm(dtype: torch.dtype, near: float) -> None:
    torch.manual_seed(0)
    x = (3 + 5 * torch.randn(4, 6, 5, 7)).to(dtype, memory_format=torch.channels_last)
    towards = torch.randn(4, 6, 5, 7).to(dtype, memory_format=torch.channels_last)
    found: list[list[Tensor]] = []
    for kind in (nn.BatchNorm2d, JointBatchNorm2d):
        norm, given = kind(6, eps=1e-3), x.clone().requires_grad_()
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, 6))
            norm.bias.copy_(torch.linspace(-1, 1, 6))
        out = norm(given)
        out.backward(towards)
        assert out.dtype == given.grad.dtype == dtype  # type: ignore[union-attr]
        found.append([out, given.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
    for plain, joint in zip(*found, strict=True):
        assert plain.dtype == joint.dtype
        torch.testing.assert_close(joint, plain, rtol=near, atol=near)
