"""Every class loss, overlap and assigner in the criterion: targets and normalisers as said, and each of them learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gfldet.assigners import Assigner, ATSSAssigner, FCOSAssigner, Predictions, TaskAlignedAssigner
from gfldet.losses.detection import (
    CLASS_LOSSES,
    E2EDetectLoss,
    Gains,
    reach_of,
    split_maps,
    truths_of,
    v8DetectionLoss,
)
from gfldet.losses.focal import cross_entropy

NC, STRIDES = 3, (8, 16, 32)
ASSIGNERS: dict[str, Assigner] = {"tal": TaskAlignedAssigner(), "atss": ATSSAssigner(), "fcos": FCOSAssigner()}
NOTHING = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
BATCH = {
    "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
    "cls": torch.tensor([[0.0], [2.0], [1.0]]),
    "bboxes": torch.tensor([[0.3, 0.3, 0.2, 0.3], [0.7, 0.6, 0.3, 0.3], [0.5, 0.5, 0.9, 0.8]]),
}


def some_maps(reg_max: int, images: int = 2, side: int = 128) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(images, 4 * reg_max + NC, side // s, side // s, generator=generator).requires_grad_()
        for s in STRIDES
    ]


@pytest.mark.parametrize("assigner", ASSIGNERS)
@pytest.mark.parametrize(
    "iou_loss", [pytest.param(name, marks=pytest.mark.long) for name in ("iou", "giou", "diou")] + ["ciou"]
)
@pytest.mark.parametrize("cls_loss", CLASS_LOSSES)
@pytest.mark.parametrize("reg_max", [1, 16])
def test_every_combination_learns(cls_loss: str, iou_loss: Any, assigner: str, reg_max: int) -> None:
    maps = some_maps(reg_max)
    criterion = v8DetectionLoss(
        NC, reg_max, STRIDES, assigner=ASSIGNERS[assigner], cls_loss=cls_loss, iou_loss=iou_loss
    )
    optimizer = torch.optim.Adam(maps, lr=0.3)
    seen = []
    for _ in range(10):
        optimizer.zero_grad()
        found = criterion(maps, BATCH)
        found.total.backward()
        assert all(torch.isfinite(m.grad).all() for m in maps if m.grad is not None)
        optimizer.step()
        seen.append(found.items)
    assert torch.isfinite(torch.stack(seen)).all()
    assert seen[-1][0] < 0.7 * seen[0][0]
    assert seen[-1].sum() < 0.8 * seen[0].sum()
    assert (seen[0][2] == 0) == (reg_max == 1)


@pytest.mark.parametrize("cls_loss", CLASS_LOSSES)
@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_background_alone(cls_loss: str, assigner: str) -> None:
    maps = some_maps(16)
    found = v8DetectionLoss(NC, 16, STRIDES, assigner=ASSIGNERS[assigner], cls_loss=cls_loss)(maps, NOTHING)
    found.total.backward()
    assert torch.isfinite(found.total)
    assert found.items[[0, 2]].tolist() == [0, 0]
    for m in maps:
        assert m.grad is not None
        assert torch.isfinite(m.grad).all()


@pytest.mark.parametrize("cls_loss", CLASS_LOSSES)
def test_targets_and_normalisers(cls_loss: str) -> None:
    """The cls item is the loss written out: IoU, alignment or 1 at the truth's class of positives, 0 elsewhere."""
    maps = some_maps(16)
    criterion = v8DetectionLoss(NC, 16, STRIDES, cls_loss=cls_loss)
    head = split_maps(maps, 16, STRIDES)
    truths = truths_of(BATCH, (128, 128), torch.device("cpu"))
    positive = criterion.assigner(Predictions(head.logits, head.boxes()), truths, head.levels, 15)
    kind = CLASS_LOSSES[cls_loss]
    target = torch.zeros_like(head.logits)
    for row, (b, a, t) in enumerate(zip(positive.image, positive.point, positive.truth, strict=True)):
        value = {"alignment": positive.alignment[row], "one": torch.tensor(1.0)}
        target[b, a, truths.classes[t]] = value[kind.target]
    normaliser = len(positive.point) if kind.target == "one" else max(1.0, positive.alignment.sum().item())
    expected = kind.gain * kind.loss(head.logits, target).sum() / normaliser
    found = criterion(maps, BATCH)
    assert found.items[1].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.total.item() == pytest.approx(found.items.sum().item(), rel=1e-6)


def test_without_a_ranking_the_target_is_the_iou() -> None:
    def target(**settings: Any) -> str:
        return v8DetectionLoss(NC, 16, STRIDES, **settings).target

    assert target() == "alignment"
    assert target(cls_target="iou") == "iou"
    assert target(assigner=ATSSAssigner()) == "iou"
    assert target(assigner=FCOSAssigner(), cls_loss="focal") == "one"
    maps = some_maps(16)
    criterion = v8DetectionLoss(NC, 16, STRIDES, assigner=ATSSAssigner(), cls_loss="bce")
    head = split_maps(maps, 16, STRIDES)
    truths = truths_of(BATCH, (128, 128), torch.device("cpu"))
    positive = criterion.assigner(Predictions(head.logits, head.boxes()), truths, head.levels, 15)
    wanted = torch.zeros_like(head.logits)
    wanted[positive.image, positive.point, truths.classes[positive.truth]] = positive.iou.detach()
    expected = 0.5 * cross_entropy(head.logits, wanted).sum() / len(positive.point)
    assert criterion(maps, BATCH).items[1].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_gain_that_is_given_wins_over_the_usual_one() -> None:
    one = v8DetectionLoss(NC, 16, STRIDES, Gains(cls=1.0), cls_loss="bce")(some_maps(16), BATCH).items[1]
    usual = v8DetectionLoss(NC, 16, STRIDES, cls_loss="bce")(some_maps(16), BATCH).items[1]
    assert usual.item() == pytest.approx(0.5 * one.item())


