"""Batch norm and SiLU as one step: the same as both after another, and less is held for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gfldet.nn.blocks import Conv
from gfldet.nn.norm_act import norm_silu


def made(channels: int = 6, dtype: torch.dtype = torch.float32) -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels, eps=1e-3, dtype=dtype)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return norm


def maps(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return (3 + 5 * torch.randn(4, 6, 5, 7, dtype=dtype)).to(memory_format=torch.channels_last).requires_grad_()


def one_by_one(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    out: Tensor = nn.functional.silu(norm(x))
    return out


def test_output_and_statistics_are_those_of_both_to_the_bit_and_gradients_nearly() -> None:
    found = []
    for forward in (one_by_one, norm_silu):
        norm, x = made(), maps()
        out = forward(norm, x)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert x.grad is not None
        exact = [out.detach(), norm.running_mean, norm.running_var, norm.num_batches_tracked]
        found.append((exact, [x.grad, norm.weight.grad, norm.bias.grad]))
    (exact, near), (exact_too, near_too) = found
    torch.testing.assert_close(exact_too, exact, rtol=0, atol=0)
    torch.testing.assert_close(near_too, near, rtol=1e-5, atol=1e-6)


def test_a_channel_that_never_changes_has_the_same_gradients() -> None:
    near = []
    for forward in (one_by_one, norm_silu):
        norm, x = made(), maps()
        with torch.no_grad():
            x[:, 2] = 0.25
        forward(norm, x).square().sum().backward()
        near.append([x.grad, norm.weight.grad, norm.bias.grad])
    torch.testing.assert_close(near[1], near[0], rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    norm = made(dtype=torch.float64)
    x = maps(torch.float64)

    def step(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        norm._parameters.update({"weight": weight, "bias": bias})  # type: ignore[dict-item]
        return norm_silu(norm, x)

    weight, bias = norm.weight.detach().requires_grad_(), norm.bias.detach().requires_grad_()
    assert torch.autograd.gradcheck(step, (x, weight, bias))


def test_bfloat16_maps_with_float32_weights_as_autocast_has_them() -> None:
    norm, x = made(), maps(torch.bfloat16)
    norm_silu(norm, x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    exact, wide = made(), maps(torch.bfloat16).detach().float().requires_grad_()
    one_by_one(exact, wide).sum().backward()
    torch.testing.assert_close(norm.weight.grad, exact.weight.grad, rtol=0.02, atol=0.5)
    torch.testing.assert_close(x.grad.float(), wide.grad, rtol=0.05, atol=0.02)


def held(forward: Callable[[], Tensor]) -> int:
    """Bytes that are kept for the backward pass, each memory once."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = forward()
        del out
    return sum(kept.values())


def test_a_convolution_in_training_holds_two_maps_and_not_three() -> None:
    block, x = Conv(6, 6, 1).train(), maps().detach()
    plain = held(lambda: block.act(block.bn(block.conv(x))))
    assert held(lambda: block(x)) == pytest.approx(plain - x.numel() * 4, abs=200)  # bytes of vectors (C,)


@pytest.mark.parametrize("act", [True, False])
def test_a_convolution_in_evaluation_is_one_by_one(act: bool) -> None:
    block, x = Conv(6, 6, 1, act=act).eval(), maps()
    torch.testing.assert_close(block(x), block.act(block.bn(block.conv(x))), rtol=0, atol=0)
    assert int(block.bn.num_batches_tracked) == 0
