"""Every setting once: its type, default, kind (range), unit and help, in groups.

A group is a frozen dataclass; `schema` makes the settings of a command out of groups.  Standard library only: the help
is printed from here and must not wait for heavy imports.  That is also why the groups do without the generated repr and
eq; those of the commands' classes cover their fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gfldet.config.kinds import (
    Augment,
    Choice,
    ClassPick,
    Device,
    Flag,
    Freeze,
    ImageSize,
    Kind,
    NameOrNone,
    OrNone,
    Real,
    Resume,
    Source,
    Text,
    Weights,
    Whole,
    Words,
)

_SHARE = Real(0, 1)


@dataclass(frozen=True)
class Setting:
    """One setting as the help, `default.yaml` and the checks see it."""

    name: str
    default: Any
    kind: Kind
    help: str
    unit: str
    required: bool


def _setting(default: Any, kind: Kind, help: str, unit: str = "", required: bool = False) -> Any:
    """A dataclass field that carries what `Setting` needs."""
    return field(default=default, metadata={"kind": kind, "help": help, "unit": unit, "required": required})


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GeneralGroup:
    """General"""

    model: str = _setting(
        "gfldet-n.yaml",
        Text(
            "the name of a model, the path of a .yaml, .onnx or .xml file or of weights, or a name of `gfldet weights`"
        ),
        "model, checkpoint or exported file to use",
    )
    imgsz: int | tuple[int, int] = _setting(
        640, ImageSize(), "size that images are brought to, rounded up to multiples of 32", "px"
    )
    batch: int = _setting(16, Whole(1), "images that pass through the model together", "images")
    device: str = _setting(
        "auto", Device(), "where to compute; auto takes the first GPU if there is one; a process for each of several"
    )
    threads: int = _setting(
        0, Whole(0), "processor threads of the model; 0 takes the cores that other work leaves free", "threads"
    )
    workers: int = _setting(
        -1, Whole(-1), "threads, beside a GPU processes, that prepare images; -1 chooses by the machine"
    )
    on_bad: str = _setting(
        "error",
        Choice("error", "skip"),
        "what to do with unreadable images and labels: stop and list them, or skip them",
    )
    sample_bits: int | None = _setting(
        None,
        OrNone(Whole(8, 16)),
        "bits that the samples of 16-bit image files use; none is what the model was trained with, or what training "
        "finds in its images",
        "bits",
    )

    @property
    def height_width(self) -> tuple[int, int]:
        """`imgsz` as (height, width) in pixels."""
        return self.imgsz if isinstance(self.imgsz, tuple) else (self.imgsz, self.imgsz)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RunFolderGroup:
    """Run folder"""

    project: str = _setting("runs", Text("a folder"), "folder that holds the run folders")
    name: str = _setting(
        "", Text("a name", empty=True), "name of the run folder; when empty the command's name, numbered if taken"
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class OutputGroup:
    """Output"""

    exist_ok: bool = _setting(False, Flag(), "write into a run folder, or over a file, that exists already")
    verbose: bool = _setting(True, Flag(), "print progress and tables")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DataGroup:
    """Data"""

    data: str = _setting(
        "shapes",
        Text("the name of a data set, or the path of a data YAML, a folder, a COCO .json or an obj.data"),
        "data set to work on",
    )
    val_share: float = _setting(
        0.2,
        Real(0, 0.9),
        "share of the training images, chosen by their names, that is held out as val where the data name no val split",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class MeasuringGroup:
    """Measuring"""

    evaluator: str = _setting(
        "hotcoco", Choice("hotcoco", "pycocotools"), "who computes the COCO metrics; both give the same numbers"
    )
    rect: bool = _setting(
        True, Flag(), "validate at the images' own shape: pad to multiples of 32 only, not to a square"
    )
    plots: bool = _setting(True, Flag(), "draw curves, the confusion matrix and pictures of batches")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DetectionGroup:
    """Detections"""

    conf: float | None = _setting(
        None, OrNone(_SHARE), "lowest score of a detection; none is 0.25 in predict, else 0.001"
    )
    iou: float = _setting(0.7, _SHARE, "overlap above which NMS drops the lower of two detections", "IoU")
    max_det: int = _setting(300, Whole(1), "most detections of an image", "detections")
    agnostic_nms: bool = _setting(False, Flag(), "let NMS compare detections of different classes too")

    def selection(self, conf: float = 0.001) -> dict[str, Any]:
        """The keyword arguments of `detect.detector.Selection`; `conf` where the settings leave it open."""
        return {
            "conf": conf if self.conf is None else self.conf,
            "iou": self.iou,
            "max_det": self.max_det,
            "agnostic": self.agnostic_nms,
        }


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TrainingGroup:
    """Training"""

    epochs: int = _setting(100, Whole(1), "passes over the training images", "epochs")
    patience: int = _setting(50, Whole(0), "stop after so many epochs without a better AP; 0 never stops", "epochs")
    seed: int = _setting(0, Whole(0, 2**32 - 1), "start of every random number; a CPU run repeats to the bit")
    val: bool = _setting(True, Flag(), "validate after every epoch")
    cache: str = _setting(
        "auto",
        Choice("auto", "ram", "none", true="ram", false="none"),
        "keep the resized images in memory; auto does if they fit",
    )
    amp: str = _setting(
        "auto",
        Choice("auto", "on", "off", true="on", false="off"),
        "mixed precision; auto uses it on a GPU, and on a CPU that computes in bfloat16 itself",
    )
    pretrained: str | None = _setting(
        None,
        NameOrNone("the path of a file of weights, a name that `gfldet weights` lists, or imagenet"),
        "weights to start from, of gfldet or of another program, as far as they fit; without model= the model is "
        "theirs; imagenet is torchvision's file in torch's cache",
    )
    resume: bool | str = _setting(
        False,
        Resume(),
        "go on with an interrupted run, or with more epochs a finished one; true takes the newest in project",
    )
    freeze: int | tuple[int, ...] | None = _setting(None, OrNone(Freeze()), "layers that are not trained")
    class_weights: str | tuple[float, ...] | None = _setting(
        None, OrNone(Weights()), "weight of each class in the loss; auto goes by 1 / sqrt(number of its truths)"
    )
    repeat_share: float = _setting(
        0.0,
        _SHARE,
        "classes in less than this share of the images are shown more often; 0 shows each image once",
        "share",
    )
    save_period: int = _setting(
        0, Whole(0), "keep a checkpoint every so many epochs; 0 keeps last and best only", "epochs"
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class OptimiserGroup:
    """Optimiser and schedule"""

    recipe: str = _setting(
        "auto",
        Choice("auto", "scratch"),
        "whose defaults hold: auto takes those of fine-tuning where the run starts from weights",
    )
    optimizer: str = _setting("muon", Choice("muon", "adamw", "sgd", auto="muon"), "who turns gradients into steps")
    lr0: float | None = _setting(
        None,
        OrNone(Real(0, 1, above=True)),
        "full learning rate; none is 0.003 for muon, 0.0015 for adamw, 0.01 for sgd",
    )
    lrf: float = _setting(0.01, _SHARE, "last learning rate as a share of lr0")
    flat: float = _setting(0.5, _SHARE, "share of the run at full rate, before the cosine down to lrf")
    momentum: float = _setting(0.9, Real(0, 0.9999), "momentum of muon and sgd, first beta of adamw")
    weight_decay: float | None = _setting(
        None,
        OrNone(_SHARE),
        "decay of weight matrices; none is 1 / (lr0 x steps), 0.02 to 1, for muon, 0.02 for adamw, 0.0005 for sgd",
    )
    warmup_steps: int | None = _setting(
        None,
        OrNone(Whole(0)),
        "optimiser steps over which the rate rises from zero; none is 25 for muon, else 100, or a fifth of the run",
        "steps",
    )
    ema_decay: float = _setting(0.998, Real(0, 0.999999), "decay of the averaged weights; 0 does without the average")
    ema_part: float = _setting(
        9.0, Real(1), "what the steps so far are divided by for the horizon of the average, while ema_decay allows more"
    )
    bn_momentum: float = _setting(0.1, Real(0, 1, above=True), "share of a new batch in the batch-norm statistics")
    sync_bn: bool = _setting(
        False, Flag(), "take batch-norm statistics over the images of all processes, instead of each over its own"
    )
    grad_clip: float = _setting(10.0, Real(0), "largest norm of the gradient; 0 does not clip")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class AugmentationGroup:
    """Augmentation"""

    augment: str | Callable[..., Any] = _setting(
        "default", Augment("default", "none", true="default", false="none"), "what changes the training images"
    )
    augment_at: str = _setting(
        "instead",
        Choice("instead", "before", "after"),
        "where an augmentation of your own works: instead of the default one, before it on each image, or after it on "
        "the finished frame",
    )
    mosaic: float = _setting(1.0, _SHARE, "chance that four images are put together", "probability")
    mixup: float = _setting(0.0, _SHARE, "chance that two images are blended", "probability")
    close_mosaic: float = _setting(
        0.15,
        Real(0),
        "end of the run without mosaic and mixup: below 1 a share of it, from 1 up epochs",
        "share or epochs",
    )
    hsv_h: float = _setting(0.015, _SHARE, "largest change of hue", "share of the circle")
    hsv_s: float = _setting(0.7, _SHARE, "largest change of saturation", "share")
    hsv_v: float = _setting(0.4, _SHARE, "largest change of brightness", "share")
    degrees: float = _setting(0.0, Real(0, 180), "largest rotation", "degrees")
    translate: float = _setting(0.1, _SHARE, "largest shift", "share of the side")
    scale: float = _setting(0.5, Real(0, 0.95), "largest change of size: 0.5 is from 0.5 to 1.5 times", "share")
    shear: float = _setting(0.0, Real(0, 60), "largest shear", "degrees")
    flipud: float = _setting(0.0, _SHARE, "chance of a flip upside down", "probability")
    fliplr: float = _setting(0.5, _SHARE, "chance of a flip left to right", "probability")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LossGroup:
    """Loss and assigner"""

    cls_loss: str = _setting(
        "qfl", Choice("qfl", "vfl", "bce", "focal", "ohem"), "loss of the scores: quality focal, varifocal, ..."
    )
    cls_target: str | None = _setting(
        None,
        OrNone(Choice("iou", "alignment", "one")),
        "what the score of a positive point learns; none is 1 for focal and ohem, else alignment, or iou without tal",
    )
    iou_loss: str = _setting(
        "ciou", Choice("iou", "giou", "diou", "ciou"), "overlap that the loss of the boxes goes by"
    )
    assigner: str = _setting(
        "tal",
        Choice("tal", "atss", "fcos", "tal-after-atss"),
        "who decides which points answer for a truth; tal-after-atss changes after a third of the run",
    )
    reg_max: int | None = _setting(
        None,
        OrNone(Whole(1, 256)),
        "bins of a box side, in strides; 1 predicts the side itself, without DFL; none is the model's own",
        "bins",
    )
    dgqp: bool | None = _setting(
        None, OrNone(Flag()), "let the sharpness of the bins bear on the scores (GFLv2); none is as the model has it"
    )
    end2end: bool | None = _setting(
        None, OrNone(Flag()), "train a second head that needs no NMS, and use that; none is as the model has it"
    )
    box: float = _setting(7.5, Real(0), "gain of the loss of the boxes")
    cls: float | None = _setting(
        None, OrNone(Real(0)), "gain of the loss of the scores; none goes by cls_loss, and is 1.5 for qfl"
    )
    dfl: float = _setting(1.5, Real(0), "gain of the distribution focal loss of the bins")
    prior: float = _setting(0.01, Real(0, 0.5, above=True), "score of every class at the start", "probability")
    tal_topk: int = _setting(10, Whole(1), "most points that answer for a truth", "points")
    tal_alpha: float = _setting(0.5, Real(0), "exponent of the score in the alignment of point and truth")
    tal_beta: float = _setting(6.0, Real(0), "exponent of the IoU in the alignment of point and truth")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ValidationGroup:
    """Validation"""

    split: str = _setting("val", Choice("train", "val", "test"), "part of the data set to validate on")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PredictionGroup:
    """Prediction"""

    source: Any = _setting(None, Source(), "what to predict on", required=True)
    classes: tuple[int | str, ...] | None = _setting(None, OrNone(ClassPick()), "classes to keep; none keeps all")
    save: bool = _setting(
        False, Flag(), "write the pictures with their boxes; the command line does so unless told false"
    )
    save_txt: bool = _setting(False, Flag(), "write a label file in YOLO format for each image")
    save_conf: bool = _setting(False, Flag(), "write the scores into those label files too")
    save_json: bool = _setting(False, Flag(), "write predictions.json in COCO format")
    save_format: tuple[str, ...] | None = _setting(
        None,
        OrNone(Words("labelstudio", "cvat", "coco", "voc", "yolo")),
        "write what was found as labels for programs in which people correct them",
    )
    image_url: str = _setting(
        "",
        Text("an address", empty=True),
        "what stands before the file names in the labels for Label Studio; if empty they are local files",
    )
    line_width: int | None = _setting(None, OrNone(Whole(1)), "width of drawn lines; none goes by the image", "px")
    vid_stride: int = _setting(1, Whole(1), "take every so many frames of a video", "frames")
    track: bool = _setting(
        False, Flag(), "give what is one object in successive frames one id; takes the package trackers"
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ExportGroup:
    """Exported file"""

    format: str = _setting(
        "onnx",
        Choice("onnx", "openvino", "web"),
        "what to write: an ONNX file, an OpenVINO one, or a folder with a page that runs the model in a browser",
    )
    dynamic: str = _setting(
        "none",
        Choice("none", "batch", "all", true="all", false="none"),
        "what may differ from run to run: nothing, the number of images, or that and their size",
    )
    nms: bool = _setting(False, Flag(), "choose the detections inside the graph, by conf, iou and max_det")
    decode: bool = _setting(True, Flag(), "decode boxes and scores inside the graph; false gives bins and logits")
    half: bool = _setting(False, Flag(), "compute in float16: half the size, for processors that are made for it")
    int8: bool = _setting(False, Flag(), "compute in 8-bit integers, calibrated on training images of data")
    calibration: int = _setting(100, Whole(1), "training images that int8 is calibrated on", "images")
    max_drop: float = _setting(0.01, _SHARE, "loss of AP on the val split at which int8 is refused", "AP")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ImportGroup:
    """Imported weights"""

    weights: str = _setting(None, Text("the path of a file"), "weights of another program to bring in", required=True)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PublicWeightsGroup:
    """Public weights"""

    get: str = _setting(
        "",
        Text("a name of the list, as in gfldet weights get v9-t", empty=True),
        "weights to download into GFLDET_HOME, else your cache folder; if empty all are listed",
    )
    json: bool = _setting(False, Flag(), "print the list as JSON")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TargetGroup:
    """Target"""

    out: str = _setting(
        "",
        Text("a path", empty=True),
        "file or folder to write; if empty it lies beside the model, and is named like it",
    )
