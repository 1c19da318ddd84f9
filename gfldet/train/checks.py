"""What is checked before a run: settings that make no sense together, and boxes beyond what the head can express."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gfldet.config.schema import TrainSettings
from gfldet.data.records import Split
from gfldet.errors import ConfigError, listed
from gfldet.losses.detection import CLASS_LOSSES, reach_of
from gfldet.messages import warn
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
            f"class_weights: {len(given)} numbers for {len(names)} classes ({', '.join(names)}); give one each"
        )
    if settings.val:
        check_evaluator(settings.evaluator)


def warn_of_reach(model: DetectionModel, split: Split, frame: tuple[int, int]) -> None:
    """Tell so when boxes are larger than the bins can express: such boxes come out too small, whatever the training."""
    coarsest = max(model.strides)
    # From the point nearest to a truth's centre, half a stride away at worst, the farther side has to be in reach.
    reach = (2 * reach_of(model.reg_max) - 1) * coarsest
    records = split.records
    scales = records.scales(frame).astype(np.float32)[records.images]
    sides = scales * (records.boxes[:, 2:] - records.boxes[:, :2]).max(1, initial=0)
    total, beyond, largest = len(sides), int((sides > reach).sum()), float(sides.max(initial=0))
    if beyond:
        bins = int(np.ceil((largest / coarsest + 1) / 2)) + 1
        warn(
            f"{beyond} of {total} boxes ({beyond / total:.1%}) are larger than the {reach:.0f} px that reg_max="
            f"{model.reg_max} can express at this imgsz; set reg_max={bins} (or 1, for sides without bins), or a "
            "smaller imgsz"
        )
