"""What the settings of a run decide in its loop: the optimiser, the assigner, and the layers that are trained."""

from __future__ import annotations

import torch
from torch import nn

from gfldet.assigners import Assigner, ATSSAssigner, FCOSAssigner, TaskAlignedAssigner
from gfldet.config.schema import TrainSettings
from gfldet.errors import ConfigError
from gfldet.nn.tasks import DetectionModel
from gfldet.ranks.value import ONE, Ranks
from gfldet.train.muon import Muon
from gfldet.train.schedule import Plan


def make_optimizer(
    model: DetectionModel, settings: TrainSettings, plan: Plan, precision: torch.dtype | None, ranks: Ranks = ONE
) -> torch.optim.Optimizer:
    """Muon, AdamW, or SGD with Nesterov momentum; weight decay on filters alone, not on biases and norms.

    Muon's matrices are all filters but those of the predicting layers, whose rows (bins, classes) are no directions of
    one space, as its authors leave out embeddings and classifiers.
    """
    wanted = [p for p in model.parameters() if p.requires_grad]
    filters, rest = [p for p in wanted if p.ndim > 1], [p for p in wanted if p.ndim <= 1]
    decay = plan.weight_decay
    if settings.optimizer == "muon":
        predicting = {id(weight) for weight in model.predicting()}
        matrices, others = ([p for p in filters if (id(p) in predicting) == outside] for outside in (False, True))
        kinds = ((matrices, decay, True), (others, decay, False), (rest, 0.0, False))
        return Muon(
            [{"params": params, "weight_decay": d, "matrices": m} for params, d, m in kinds],
            lr=plan.lr0,
            momentum=plan.momentum,
            dtype=torch.bfloat16 if precision is torch.bfloat16 else torch.float32,
            ranks=ranks,
        )
    groups = [{"params": filters, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=plan.lr0, betas=(plan.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=plan.lr0, momentum=plan.momentum, nesterov=plan.momentum > 0)


def make_assigner(settings: TrainSettings, early: bool) -> Assigner:
    """The assigner that the settings name; `early` is for the first part of a run with two assigners."""
    if settings.assigner == "atss" or (settings.assigner == "tal-after-atss" and early):
        return ATSSAssigner()
    if settings.assigner == "fcos":
        return FCOSAssigner()
    return TaskAlignedAssigner(settings.tal_topk, settings.tal_alpha, settings.tal_beta)


def freeze(model: DetectionModel, layers: int | tuple[int, ...] | None) -> None:
    """Take layers out of training: the first `layers`, or those numbered; ConfigError where that is not possible."""
    numbers = range(layers) if isinstance(layers, int) else layers or ()
    last = len(model.graph.layers) - 1
    for number in numbers:
        if number > last:
            raise ConfigError(f"freeze: layer {number} is not there; the model has layers 0 to {last}")
        model.graph.layers[number].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("freeze: nothing is left to train; freeze fewer layers")


def keep_frozen_statistics(model: nn.Module) -> None:
    """Batch norms whose weights are frozen keep their statistics too, or the frozen layers would drift."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