def test_class_weights_weigh_scores_and_boxes() -> None:
    maps = some_maps(16)
    one = {**BATCH, "cls": torch.ones(3, 1)}  # all truths of class 1
    plain = v8DetectionLoss(NC, 16, STRIDES)(maps, one).items
    same = v8DetectionLoss(NC, 16, STRIDES, class_weights=(1.0, 1.0, 1.0))(maps, one).items
    torch.testing.assert_close(same, plain)
    heavy = v8DetectionLoss(NC, 16, STRIDES, class_weights=(1.0, 3.0, 1.0))(maps, one).items
    torch.testing.assert_close(heavy[[0, 2]], 3 * plain[[0, 2]])
    others = v8DetectionLoss(NC, 16, STRIDES, class_weights=(1e-9, 1.0, 1e-9))(maps, one).items[1]
    torch.testing.assert_close(heavy[1], plain[1] + 2 * others)


def test_end_to_end_adds_two_losses_one_to_one() -> None:
    criterion = E2EDetectLoss.of(v8DetectionLoss(NC, 16, STRIDES))
    many, one = some_maps(16), [m.detach().clone().requires_grad_() for m in some_maps(16)]
    found = criterion({"one2many": many, "one2one": one}, BATCH)
    single = replace(criterion.one_to_many, assigner=TaskAlignedAssigner(topk=1))
    expected = criterion.one_to_many(many, BATCH).items + single(one, BATCH).items
    torch.testing.assert_close(found.items, expected)
    torch.testing.assert_close(criterion(one, BATCH).items, single(one, BATCH).items)
    with pytest.raises(ValueError, match="an assigner that ranks"):
        E2EDetectLoss.of(v8DetectionLoss(NC, 16, STRIDES, assigner=ATSSAssigner()))


def test_one_to_one_gives_each_truth_one_point() -> None:
    maps = some_maps(16)
    head = split_maps(maps, 16, STRIDES)
    truths = truths_of(BATCH, (128, 128), torch.device("cpu"))
    criterion = E2EDetectLoss.of(v8DetectionLoss(NC, 16, STRIDES)).one_to_one
    found = criterion.assigner(Predictions(head.logits, head.boxes()), truths, head.levels, 15)
    assert sorted(found.truth.tolist()) == [0, 1, 2]


def test_reach() -> None:
    assert reach_of(16) == 15
    assert reach_of(1) == float("inf")


# ---------------------------------------------------------------------------------------------- what is not finite

NAN, INF = float("nan"), float("inf")
ONE_AND_ALL = [pytest.param(name, marks=() if name == "qfl" else pytest.mark.long) for name in CLASS_LOSSES]
CROWD = {  # more truths than points to have: some ask for a point back
    "batch_idx": torch.zeros(40),
    "cls": torch.zeros(40, 1),
    "bboxes": torch.tensor([[0.5, 0.5, 0.04, 0.04]]).repeat(40, 1) + torch.linspace(0, 0.02, 40)[:, None],
}


def spoilt(maps: list[Tensor], where: str, value: float) -> list[Tensor]:
    """The maps with class logits or bins that no finite network gives: one of them, or a channel of them."""
    bad = [m.detach().clone() for m in maps]
    for m in bad:
        if where == "one logit":
            m[0, -NC, 0, 0] = value
        elif where == "logits":
            m[:, -NC:] = value
        else:
            m[:, 0] = value
    return [m.requires_grad_() for m in bad]


@pytest.mark.parametrize("assigner", [*ASSIGNERS, "end2end"])
@pytest.mark.parametrize("cls_loss", ONE_AND_ALL)
@pytest.mark.parametrize(
    ("where", "value"),
    [("one logit", NAN), ("logits", NAN), ("one logit", INF), ("logits", INF), ("bins", NAN), ("bins", INF)],
)
def test_what_is_not_finite_gives_a_loss_that_is_not(cls_loss: str, assigner: str, where: str, value: float) -> None:
    """The criterion ends, and its total tells: the step is then left out, with the names of its images."""
    criterion: Any = v8DetectionLoss(
        NC, 16, STRIDES, assigner=ASSIGNERS.get(assigner, TaskAlignedAssigner()), cls_loss=cls_loss
    )
    for batch in (BATCH, CROWD):
        maps: Any = spoilt(some_maps(16), where, value)
        if assigner == "end2end":
            criterion, maps = E2EDetectLoss.of(replace(criterion)), {"one2many": maps, "one2one": maps}
        assert not criterion(maps, batch).total.isfinite()
        criterion = criterion.one_to_many if assigner == "end2end" else criterion


@pytest.mark.parametrize("assigner", ASSIGNERS)
@pytest.mark.parametrize("cls_loss", ONE_AND_ALL)
@pytest.mark.parametrize("value", [-INF, 1e30, -1e30])
def test_what_is_huge_ends(cls_loss: str, assigner: str, value: float) -> None:
    """A score of exactly 0 or a side of no length is a number; whether the loss is one, training may judge."""
    for reg_max, where in ((1, "bins"), (16, "bins"), (16, "logits")):
        criterion = v8DetectionLoss(NC, reg_max, STRIDES, assigner=ASSIGNERS[assigner], cls_loss=cls_loss)
        criterion(spoilt(some_maps(reg_max), where, value), CROWD).total.backward()
