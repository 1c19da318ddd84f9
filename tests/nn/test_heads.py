"""Heads beside GFLHead: shared subnets, end-to-end, the quality predictor, one number a side."""

from __future__ import annotations

import math

import pytest
import torch

from gfldet.nn.heads import EndToEnd, GFLHead, GroupedHead, Head, QualityPredictor, SharedHead, joint_logit

STRIDES = (8, 16)


def features(width: int = 32) -> list[torch.Tensor]:
    return [torch.randn(2, width, 8, 8), torch.randn(2, width, 4, 4)]


def made(kind: type[GFLHead | SharedHead], nc: int = 3, reg_max: int = 8, dgqp: bool = False) -> GFLHead | SharedHead:
    head = kind(nc, reg_max, (32, 32), dgqp)
    head.strides = STRIDES
    head.init_biases()
    return head


@pytest.mark.parametrize("kind", [GFLHead, GroupedHead, SharedHead])
@pytest.mark.parametrize("reg_max", [1, 8])
def test_maps_and_decoded(kind: type[GFLHead | SharedHead], reg_max: int) -> None:
    head = made(kind, reg_max=reg_max)
    maps = head(features())
    assert [tuple(m.shape) for m in maps] == [(2, 4 * reg_max + 3, 8, 8), (2, 4 * reg_max + 3, 4, 4)]
    decoded = head.decode(maps).stacked()
    assert decoded.shape == (2, 7, 80)
    assert (decoded[:, 2:4] >= 0).all()
    assert ((decoded[:, 4:] > 0) & (decoded[:, 4:] < 1)).all()


@pytest.mark.parametrize("kind", [GFLHead, GroupedHead, SharedHead])
@pytest.mark.parametrize("reg_max", [1, 16])
@pytest.mark.parametrize("dgqp", [False, True])
def test_start_at_the_prior_and_at_the_data_s_size(kind: type[GFLHead | SharedHead], reg_max: int, dgqp: bool) -> None:
    if dgqp and reg_max == 1:
        return
    head = made(kind, reg_max=reg_max, dgqp=dgqp)
    head.init_biases(prior=0.02, half_side=40.0)
    with torch.no_grad():
        decoded = head.decode(head([f * 0 for f in features()])).stacked()
    half = decoded[:, 2:4] / 2
    assert half[..., :64].mean().item() == pytest.approx(40.0, rel=0.15)  # 5 strides of 8
    assert half[..., 64:].mean().item() == pytest.approx(40.0, rel=0.15)
    assert decoded[:, 4:].mean().item() == pytest.approx(0.02, rel=0.35 if dgqp else 0.05)


def test_one_number_a_side_by_hand() -> None:
    head = made(GFLHead, reg_max=1)
    maps = [torch.zeros(1, 7, 1, 1), torch.zeros(1, 7, 0, 0)]
    maps[0][0, :4, 0, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    left, top, right, bottom = (8 * math.log(1 + math.exp(v)) for v in (0.0, 1.0, 2.0, 3.0))
    expected = [4 + (right - left) / 2, 4 + (bottom - top) / 2, left + right, top + bottom]
    assert head.decode(maps).boxes[0, :, 0].tolist() == pytest.approx(expected)


def test_shared_subnets_serve_every_level() -> None:
    head = made(SharedHead)
    x = torch.randn(1, 32, 4, 4)
    a, b = head([x, x])
    torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="one number for all"):
        SharedHead(3, 8, (32, 64))


def test_end_to_end_trains_two_and_runs_one() -> None:
    head = EndToEnd(made(GFLHead), made(GFLHead))
    head.strides = STRIDES
    given = [f.requires_grad_() for f in features()]
    both = head(given)
    assert set(both) == {"one2many", "one2one"}
    sum(m.sum() for m in both["one2one"]).backward()
    assert all(f.grad is None for f in given)  # the features are taught by the many alone
    sum(m.sum() for m in both["one2many"]).backward()
    assert all(f.grad is not None for f in given)
    head.eval()
    maps = head(given)
    assert all(torch.equal(x, y) for x, y in zip(maps, head.one_to_one.eval()(given), strict=True))
    assert head.decode(maps).stacked().shape == (2, 7, 80)
    names = dict(head.named_parameters())
    assert all(name in names for name in head.class_rows())
    assert len(head.class_rows()) == 8


@pytest.mark.parametrize("kind", [GFLHead, GroupedHead, SharedHead])
def test_class_rows_are_all_that_depends_on_the_classes(kind: type[GFLHead | SharedHead]) -> None:
    few, many = (dict(made(kind, nc=nc).named_parameters()) for nc in (3, 5))
    differing = {name for name in few if few[name].shape != many[name].shape}
    assert differing == set(made(kind).class_rows())


def test_joint_logit_is_the_product_of_the_scores() -> None:
    cls, quality = torch.randn(2, 3, 4, 4).double() * 3, torch.randn(2, 1, 4, 4).double() * 3
    torch.testing.assert_close(joint_logit(cls, quality).sigmoid(), cls.sigmoid() * quality.sigmoid())
    assert torch.autograd.gradcheck(
        joint_logit, (cls[:, :, :1, :1].requires_grad_(), quality[:, :, :1, :1].requires_grad_())
    )


@pytest.mark.parametrize("a", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("b", [-1e4, 0.0, 1e4])
def test_joint_logit_far_out(a: float, b: float) -> None:
    cls = torch.full((1, 1, 1, 1), a, requires_grad=True)
    quality = torch.full((1, 1, 1, 1), b, requires_grad=True)
    out = joint_logit(cls, quality)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert cls.grad is not None
    assert quality.grad is not None
    assert torch.isfinite(cls.grad).all()
    assert torch.isfinite(quality.grad).all()


def test_the_quality_predictor_has_the_size_of_the_paper_s() -> None:
    """20 x 64 + 64 + 64 + 1 weights, for any number of bins; it sees sharpness, not place."""
    predictor = QualityPredictor(17)
    assert sum(p.numel() for p in predictor.parameters()) == 1409
    bins = torch.randn(1, 4 * 17, 2, 2)
    rolled = bins.unflatten(1, (4, 17)).roll(3, dims=2).flatten(1, 2)
    torch.testing.assert_close(predictor(bins), predictor(rolled))
    with pytest.raises(ValueError, match="dgqp takes the 4 largest"):
        QualityPredictor(3)


def test_heads_say_what_they_are() -> None:
    assert not made(GFLHead).end2end
    assert not Head.end2end
    assert EndToEnd.end2end
