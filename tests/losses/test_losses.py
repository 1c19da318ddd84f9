"""QFL, DFL and IoU losses: worked numbers, identities, minima, gradients, extremes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from gfldet.losses.distribution import distribution_focal_loss
from gfldet.losses.focal import quality_focal_loss
from gfldet.losses.iou import iou_loss
from gfldet.ops.decode import integral


def logit(p: float) -> torch.Tensor:
    return torch.tensor(math.log(p / (1 - p)), dtype=torch.float64)


def test_qfl_by_hand() -> None:
    # sigma = .8, y = 1: (.2)^2 * -ln .8 = .04 * .2231; sigma = .4: (.6)^2 * -ln .4 = .36 * .9163
    assert quality_focal_loss(logit(0.8), torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(
        0.0089, abs=5e-5
    )
    assert quality_focal_loss(logit(0.4), torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(
        0.3299, abs=5e-5
    )
    # sigma = .5, y = .75: (.25)^2 * ln 2
    value = quality_focal_loss(logit(0.5), torch.tensor(0.75, dtype=torch.float64)).item()
    assert value == pytest.approx(0.0625 * math.log(2))


def test_qfl_with_beta_zero_is_bce() -> None:
    logits, target = torch.randn(100), torch.rand(100)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    torch.testing.assert_close(quality_focal_loss(logits, target, beta=0.0), bce)


@pytest.mark.parametrize("y", [0.1, 0.5, 0.83])
def test_qfl_is_least_where_score_is_quality(y: float) -> None:
    sigma = torch.linspace(0.01, 0.99, 981, dtype=torch.float64)
    loss = quality_focal_loss(sigma.logit(), torch.full_like(sigma, y))
    assert sigma[loss.argmin()].item() == pytest.approx(y, abs=2e-3)


def test_qfl_gradcheck() -> None:
    logits = torch.randn(20, dtype=torch.float64, requires_grad=True)
    target = torch.rand(20, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, target), (logits,))


def test_integral_of_peaks_and_of_nothing_known() -> None:
    peaked = torch.full((1, 16), -100.0)
    peaked[0, 5] = 100.0
    assert integral(peaked).item() == pytest.approx(5)
    assert integral(torch.zeros(1, 16)).item() == pytest.approx(7.5)


def test_dfl_by_hand() -> None:
    # Two bins at even odds: whatever the target, -(w ln .5 + (1 - w) ln .5) = ln 2.
    assert distribution_focal_loss(torch.zeros(2), torch.tensor(0.3)).item() == pytest.approx(math.log(2))
    # Weights .7 on bin 1 and .3 on bin 2 of softmax(1, 2, 3).
    p = torch.tensor([1.0, 2.0, 3.0])
    expected = -(0.7 * p.log_softmax(0)[1] + 0.3 * p.log_softmax(0)[2])
    assert distribution_focal_loss(p, torch.tensor(1.3)).item() == pytest.approx(expected.item(), abs=1e-6)


def test_dfl_is_least_at_the_neighbours_weights() -> None:
    best = torch.tensor([1e-9, 0.7, 0.3, 1e-9]).log()
    least = distribution_focal_loss(best, torch.tensor(1.3))
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    assert least.item() == pytest.approx(entropy, abs=1e-5)
    for _ in range(50):
        assert distribution_focal_loss(best + 0.1 * torch.randn(4), torch.tensor(1.3)) >= least - 1e-6
    assert integral(best).item() == pytest.approx(1.3, abs=1e-5)


@pytest.mark.parametrize("target", [0.0, 1.0, 14.999, 15.0])
def test_dfl_at_both_ends_of_the_bins(target: float) -> None:
    logits = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    y = torch.full((4,), target, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, y), (logits,))
    if target == int(target):
        expected = F.cross_entropy(logits, torch.full((4,), int(target)), reduction="none")
        torch.testing.assert_close(distribution_focal_loss(logits, y), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_finite(dtype: torch.dtype, size: float) -> None:
    logits = torch.full((3, 16), size, dtype=dtype, requires_grad=True)
    loss = quality_focal_loss(logits, torch.full((3, 16), 0.5, dtype=dtype)).sum()
    loss = loss + distribution_focal_loss(logits, torch.tensor([0.0, 7.5, 15.0], dtype=dtype)).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_reductions_and_empty_input(reduction) -> None:  # type: ignore[no-untyped-def]
    logits, target = torch.randn(6), torch.rand(6)
    each = quality_focal_loss(logits, target)
    expected = {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]
    torch.testing.assert_close(quality_focal_loss(logits, target, reduction=reduction), expected)
    nothing = quality_focal_loss(torch.zeros(0), torch.zeros(0), reduction=reduction)
    assert torch.isfinite(nothing).all()
    assert torch.isfinite(distribution_focal_loss(torch.zeros(0, 16), torch.zeros(0), reduction=reduction)).all()


def test_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="'average'; allowed are"):
        quality_focal_loss(torch.zeros(1), torch.zeros(1), reduction="average")  # type: ignore[arg-type]


def test_iou_loss_is_one_minus_the_overlap() -> None:
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    assert iou_loss(a, b, "iou").item() == pytest.approx(6 / 7, abs=1e-6)
    assert iou_loss(a, a, "ciou").item() == pytest.approx(0, abs=1e-6)
