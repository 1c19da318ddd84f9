"""What is checked before a run: settings that make no sense together, and boxes beyond what the head can express."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gfldet.config.schema import TrainSettings
from gfldet.data.findings import Reach
from gfldet.errors import ConfigError, counted, listed
from gfldet.losses.detection import CLASS_LOSSES, reach_of
from gfldet.metrics.coco import check_evaluator
from gfldet.nn.build import Description
from gfldet.nn.heads import DGQP_TOP
from gfldet.nn.tasks import DetectionModel


def described_head(description: Description, settings: TrainSettings) -> Description:
    """The description with the head that the settings describe; ConfigError for choices that make no sense together."""
    given = {
        name: getattr(settings, name) for name in ("reg_max", "dgqp", "end2end") if getattr(settings, name) is not None
    }
    described = dataclasses.replace(description, **given)
    problems = []
    if described.dgqp and described.reg_max < DGQP_TOP:
        problems.append(
            f"dgqp=true with reg_max={described.reg_max}: it looks at the {DGQP_TOP} largest probabilities of a side; "
            f"set reg_max to {DGQP_TOP} or more, or dgqp=false"
        )
    if described.dgqp and (settings.cls_target or CLASS_LOSSES[settings.cls_loss].target) == "one":
        problems.append(
            f"dgqp=true with cls_loss={settings.cls_loss}: every positive is to score 1, so there is no quality to "
            "learn; set cls_loss to qfl, vfl or bce, or dgqp=false"
        )
    if described.end2end and settings.assigner != "tal":
        problems.append(
            f"end2end=true with assigner={settings.assigner}: the head without NMS needs a ranking of points, of which "
            "it takes the first; set assigner=tal, or end2end=false"
        )
    if described.reg_max == 1 and settings.dfl > 0 and "dfl" in settings.explicit:
        problems.append(
            f"dfl={settings.dfl:g} with reg_max=1: a side without bins has no DFL; leave dfl out, or set reg_max=16"
        )
    if problems:
        raise ConfigError(listed("These choices make no sense together:", problems, "Leave out what is not needed."))
    return described


def check_against_classes(settings: TrainSettings, names: Sequence[str]) -> None:
    """ConfigError for settings that do not go with the classes of the data, or ask for what is not installed."""
    given = settings.class_weights
    if given is not None and not isinstance(given, str) and len(given) != len(names):
        raise ConfigError(
            f"class_weights: {counted(len(given), 'number')} for {counted(len(names), 'class')} "
            f"({', '.join(names)}); give one each"
        )
    if settings.val:
        check_evaluator(settings.evaluator)


def reach_of_model(model: DetectionModel) -> Reach:
    """How large a box the bins of a model can express."""
    return Reach(reach_of(model.reg_max), max(model.strides), model.reg_max)
