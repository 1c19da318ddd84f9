"""Two processes that share a batch take the step that one process takes with all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfldet.assigners import ATSSAssigner
from gfldet.data.sample import Sample
from gfldet.data.train_set import TrainBatch, collate, nothing
from gfldet.losses.detection import CLASS_LOSSES, E2EDetectLoss, v8DetectionLoss
from gfldet.nn.build import Description
from gfldet.nn.joint_norm import join_norms
from gfldet.nn.tasks import DetectionModel
from gfldet.ranks.value import ONE, Ranks
from gfldet.train.joint import add_up
from gfldet.train.muon import Muon, shared_out

FRAME = (64, 64)
InRanks = Callable[..., list[Any]]


def sample(number: int, truths: int) -> Sample:
    rng = np.random.default_rng(number)
    corners = rng.uniform(0, 40, (truths, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 24, (truths, 2))], 1).astype(np.float32)
    regions = np.array([[40, 40, 60, 60]] if number % 2 else np.zeros((0, 4)), np.float32)
    return Sample(rng.integers(0, 255, (*FRAME, 3), np.uint8), boxes, rng.integers(0, 2, truths), regions)


TRUTHS = {"even": (3, 1, 2, 4), "uneven": (2, 3, 1), "no truths": (0, 3, 0, 2), "one image": (3,), "no truth": (0, 0)}
BATCHES = {name: [sample(n, truths) for n, truths in enumerate(counts)] for name, counts in TRUTHS.items()}


def batch_of(samples: list[Sample], ranks: Ranks) -> TrainBatch:
    own = ranks.share(samples)
    return collate(own, ["image"] * len(own)) if own else nothing(FRAME)


def model_of(description: Description, norms: str, **settings: Any) -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(description)
    model.head.init_biases(0.1, 10.0)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.train(norms != "fixed")
    model.criterion = model.init_criterion(**settings)
    return model


def step(model: DetectionModel, samples: list[Sample], ranks: Ranks) -> dict[str, Tensor]:
    """The gradients, losses and statistics of a step."""
    batch = batch_of(samples, ranks)
    for module in model.modules():
        if hasattr(module, "counts"):
            module.counts = bool(batch.files)  # type: ignore[assignment]
    loss, items = model(batch.to(torch.device("cpu")))
    loss.backward()
    numbers = torch.stack((loss, *items)).detach()
    if ranks.size > 1:
        numbers = add_up(model, numbers, len(batch.files), ranks)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    found |= {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    return {**found, "numbers": numbers}


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest relative difference of two tensors of one name; tiny ones count by the largest of all."""
    assert one.keys() == other.keys()
    floor = 1e-3 * max(float(value.norm()) for value in one.values())
    return max(float((one[n] - other[n]).norm()) / max(float(one[n].norm()), floor) for n in one)


HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "end to end": {"end2end": True},
    "dgqp": {"dgqp": True},
    "no bins": {"reg_max": 1},
}


@pytest.mark.long
def test_gradients_of_two_processes_are_those_of_one(in_ranks: InRanks, tiny: Description) -> None:
    """Of whole models with each kind of head."""

    def work(ranks: Ranks) -> list[dict[str, Tensor]]:
        return [
            step(model_of(replace(tiny, **head), "fixed", ranks=ranks), BATCHES[kind], ranks)
            for head in HEADS.values()
            for kind in ("uneven", "no truths")
        ]

    alone, (first, second) = work(ONE), in_ranks(work)
    for one, two, other in zip(alone, first, second, strict=True):
        assert all(torch.equal(two[name], other[name]) for name in two)
        assert difference(one, two) < 1e-6


CASES: dict[str, dict[str, Any]] = {
    **{name: {"cls_loss": name} for name in CLASS_LOSSES},
    "plain IoU": {"cls_target": "iou"},
    "weights": {"class_weights": (0.5, 2.0), "cls_loss": "ohem"},
    "atss": {"assigner": ATSSAssigner()},
}
STRIDES, BINS = (8, 32), 8


