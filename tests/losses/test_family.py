"""The focal family: the papers' worked values, identities between its members, gradients, extremes, module forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gfldet import losses
from gfldet.losses import (
    FocalLoss,
    MultiClassFocalLoss,
    balanced_cross_entropy,
    cross_entropy,
    distribution_focal_loss,
    generalized_focal_loss,
    ohem,
    quality_focal_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
    varifocal_loss,
)
from gfldet.losses.iou import iou_loss
from gfldet.ops.decode import integral, sides_in_strides

BINARY: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "balanced": balanced_cross_entropy,
    "focal": sigmoid_focal_loss,
    "focal, gamma .5": lambda x, y, **k: sigmoid_focal_loss(x, y, gamma=0.5, **k),
    "qfl": quality_focal_loss,
    "vfl": varifocal_loss,
    "ohem": ohem,
}


def logit(p: float) -> Tensor:
    return torch.tensor(math.log(p / (1 - p)), dtype=torch.float64)


ONE = torch.tensor(1.0, dtype=torch.float64)


@pytest.mark.parametrize(("p", "ce", "fl"), [(0.8, "0.2231", "0.0089"), (0.4, "0.9163", "0.3299")])
def test_worked_values_of_the_paper(p: float, ce: str, fl: str) -> None:
    """gamma = 2, alpha off, to all digits printed."""
    entropy = cross_entropy(logit(p), ONE)
    loss = sigmoid_focal_loss(logit(p), ONE, alpha=None)
    assert f"{entropy:.4f}" == ce
    assert f"{loss:.4f}" == fl


def test_worked_ratio_of_easy_to_hard() -> None:
    """An easy example counts 36.96 times less than a hard one under focal loss, 4.11 times under cross-entropy."""
    focal = [sigmoid_focal_loss(logit(p), ONE, alpha=None) for p in (0.4, 0.8)]
    plain = [cross_entropy(logit(p), ONE) for p in (0.4, 0.8)]
    assert f"{focal[0] / focal[1]:.2f}" == "36.96"
    assert f"{plain[0] / plain[1]:.2f}" == "4.11"


@pytest.mark.parametrize("alpha", [None, 0.25, 0.6])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5, 2.0, 5.0])
def test_focal_loss_is_torchvisions(alpha: float | None, gamma: float) -> None:
    from torchvision.ops import sigmoid_focal_loss as reference

    logits = torch.randn(200, dtype=torch.float64) * 4
    for target in (torch.randint(2, (200,)).double(), torch.rand(200, dtype=torch.float64)):
        expected = reference(logits, target, alpha=-1 if alpha is None else alpha, gamma=gamma)
        torch.testing.assert_close(sigmoid_focal_loss(logits, target, alpha, gamma), expected)


def test_gamma_zero_is_cross_entropy() -> None:
    logits, target = torch.randn(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    torch.testing.assert_close(sigmoid_focal_loss(logits, target, None, 0.0), cross_entropy(logits, target))
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, target, 0.3, 0.0), balanced_cross_entropy(logits, target, 0.3)
    )
    rows, classes = torch.randn(50, 7, dtype=torch.float64), torch.randint(7, (50,))
    torch.testing.assert_close(
        softmax_focal_loss(rows, classes, gamma=0.0), F.cross_entropy(rows, classes, reduction="none")
    )


def test_balance_by_hand() -> None:
    two = torch.tensor([0.0, 0.0], dtype=torch.float64)  # p = .5: ln 2 either way
    found = balanced_cross_entropy(two, torch.tensor([1.0, 0.0], dtype=torch.float64), alpha=0.25)
    assert found.tolist() == pytest.approx([0.25 * math.log(2), 0.75 * math.log(2)])


def test_softmax_focal_by_hand_and_class_weights() -> None:
    logits = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    found = softmax_focal_loss(logits, torch.tensor([2]), alpha=torch.tensor([1.0, 2.0, 3.0]), gamma=2.0)
    assert found.item() == pytest.approx(3 * 0.5**2 * -math.log(0.5))
    assert softmax_focal_loss(logits, torch.tensor([0]), alpha=0.25).item() == pytest.approx(
        0.25 * 0.8**2 * -math.log(0.2)
    )


def test_two_class_softmax_is_the_sigmoid_form() -> None:
    x, y = torch.randn(40, dtype=torch.float64), torch.randint(2, (40,))
    two = torch.stack((torch.zeros_like(x), x), -1)
    torch.testing.assert_close(softmax_focal_loss(two, y), sigmoid_focal_loss(x, y.double(), None))


def test_varifocal_by_hand() -> None:
    x = torch.tensor([0.3, -1.2], dtype=torch.float64)
    found = varifocal_loss(x, torch.tensor([0.7, 0.0], dtype=torch.float64))
    s = x.sigmoid()
    expected = [
        -0.7 * (0.7 * math.log(s[0]) + 0.3 * math.log(1 - s[0])),
        -0.75 * s[1].item() ** 2 * math.log(1 - s[1]),
    ]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_generalized_focal_loss_holds_qfl(beta: float) -> None:
    x, y = torch.randn(60, dtype=torch.float64), torch.rand(60, dtype=torch.float64)
    found = generalized_focal_loss(F.logsigmoid(-x), F.logsigmoid(x), y, beta=beta)
    torch.testing.assert_close(found, quality_focal_loss(x, y, beta))


def test_a_floor_adds_cross_entropy() -> None:
    x, y = torch.randn(60, dtype=torch.float64), torch.rand(60, dtype=torch.float64)
    expected = quality_focal_loss(x, y, 1.0) + 0.1 * cross_entropy(x, y)
    torch.testing.assert_close(quality_focal_loss(x, y, 1.0, 0.1), expected)


def test_generalized_focal_loss_holds_focal_loss() -> None:
    x, y = torch.randn(60, dtype=torch.float64), torch.randint(2, (60,)).double()
    found = generalized_focal_loss(F.logsigmoid(-x), F.logsigmoid(x), y, beta=2.0)
    torch.testing.assert_close(found, sigmoid_focal_loss(x, y, None, 2.0))


def test_generalized_focal_loss_holds_dfl() -> None:
    bins, y = torch.randn(60, 16, dtype=torch.float64), torch.rand(60, dtype=torch.float64) * 15
    left = y.floor()
    log_p = bins.log_softmax(-1)
    at = [log_p.gather(-1, (left + step).long()[:, None])[:, 0] for step in (0, 1)]
    found = generalized_focal_loss(at[0], at[1], y, left, left + 1, beta=0.0)
    torch.testing.assert_close(found, distribution_focal_loss(bins, y))


def test_generalized_focal_loss_is_least_where_the_estimate_is_the_target() -> None:
    """Its minimum is p_l = (y_r - y) / (y_r - y_l), for any two values (the paper's appendix)."""
    share = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    found = generalized_focal_loss(share.log(), (1 - share).log(), torch.full_like(share, 3.2), 2.0, 5.0)
    assert share[found.argmin()].item() == pytest.approx((5 - 3.2) / 3, abs=2e-3)


def test_ohem_keeps_positives_and_the_hardest_negatives() -> None:
    logits = torch.tensor([-3.0, 2.0, 0.0, -1.0, 1.0, -2.0])
    target = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    found = ohem(logits, target, negatives=2.0, at_least=0)
    plain = cross_entropy(logits, target)
    assert found.tolist() == pytest.approx((plain * torch.tensor([1, 1, 0, 0, 1, 0])).tolist())
    assert (ohem(logits, torch.zeros(6), at_least=3) > 0).sum() == 3  # background alone
    assert torch.equal(ohem(logits, target, negatives=100.0), plain)
    assert torch.equal(ohem(logits, torch.ones(6)), cross_entropy(logits, torch.ones(6)))
    counted = torch.tensor([True, False, True, True, False, True])  # without the two hardest
    found = ohem(logits, target, negatives=2.0, at_least=0, counted=counted)
    assert found.tolist() == pytest.approx((plain * torch.tensor([1, 0, 1, 1, 0, 0])).tolist())


@pytest.mark.parametrize("off", [None, -1, -1.0, -0.5])
def test_a_negative_alpha_is_none(off: float | None) -> None:
    x, y = torch.randn(60, dtype=torch.float64), torch.rand(60, dtype=torch.float64)
    assert torch.equal(balanced_cross_entropy(x, y, off), cross_entropy(x, y))
    assert torch.equal(sigmoid_focal_loss(x, y, off), sigmoid_focal_loss(x, y, None))
    assert torch.equal(varifocal_loss(x, y, off), varifocal_loss(x, y, 1.0))
    rows, classes = torch.randn(6, 5), torch.randint(5, (6,))
    assert torch.equal(softmax_focal_loss(rows, classes, off), softmax_focal_loss(rows, classes))
    assert torch.equal(MultiClassFocalLoss(5, off)(rows, classes), MultiClassFocalLoss(5)(rows, classes))
    if off is not None:
        assert torch.equal(FocalLoss()(x[:, None], y[:, None], alpha=off), FocalLoss()(x[:, None], y[:, None], alpha=0))


X, CLASS = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
BAD: dict[str, Callable[[], object]] = {
    "alpha=1.5; a number from 0 to 1": lambda: sigmoid_focal_loss(X, X, alpha=1.5),
    "alpha=2; a number from 0 to 1": lambda: balanced_cross_entropy(X, X, alpha=2),
    "alpha=nan; a number from 0 to 1": lambda: varifocal_loss(X, X, alpha=math.nan),
    "alpha=25.0; a number from 0 to 1": lambda: FocalLoss()(X, X, alpha=25.0),
    "gamma=-1; a number of 0 or more": lambda: sigmoid_focal_loss(X, X, gamma=-1),
    "gamma=nan; a number of 0 or more": lambda: FocalLoss()(X, X, gamma=math.nan),
    "gamma=-2.0; a number of 0 or more": lambda: varifocal_loss(X, X, gamma=-2.0),
    "gamma=inf; a number of 0 or more": lambda: softmax_focal_loss(X, CLASS, gamma=math.inf),
    "gamma=-0.1; a number of 0 or more": lambda: MultiClassFocalLoss(3, gamma=-0.1),
    "beta=-1; a number of 0 or more": lambda: quality_focal_loss(X, X, beta=-1),
    "beta=-2; a number of 0 or more": lambda: generalized_focal_loss(-X, -X, X, beta=-2),
    "floor=-0.1; a number of 0 or more": lambda: quality_focal_loss(X, X, floor=-0.1),
    "negatives=-3; a number of 0 or more": lambda: ohem(X, X, negatives=-3),
    "at_least=-1; a number of 0 or more": lambda: ohem(X, X, at_least=-1),
    "weights of the classes are finite and 0 or more": lambda: softmax_focal_loss(X, CLASS, torch.tensor([1, -1, 1.0])),
    "weights of the classes are finite": lambda: MultiClassFocalLoss(3, [1.0, math.nan, 2.0]),
    "box=-1; a number of 0 or more": lambda: losses.Gains(box=-1),
    "cls=inf; a number of 0 or more": lambda: losses.Gains(cls=math.inf),
}


@pytest.mark.parametrize("message", BAD)
def test_parameters_out_of_range_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_weights_of_classes_may_be_above_one() -> None:
    rows, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    plain = softmax_focal_loss(rows, classes)
    weighted = softmax_focal_loss(rows, classes, [0.0, 1.0, 5.0])
    torch.testing.assert_close(weighted, plain * torch.tensor([0.0, 1, 5, 0, 1, 5]))


@pytest.mark.parametrize("name", BINARY)
def test_gradients(name: str) -> None:
    loss = BINARY[name]
    logits = torch.randn(24, dtype=torch.float64).mul(2).requires_grad_()
    for target in (torch.rand(24, dtype=torch.float64), torch.randint(2, (24,)).double()):
        if name == "vfl":  # its weights carry no gradient: compare with the formula that holds them fixed
            s = logits.detach().sigmoid()
            weight = torch.where(target > 0, target, 0.75 * s**2)
            (expected,) = torch.autograd.grad((weight * cross_entropy(logits, target)).sum(), logits)
            (found,) = torch.autograd.grad(loss(logits, target).sum(), logits)
            torch.testing.assert_close(found, expected)
        else:
            assert torch.autograd.gradcheck(lambda x, y=target: loss(x, y), (logits,))


def test_more_gradients() -> None:
    rows = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(5, (6,))
    weights = torch.rand(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: softmax_focal_loss(x, classes, weights), (rows,))
    x = torch.randn(8, dtype=torch.float64, requires_grad=True)
    y = torch.rand(8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: generalized_focal_loss(F.logsigmoid(-x), F.logsigmoid(x), y), (x,))
    one = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sides_in_strides, (one,))
    assert torch.autograd.gradcheck(integral, (rows,))


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_iou_gradients(kind) -> None:  # type: ignore[no-untyped-def]
    low = torch.rand(6, 2, dtype=torch.float64) * 10
    boxes = torch.cat((low, low + 2 + torch.rand(6, 2, dtype=torch.float64) * 5), 1).requires_grad_()
    truth = torch.cat((low + 0.7, low + 4.3), 1)
    if kind == "ciou":  # the trade-off weight carries no gradient: held fixed, the numeric gradient has to agree too
        angle = [torch.atan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1])) for b in (boxes.detach(), truth)]
        v = 4 / math.pi**2 * (angle[0] - angle[1]).square()
        weight = v / (v + iou_loss(boxes.detach(), truth, "iou"))

        def held(b: Tensor) -> Tensor:
            mine = torch.atan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1]))
            return iou_loss(b, truth, "diou") + weight * 4 / math.pi**2 * (mine - angle[1]).square()

        assert torch.autograd.gradcheck(held, (boxes,))
        torch.testing.assert_close(iou_loss(boxes, truth, kind), held(boxes), atol=1e-6, rtol=1e-6)
        ours, theirs = (torch.autograd.grad(f.sum(), boxes)[0] for f in (iou_loss(boxes, truth, kind), held(boxes)))
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    else:
        assert torch.autograd.gradcheck(lambda b: iou_loss(b, truth, kind), (boxes,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("name", BINARY)
def test_extremes_stay_finite(name: str, size: float, dtype: torch.dtype) -> None:
    for value in (0.0, 0.5, 1.0):
        logits = torch.full((64,), size, dtype=dtype, requires_grad=True)
        loss = BINARY[name](logits, torch.full((64,), value, dtype=dtype))
        assert loss.dtype == torch.float32
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extremes_over_classes_and_bins(size: float, dtype: torch.dtype) -> None:
    rows = torch.zeros(4, 16, dtype=dtype)
    rows[:, 3] = size
    rows.requires_grad_()
    loss = softmax_focal_loss(rows, torch.tensor([3, 0, 3, 15])).sum()
    log_p = rows.log_softmax(-1)
    loss = loss + generalized_focal_loss(log_p[:, 3], log_p[:, 4], torch.full((4,), 3.5), 3.0, 4.0).sum()
    loss = loss + distribution_focal_loss(rows, torch.tensor([0.0, 3.0, 7.5, 15.0], dtype=dtype)).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("name", BINARY)
def test_reductions_and_nothing(name: str, reduction: str) -> None:
    logits, target = torch.randn(3, 5), torch.rand(3, 5)
    each = BINARY[name](logits, target)
    assert each.shape == (3, 5)
    expected = {"none": each, "sum": each.sum(), "mean": each.mean()}[reduction]
    torch.testing.assert_close(BINARY[name](logits, target, reduction=reduction), expected)
    nothing = torch.zeros(0, 5, requires_grad=True)
    loss = BINARY[name](nothing, torch.zeros(0, 5), reduction=reduction).sum()
    loss.backward()
    assert loss.item() == 0


def test_softmax_focal_of_nothing() -> None:
    assert softmax_focal_loss(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), reduction="mean").item() == 0


def test_focal_loss_as_people_call_it() -> None:
    """Mean over classes, summed over images; gamma 1.5 and alpha .25 unless given."""
    pred, label = torch.randn(8, 5), torch.randint(2, (8, 5)).float()
    p = pred.sigmoid()
    p_t = label * p + (1 - label) * (1 - p)
    weight = (label * 0.25 + (1 - label) * 0.75) * (1 - p_t) ** 1.5
    expected = (weight * F.binary_cross_entropy_with_logits(pred, label, reduction="none")).mean(1).sum()
    torch.testing.assert_close(FocalLoss()(pred, label), expected)
    torch.testing.assert_close(FocalLoss()(pred, label, gamma=0.0, alpha=0.0), cross_entropy(pred, label).mean(1).sum())


def test_multi_class_module() -> None:
    maps, classes = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    alpha = [0.2, 0.3, 0.5]
    found = MultiClassFocalLoss(3, alpha, gamma=2.0, reduction="none")(maps, classes)
    expected = softmax_focal_loss(maps.permute(0, 2, 3, 1), classes, torch.tensor(alpha))
    assert found.shape == (2, 4, 5)
    torch.testing.assert_close(found, expected)
    rows, labels = torch.randn(6, 3), torch.randint(3, (6,))
    torch.testing.assert_close(MultiClassFocalLoss(3, gamma=0.0)(rows, labels), F.cross_entropy(rows, labels))
    with pytest.raises(ValueError, match="give 3 weights"):
        MultiClassFocalLoss(3, [1.0, 2.0])
    with pytest.raises(ValueError, match="axis 1 must hold 3 classes"):
        MultiClassFocalLoss(3)(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))


def test_the_room_names_what_it_offers() -> None:
    assert all(hasattr(losses, name) for name in losses.__all__)
