"""Every setting once: its type, default, kind (range), unit and help, in groups.

A group is a frozen dataclass; `schema` makes the settings of a command out of groups.  Standard library only: the help
is printed from here and must not wait for heavy imports.  That is also why the groups do without the generated repr and
eq; those of the commands' classes cover their fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gfldet.config.kinds import (
    BatchSize,
    Choice,
    ClassPick,
    Device,
    Flag,
    FlagOr,
    ImageSize,
    OrNone,
    Real,
    Source,
    Text,
    Whole,
    Words,
)
from gfldet.config.setting import setting

_SHARE = Real(0, 1)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GeneralGroup:
    """General"""

    model: str = setting(
        "gfldet-n.yaml",
        Text(
            "the name of a model, the path of a .yaml, .onnx or .xml file or of weights, or a name of `gfldet weights`"
        ),
        "model, checkpoint or exported file to use",
    )
    imgsz: int | tuple[int, int] = setting(
        640, ImageSize(), "size that images are brought to, rounded up to multiples of 32", "px"
    )
    sample_bits: int | None = setting(
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
class TileGroup:
    """Tiles"""

    tile: int | None = setting(
        None,
        OrNone(Whole(32, 16384)),
        "cut larger pictures into squares of this side, at full resolution, rounded up to multiples of 32; imgsz is "
        "then the same unless it is set; none does not cut",
        "px",
    )
    overlap: float = setting(
        0.2, Real(0, 0.9), "share of its side that a tile has in common with the next; larger than small objects are"
    )
    tile_whole: bool = setting(
        True, Flag(), "let pictures that are cut also pass as a whole, for objects larger than the overlap"
    )

    def tiles(self) -> dict[str, Any]:
        """The keyword arguments of `ops.tiles.tiles_of`, but for what the model tells."""
        return {"side": self.tile, "overlap": self.overlap, "whole": self.tile_whole}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ComputingGroup:
    """Computing"""

    batch: int = setting(
        16, BatchSize(), "images that pass through the model together; auto takes what fits into a GPU", "images"
    )
    device: str = setting(
        "auto", Device(), "where to compute; auto takes the first GPU if there is one; a process for each of several"
    )
    threads: int = setting(
        0, Whole(0), "processor threads of the model; 0 takes the cores that other work leaves free", "threads"
    )
    workers: int = setting(
        -1, Whole(-1), "threads, beside a GPU processes, that prepare images; -1 chooses by the machine"
    )
    on_bad: str = setting(
        "error",
        Choice("error", "skip"),
        "what to do with unreadable images and labels: stop and list them, or skip them",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RunFolderGroup:
    """Run folder"""

    project: str = setting("runs", Text("a folder"), "folder that holds the run folders")
    name: str = setting(
        "", Text("a name", empty=True), "name of the run folder; when empty the command's name, numbered if taken"
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class OutputGroup:
    """Output"""

    exist_ok: bool = setting(False, Flag(), "write into a run folder, or over a file, that exists already")
    verbose: bool = setting(True, Flag(), "print progress and tables")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DataGroup:
    """Data"""

    data: str = setting(
        "shapes",
        Text("the name of a data set, or the path of a data YAML, a folder, a COCO .json or an obj.data"),
        "data set to work on",
    )
    val_share: float = setting(
        0.2,
        Real(0, 0.9),
        "share of the training images, chosen by their names, that is held out as val where the data name no val split",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LoadingGroup:
    """Loading"""

    check_images: str = setting(
        "auto",
        Choice("auto", "full", "quick"),
        "how images are checked at the start: full decodes each, quick reads the headers of JPEG and PNG; auto is full "
        "up to 20,000 images of a split",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class MeasuringGroup:
    """Measuring"""

    evaluator: str = setting(
        "hotcoco", Choice("hotcoco", "pycocotools"), "who computes the COCO metrics; both give the same numbers"
    )
    rect: bool = setting(
        True, Flag(), "validate at the images' own shape: pad to multiples of 32 only, not to a square"
    )
    plots: bool = setting(
        True,
        Flag(),
        "draw curves, the confusion matrix and pictures, and write report.html, which has them all",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DetectionGroup:
    """Detections"""

    conf: float | None = setting(
        None, OrNone(_SHARE), "lowest score of a detection; none is 0.25 in predict, else 0.001"
    )
    iou: float = setting(0.7, _SHARE, "overlap above which NMS drops the lower of two detections", "IoU")
    max_det: int = setting(300, Whole(1), "most detections of an image", "detections")
    agnostic_nms: bool = setting(False, Flag(), "let NMS compare detections of different classes too")

    def selection(self, conf: float = 0.001) -> dict[str, Any]:
        """The keyword arguments of `detect.detector.Selection`; `conf` where the settings leave it open."""
        return {
            "conf": conf if self.conf is None else self.conf,
            "iou": self.iou,
            "max_det": self.max_det,
            "agnostic": self.agnostic_nms,
        }


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ValidationGroup:
    """Validation"""

    split: str = setting("val", Choice("train", "val", "test"), "part of the data set to validate on")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PredictionGroup:
    """Prediction"""

    source: Any = setting(None, Source(), "what to predict on", required=True)
    classes: tuple[int | str, ...] | None = setting(None, OrNone(ClassPick()), "classes to keep; none keeps all")
    save: bool = setting(
        False, Flag(), "write the pictures with their boxes; the command line does so unless told false"
    )
    save_txt: bool = setting(False, Flag(), "write a label file in YOLO format for each image")
    save_conf: bool = setting(False, Flag(), "write the scores into those label files too")
    save_json: bool = setting(False, Flag(), "write predictions.json in COCO format")
    save_format: tuple[str, ...] | None = setting(
        None,
        OrNone(Words("labelstudio", "cvat", "coco", "voc", "yolo")),
        "write what was found as labels for programs in which people correct them",
    )
    image_url: str = setting(
        "",
        Text("an address", empty=True),
        "what stands before the file names in the labels for Label Studio; if empty they are local files",
    )
    line_width: int | None = setting(None, OrNone(Whole(1)), "width of drawn lines; none goes by the image", "px")
    vid_stride: int = setting(1, Whole(1), "take every so many frames of a video", "frames")
    track: bool = setting(
        False, Flag(), "give what is one object in successive frames one id; takes the package trackers"
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ExportGroup:
    """Exported file"""

    format: str = setting(
        "onnx",
        Choice("onnx", "openvino", "web"),
        "what to write: an ONNX file, an OpenVINO one, or a folder with a page that runs the model in a browser",
    )
    dynamic: str = setting(
        "none",
        Choice("none", "batch", "all", true="all", false="none"),
        "what may differ from run to run: nothing, the number of images, or that and their size",
    )
    nms: bool = setting(False, Flag(), "choose the detections inside the graph, by conf, iou and max_det")
    decode: bool = setting(True, Flag(), "decode boxes and scores inside the graph; false gives bins and logits")
    half: bool = setting(False, Flag(), "compute in float16: half the size, for processors that are made for it")
    int8: bool = setting(False, Flag(), "compute in 8-bit integers, calibrated on training images of data")
    calibration: int = setting(100, Whole(1), "training images that int8 is calibrated on", "images")
    max_drop: float = setting(0.01, _SHARE, "loss of AP on the val split at which int8 is refused", "AP")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ImportGroup:
    """Imported weights"""

    weights: str = setting(None, Text("the path of a file"), "weights of another program to bring in", required=True)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PublicWeightsGroup:
    """Public weights"""

    get: str = setting(
        "",
        Text("a name of the list, as in gfldet weights get v9-t", empty=True),
        "weights to download into GFLDET_HOME, else your cache folder; if empty all are listed",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CheckGroup:
    """Check"""

    page: bool = setting(True, Flag(), "write check.html, with pictures of the worst cases, into a run folder")
    fail_at: str = setting(
        "error",
        Choice("error", "warning", "notice", "never"),
        "end with exit code 1 where a finding is of this severity, or a graver one",
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class JsonGroup:
    """For programs"""

    json: bool | str = setting(
        False, FlagOr("the path of a file"), "print what there is to tell as JSON, or write it into that file"
    )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TargetGroup:
    """Target"""

    out: str = setting(
        "",
        Text("a path", empty=True),
        "file or folder to write; if empty it lies beside the model, and is named like it",
    )
