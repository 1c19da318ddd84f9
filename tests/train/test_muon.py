"""Muon: what orthogonal means, the size of its steps, Adam for the rest, and that it goes on from its state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from gfldet.train.muon import Muon, _iterated, orthogonal, orthogonal_by_shape, orthogonal_padded


@pytest.mark.parametrize("shape", [(3, 4, 9), (2, 16, 5), (1, 8, 8)])
def test_orthogonal_keeps_directions_and_levels_sizes(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    found = orthogonal(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    sizes = torch.linalg.svdvals(found)
    assert sizes.min() > 0.3  # five iterations bring even small singular values near
    assert sizes.max() < 1.3
    inner = left.mT @ found @ right.mT  # in the matrix's own axes it is diagonal
    off = inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-9
    assert (inner.diagonal(dim1=1, dim2=2) > 0).all()


@pytest.mark.parametrize("shape", [(2, 16, 144), (3, 64, 576), (1, 8, 13)])
@pytest.mark.parametrize("rank", [1, 7, None])
def test_the_way_by_squares_is_the_plain_one(shape: tuple[int, int, int], rank: int | None) -> None:
    torch.manual_seed(0)
    count, rows, columns = shape
    matrices = torch.randn(shape)
    if rank is not None:  # equal filters, as a dead or a fresh model may have: squares with nothing in most directions
        matrices = torch.randn(count, rows, rank) @ torch.randn(count, rank, columns)
        matrices[:, -1] = 0
    precise = matrices.double()
    expected = _iterated(precise / precise.flatten(1).norm(dim=1)[:, None, None])
    for given in (matrices, matrices.mT):
        found = orthogonal(given).double()
        torch.testing.assert_close(found if given is matrices else found.mT, expected, atol=2e-4, rtol=0)


def test_orthogonal_of_nothing_is_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


def test_padding_changes_no_matrix() -> None:
    torch.manual_seed(0)
    shapes = [(16, 27), (64, 64), (80, 20), (65, 100), (1, 9), (300, 7), (16, 27)]
    matrices = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    plain, padded = (way(matrices, torch.float64) for way in (orthogonal_by_shape, orthogonal_padded))
    for matrix, one, other in zip(matrices, plain, padded, strict=True):
        assert one.shape == other.shape == matrix.shape
        torch.testing.assert_close(one, orthogonal(matrix[None])[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(other, one, atol=1e-12, rtol=0)


def made(weight: nn.Parameter, bias: nn.Parameter, **settings: Any) -> Muon:
    groups = [
        {"params": [weight], "weight_decay": 0.1, "matrices": True},
        {"params": [bias], "weight_decay": 0.0, "matrices": False},
    ]
    return Muon(groups, lr=0.01, **settings)


def test_a_step_has_the_size_that_it_says() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(8, 4, 3, 3))
    optimizer = made(weight, nn.Parameter(torch.zeros(1)), scale=0.3)
    weight.grad = torch.randn_like(weight) * 1e3  # whatever the gradient's size
    optimizer.step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.3 * 0.01, rel=0.15)


def test_weight_decay_is_decoupled() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros_like(weight)
    made(weight, nn.Parameter(torch.zeros(1))).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 1 - 0.01 * 0.1))


def test_what_is_no_matrix_goes_by_adamw() -> None:
    torch.manual_seed(0)
    mine, reference = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    ours = Muon([{"params": [mine], "weight_decay": 0.3, "matrices": False}], lr=0.01, betas=(0.8, 0.99))
    theirs = torch.optim.AdamW([reference], lr=0.01, betas=(0.8, 0.99), weight_decay=0.3)
    for _ in range(5):
        mine.grad = torch.randn(7)
        reference.grad = mine.grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(mine, reference)


def test_goes_on_from_its_state_to_the_bit() -> None:
    def parts() -> tuple[nn.Parameter, nn.Parameter]:
        torch.manual_seed(0)
        return nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(3))

    def train(optimizer: Muon, steps: range) -> None:
        for number in steps:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(number))
            optimizer.step()

    weight, bias = parts()
    train(made(weight, bias), range(4))
    first, second = parts()
    half = made(first, second)
    train(half, range(2))
    again = made(first, second)
    again.load_state_dict(copy.deepcopy(half.state_dict()))
    train(again, range(2, 4))
    assert torch.equal(first, weight)
    assert torch.equal(second, bias)


def test_parameters_without_a_gradient_stay() -> None:
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(1))
    made(weight, bias).step()
    assert torch.equal(weight, torch.ones(2, 2))


def test_a_closure_is_asked_for_its_loss() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = made(weight, nn.Parameter(torch.ones(1)))

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4
    assert (weight < 1).all()


def test_it_minimises() -> None:
    torch.manual_seed(0)
    weight, target = nn.Parameter(torch.zeros(6, 10)), torch.randn(6, 10) * 0.1
    optimizer = Muon([{"params": [weight], "weight_decay": 0.0, "matrices": True}], lr=0.004)
    losses = []
    for _ in range(200):
        loss = (weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.02 * losses[0]