def maps_of(count: int) -> list[Tensor]:
    """Maps (B, 4R + C, H, W) of a head's levels; those of an image are the same in every batch."""
    random = torch.Generator().manual_seed(0)
    sides = [FRAME[0] // stride for stride in STRIDES]
    return [torch.randn(count, 4 * BINS + 2, side, side, generator=random) for side in sides]


def gradients(case: str, end2end: bool, samples: list[Sample], ranks: Ranks) -> list[Tensor]:
    """The loss items, and the gradients with respect to the maps of this rank's images."""
    criterion: Any = v8DetectionLoss(2, BINS, STRIDES, ranks=ranks, **CASES[case])
    own = list(ranks.share(range(len(samples))))
    batch = batch_of(samples, ranks)
    maps = [level[own] if own else torch.zeros(1, *level.shape[1:]) for level in maps_of(len(samples))]
    maps = [level.requires_grad_() for level in maps]
    if end2end:
        found = E2EDetectLoss.of(criterion)({"one2many": maps, "one2one": maps}, batch.to(torch.device("cpu")))
    else:
        found = criterion(maps, batch.to(torch.device("cpu")))
    found.total.backward()
    return [found.items, *(level.grad if own else level.grad[:0] for level in maps)]  # type: ignore[index]


def test_losses_of_two_processes_are_those_of_one(in_ranks: InRanks) -> None:
    """Every class loss and target, over batches whose shares differ, or have no truth, or no image."""
    cases = [(case, end2end, kind) for case in CASES for end2end in (False, True) for kind in BATCHES]
    cases = [one for one in cases if not one[1] or one[0] in ("qfl", "ohem", "weights")]

    def work(ranks: Ranks) -> list[list[Tensor]]:
        return [gradients(case, end2end, BATCHES[kind], ranks) for case, end2end, kind in cases]

    for case, alone, *parts in zip(cases, work(ONE), *in_ranks(work), strict=True):
        torch.testing.assert_close(sum(items for items, *_ in parts), alone[0], rtol=1e-6, atol=1e-6, msg=str(case))
        for level, whole in enumerate(alone[1:], 1):
            for rank, part in enumerate(parts):
                torch.testing.assert_close(part[level], whole[rank::2], rtol=1e-6, atol=1e-9, msg=str(case))


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_joint_statistics_are_those_of_the_whole_batch(in_ranks: InRanks, tiny: Description, size: int) -> None:
    def work(ranks: Ranks) -> list[dict[str, Tensor]]:
        steps = []
        for kind in ("uneven", "no truths", "one image"):
            model = model_of(tiny, "joint", ranks=ranks)
            if ranks.size > 1:
                join_norms(model, ranks)
            steps.append(step(model, BATCHES[kind], ranks))
        return steps

    for one, *others in zip(work(ONE), *in_ranks(work, size), strict=True):
        assert all(difference(one, other) < 3e-5 for other in others)  # a variance of few values loses digits


def test_local_statistics_are_means_over_the_images(in_ranks: InRanks, tiny: Description) -> None:
    """Of three images one process has two; the one that has none in a step changes nothing."""

    def work(ranks: Ranks) -> list[dict[str, Tensor]]:
        return [step(model_of(tiny, "local", ranks=ranks), BATCHES[kind], ranks) for kind in ("uneven", "one image")]

    def own(samples: list[Sample]) -> dict[str, Tensor]:
        return step(model_of(tiny, "local"), samples, ONE)

    (uneven, single), again = in_ranks(work)
    assert all(torch.equal(a[name], b[name]) for a, b in zip((uneven, single), again, strict=True) for name in a)
    names = [name for name in uneven if "running" in name]
    parts = [own(BATCHES["uneven"][rank::2]) for rank in (0, 1)]
    for name in names:
        torch.testing.assert_close(uneven[name], (2 * parts[0][name] + parts[1][name]) / 3)
    assert difference(own(BATCHES["one image"]), single) < 1e-6


@pytest.mark.parametrize("size", [2, pytest.param(7, marks=pytest.mark.long)])  # of seven, two have no matrix
def test_muon_is_shared_out(in_ranks: InRanks, size: int) -> None:
    shapes = [(16, 8, 3, 3), (8, 8, 1, 1), (32, 4), (5, 70), (8, 8, 1, 1)]

    def work(ranks: Ranks) -> list[Tensor]:
        torch.manual_seed(1)
        weights = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        groups = [{"params": weights, "weight_decay": 0.1, "matrices": True}]
        optimizer = Muon(groups, lr=0.1, ranks=ranks)
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            optimizer.step()
        return [weight.detach() for weight in weights]

    alone = work(ONE)
    for found in in_ranks(work, size):
        torch.testing.assert_close(found, alone)


def test_each_matrix_is_of_one_rank_and_the_work_is_even() -> None:
    matrices = [torch.zeros(64, 64)] * 3 + [torch.zeros(8, 100)] * 20
    parts = shared_out(matrices, 3)
    assert sorted(n for part in parts for n in part) == list(range(23))
    assert {len([n for n in part if n < 3]) for part in parts} == {1}
    assert shared_out(matrices[:1], 3) == [[0], [], []]
