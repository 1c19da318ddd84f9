"""The settings of a training run alone, in groups; see `groups`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gfldet.config.kinds import (
    Augment,
    Choice,
    Flag,
    FlagOr,
    Freeze,
    NameOrNone,
    OrNone,
    Real,
    Weights,
    Whole,
    Words,
)
from gfldet.config.setting import setting

_SHARE = Real(0, 1)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TrainingGroup:
    """Training"""

    epochs: int = setting(100, Whole(1), "passes over the training images", "epochs")
    time: float | None = setting(
        None,
        OrNone(Real(0, above=True)),
        "time for the whole run, which then has as many epochs as fit into it, in place of epochs; a tune begins no "
        "trial that may not fit into it",
        "hours",
    )
    patience: int = setting(50, Whole(0), "stop after so many epochs without a better AP; 0 never stops", "epochs")
    seed: int = setting(0, Whole(0, 2**32 - 1), "start of every random number; a CPU run repeats to the bit")
    val: bool = setting(True, Flag(), "validate after every epoch")
    cache: str = setting(
        "auto",
        Choice("auto", "ram", "none", true="ram", false="none"),
        "keep the resized images in memory; auto does if they fit",
    )
    amp: str = setting(
        "auto",
        Choice("auto", "on", "off", true="on", false="off"),
        "mixed precision; auto uses it on a GPU, and on a CPU that computes in bfloat16 itself",
    )
    pretrained: str | None = setting(
        None,
        NameOrNone("the path of a file of weights, a name that `gfldet weights` lists, or imagenet"),
        "weights to start from, of gfldet or of another program, as far as they fit; without model= the model is "
        "theirs; imagenet is torchvision's file in torch's cache",
    )
    resume: bool | str = setting(
        False,
        FlagOr("the path of a last.pt or of its run folder"),
        "go on with an interrupted run, or with more epochs a finished one; true takes the newest in project",
    )
    freeze: int | tuple[int, ...] | None = setting(None, OrNone(Freeze()), "layers that are not trained")
    class_weights: str | tuple[float, ...] | None = setting(
        None, OrNone(Weights()), "weight of each class in the loss; auto goes by 1 / sqrt(number of its truths)"
    )
    repeat_share: float = setting(
        0.0,
        _SHARE,
        "classes in less than this share of the images are shown more often; 0 shows each image once",
        "share",
    )
    save_period: int = setting(
        0, Whole(0), "keep a checkpoint every so many epochs; 0 keeps last and best only", "epochs"
    )
    log: tuple[str, ...] = setting(
        ("csv",),
        Words("csv", "tensorboard", "mlflow", "wandb", none="csv", false="csv"),
        "tools that the run is logged to, each an extra package; csv is results.csv, which there always is",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TuneGroup:
    """Tuning"""

    trials: int = setting(
        20, Whole(2), "trainings with other settings that are compared; the first has the default ones", "trials"
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class OptimiserGroup:
    """Optimiser and schedule"""

    recipe: str = setting(
        "auto",
        Choice("auto", "scratch"),
        "whose defaults hold: auto takes those of fine-tuning where the run starts from weights",
    )
    optimizer: str = setting("muon", Choice("muon", "adamw", "sgd", auto="muon"), "who turns gradients into steps")
    lr0: float | None = setting(
        None,
        OrNone(Real(0, 1, above=True)),
        "full learning rate; none is 0.003 for muon, 0.0015 for adamw, 0.01 for sgd",
    )
    lrf: float = setting(0.01, _SHARE, "last learning rate as a share of lr0")
    flat: float = setting(0.5, _SHARE, "share of the run at full rate, before the cosine down to lrf")
    momentum: float = setting(0.9, Real(0, 0.9999), "momentum of muon and sgd, first beta of adamw")
    weight_decay: float | None = setting(
        None,
        OrNone(_SHARE),
        "decay of weight matrices; none is 1 / (lr0 x steps), 0.02 to 1, for muon, 0.02 for adamw, 0.0005 for sgd",
    )
    warmup_steps: int | None = setting(
        None,
        OrNone(Whole(0)),
        "optimiser steps over which the rate rises from zero; none is 25 for muon, else 100, or a fifth of the run",
        "steps",
    )
    ema_decay: float = setting(0.998, Real(0, 0.999999), "decay of the averaged weights; 0 does without the average")
    ema_part: float = setting(
        9.0, Real(1), "what the steps so far are divided by for the horizon of the average, while ema_decay allows more"
    )
    bn_momentum: float = setting(0.1, Real(0, 1, above=True), "share of a new batch in the batch-norm statistics")
    sync_bn: bool = setting(
        False, Flag(), "take batch-norm statistics over the images of all processes, instead of each over its own"
    )
    grad_clip: float = setting(10.0, Real(0), "largest norm of the gradient; 0 does not clip")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class AugmentationGroup:
    """Augmentation"""

    augment: str | Callable[..., Any] = setting(
        "default", Augment("default", "none", true="default", false="none"), "what changes the training images"
    )
    augment_at: str = setting(
        "instead",
        Choice("instead", "before", "after"),
        "where an augmentation of your own works: instead of the default one, before it on each image, or after it on "
        "the finished frame",
    )
    mosaic: float = setting(1.0, _SHARE, "chance that four images are put together", "probability")
    mixup: float = setting(0.0, _SHARE, "chance that two images are blended", "probability")
    close_mosaic: float = setting(
        0.15,
        Real(0),
        "end of the run without mosaic and mixup: below 1 a share of it, from 1 up epochs",
        "share or epochs",
    )
    hsv_h: float = setting(0.015, _SHARE, "largest change of hue", "share of the circle")
    hsv_s: float = setting(0.7, _SHARE, "largest change of saturation", "share")
    hsv_v: float = setting(0.4, _SHARE, "largest change of brightness", "share")
    degrees: float = setting(0.0, Real(0, 180), "largest rotation", "degrees")
    translate: float = setting(0.1, _SHARE, "largest shift", "share of the side")
    scale: float = setting(0.5, Real(0, 0.95), "largest change of size: 0.5 is from 0.5 to 1.5 times", "share")
    shear: float = setting(0.0, Real(0, 60), "largest shear", "degrees")
    flipud: float = setting(0.0, _SHARE, "chance of a flip upside down", "probability")
    fliplr: float = setting(0.5, _SHARE, "chance of a flip left to right", "probability")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LossGroup:
    """Loss and assigner"""

    cls_loss: str = setting(
        "qfl", Choice("qfl", "vfl", "bce", "focal", "ohem"), "loss of the scores: quality focal, varifocal, ..."
    )
    cls_target: str | None = setting(
        None,
        OrNone(Choice("iou", "alignment", "one")),
        "what the score of a positive point learns; none is 1 for focal and ohem, else alignment, or iou without tal",
    )
    iou_loss: str = setting("ciou", Choice("iou", "giou", "diou", "ciou"), "overlap that the loss of the boxes goes by")
    assigner: str = setting(
        "tal",
        Choice("tal", "atss", "fcos", "tal-after-atss"),
        "who decides which points answer for a truth; tal-after-atss changes after a third of the run",
    )
    reg_max: int | None = setting(
        None,
        OrNone(Whole(1, 256)),
        "bins of a box side, in strides; 1 predicts the side itself, without DFL; none is the model's own",
        "bins",
    )
    dgqp: bool | None = setting(
        None, OrNone(Flag()), "let the sharpness of the bins bear on the scores (GFLv2); none is as the model has it"
    )
    end2end: bool | None = setting(
        None, OrNone(Flag()), "train a second head that needs no NMS, and use that; none is as the model has it"
    )
    box: float = setting(7.5, Real(0), "gain of the loss of the boxes")
    cls: float | None = setting(
        None, OrNone(Real(0)), "gain of the loss of the scores; none goes by cls_loss, and is 1.5 for qfl"
    )
    dfl: float = setting(1.5, Real(0), "gain of the distribution focal loss of the bins")
    prior: float = setting(0.01, Real(0, 0.5, above=True), "score of every class at the start", "probability")
    tal_topk: int = setting(10, Whole(1), "most points that answer for a truth", "points")
    tal_alpha: float = setting(0.5, Real(0), "exponent of the score in the alignment of point and truth")
    tal_beta: float = setting(6.0, Real(0), "exponent of the IoU in the alignment of point and truth")
