"""Names that other detectors have for a setting, or for what gfldet does in another way: what to give instead.

The spelling alone does not lead from these names to the right one.  `load` puts these words into its errors.  Where the
value asks for what gfldet does in any case, such as `half=false`, there is no error (`asks_for_the_same`).
"""

from __future__ import annotations

from typing import Any

SAME: dict[str, str] = {
    "weights": "model",
    "img": "imgsz",
    "size": "imgsz",
    "image_size": "imgsz",
    "lr": "lr0",
    "learning_rate": "lr0",
    "nms": "iou",
    "threshold": "conf",
    "conf_thres": "conf",
    "confidence": "conf",
    "iou_thres": "iou",
    "max_dets": "max_det",
    "images": "source",
    "input": "source",
    "output": "project",
    "out": "project",
    "line_thickness": "line_width",
    "amsgrad": "optimizer",
    "early_stopping": "patience",
    "save_dir": "project",
    "iterations": "trials",
    "n_trials": "trials",
}
"""A name elsewhere -> the setting that means the same."""

_BOXES_ONLY = "gfldet finds boxes only"
_DRAWN = "result.plot(), save() and show() take"

INSTEAD: dict[str, str] = {
    "space": "gfldet tune varies what is not given; a setting that you give stays as it is",
    "task": "gfldet does one task, detection; leave it out",
    "mode": "the command says it: gfldet train, val, predict, export",
    # of a training
    "warmup_epochs": "the warm-up is counted in optimiser steps; give warmup_steps",
    "warmup_momentum": "the momentum is the same throughout; give momentum",
    "warmup_bias_lr": "all rates rise alike over warmup_steps",
    "nbs": "an optimiser step is taken every batch; give batch",
    "accumulate": "an optimiser step is taken every batch; give batch",
    "cos_lr": "the rate ends in a cosine in any case; flat and lrf shape it",
    "label_smoothing": "the scores learn the overlap of their boxes instead; see cls_target",
    "single_cls": "give all boxes one class in the data YAML",
    "deterministic": "a run on a CPU always repeats to the bit; see seed",
    "fraction": "name fewer images in train: of the data YAML",
    "multi_scale": "give scale, by which objects change their size",
    "dropout": "only classifiers have it; see weight_decay",
    "perspective": "give shear, degrees or scale, or augment=FUNCTION from Python",
    "cls_pw": "give class_weights=auto",
    "copy_paste_mode": "give mosaic or mixup, or augment=FUNCTION from Python",
    "copy_paste": "give mosaic or mixup, or augment=FUNCTION from Python",
    "cutmix": "give mosaic or mixup, or augment=FUNCTION from Python",
    "bgr": "give hsv_h, or augment=FUNCTION from Python",
    "auto_augment": "only classifiers have it; see augment",
    "erasing": "only classifiers have it; give augment=FUNCTION from Python",
    "albumentations": "give augment=FUNCTION from Python",
    "augmentations": "give augment=FUNCTION from Python",
    "compile": "nothing is compiled; leave it out",
    "profile": "each result has its times in .speed",
    "callbacks": "give observers=[...] to Model.train, or call Model.add_callback",
    "trainer": "give observers=[...] to Model.train to watch it",
    "validator": "Model.val returns the metrics",
    "save_hybrid": "give save_json; predictions.json has the detections alone",
    # of a prediction
    "predictor": "Model.predict(..., stream=True) gives one result at a time",
    "stream": "it is an argument of Model.predict; the command line works so in any case",
    "show": "call result.show(); save=true writes the pictures",
    "view_img": "call result.show(); save=true writes the pictures",
    "save_crop": "call result.save_crop(folder)",
    "save_frames": "give save=true: it writes a video, and result.save() each picture",
    "show_labels": f"{_DRAWN} labels=",
    "hide_labels": f"{_DRAWN} labels=",
    "show_conf": f"{_DRAWN} conf=",
    "hide_conf": f"{_DRAWN} conf=",
    "show_boxes": f"{_DRAWN} boxes=",
    "visualize": "nothing shows the maps inside the network; leave it out",
    "embed": "model.model is the torch module",
    "stream_buffer": "every frame is taken, or every vid_stride-th",
    "tracker": "give track=true; the tracker is ByteTrack",
    "persist": "give track=true and all frames in one call",
    "tta": "an image is looked at once; leave it out",
    "dnn": "an exported .onnx runs in onnxruntime; leave it out",
    # of an export
    "simplify": "the graph is written as simple as it is; leave it out",
    "opset": "it is 17; leave it out",
    "workspace": "give format=onnx, and let TensorRT's own converter read that",
    "optimize": "leave it out; half and int8 make a file smaller",
    "keras": "give format=onnx, and convert that",
    **dict.fromkeys(("overlap_mask", "mask_ratio", "retina_masks", "rle"), f"{_BOXES_ONLY}, no masks; leave it out"),
    **dict.fromkeys(("pose", "kobj", "kpt_shape"), f"{_BOXES_ONLY}, no keypoints; leave it out"),
}
"""A name elsewhere -> what there is instead; each ends what follows "NAME: no such setting; "."""

INSTEAD_IN: dict[tuple[str, str], str] = {
    ("train", "save"): "the weights are saved in any case; leave it out",
    ("train", "save_json"): "predictions.json is written in any case; leave it out",
    ("train", "classes"): "leave the other classes out of the data",
    ("val", "save_json"): "predictions.json is written in any case; leave it out",
    ("val", "classes"): "metrics.json has each class by itself",
    ("val", "augment"): "an image is looked at once; leave it out",
    ("predict", "augment"): "an image is looked at once; leave it out",
    ("val", "half"): "float16 is for exported files: gfldet export half=true",
    ("predict", "half"): "float16 is for exported files: gfldet export half=true",
    ("predict", "amp"): "float16 is for exported files: gfldet export half=true",
    ("export", "project"): "give out",
    ("export", "name"): "give out",
}
"""(command, name of a setting of another command) -> what there is instead, where people mean something else by it."""

_OFF = ("false", "no", "off", "none", "null", "~", "", "0", "0.0")
_ON = ("true", "yes", "on", "1")
_ONE = ("1", "1.0")

_NOT_WANTED = (
    # of a training
    "label_smoothing", "single_cls", "multi_scale", "dropout", "perspective", "cls_pw", "copy_paste",
    "cutmix", "bgr", "auto_augment", "erasing", "albumentations", "augmentations", "compile", "profile", "callbacks",
    "trainer", "validator", "save_hybrid",
    # of a prediction
    "predictor", "show", "view_img", "save_crop", "save_frames", "hide_labels", "hide_conf", "visualize", "embed",
    "stream_buffer", "tracker", "persist", "tta", "dnn",
    # of an export, and of other tasks
    "workspace", "optimize", "keras", "overlap_mask", "mask_ratio", "retina_masks", "rle", "pose", "kobj",
    "kpt_shape",
)  # fmt: skip

ANYWAY: dict[str, tuple[str, ...]] = {
    "task": ("detect",),
    "deterministic": _ON + _OFF,  # off allows what need not be
    "cos_lr": _ON,
    "accumulate": _ONE,
    "fraction": _ONE,
    "stream": _ON + _OFF,
    "opset": ("17",),
    "simplify": _ON + _OFF,
    "show_labels": _ON,
    "show_conf": _ON,
    "show_boxes": _ON,
    **dict.fromkeys(_NOT_WANTED, _OFF),
}
"""A name elsewhere -> the values, as words, that ask for what gfldet does in any case."""

ANYWAY_IN: dict[tuple[str, str], tuple[str, ...]] = {
    **{(command, "mode"): (command,) for command in ("train", "val", "predict", "export")},
    **{(command, name): _OFF for command in ("train", "val", "predict") for name in ("half", "int8", "dynamic")},
    **{(command, "augment"): _OFF for command in ("val", "predict", "export")},
    **{(command, "classes"): _OFF[3:6] for command in ("train", "val", "export")},  # a class has the number 0
    ("train", "save"): _ON,
    ("train", "save_json"): _ON,
    ("train", "split"): ("val",),
    ("val", "save_json"): _ON,
    ("predict", "amp"): _OFF,
}
"""(command, name of a setting of another command, or elsewhere) -> as in ANYWAY."""


def asks_for_the_same(command: str, name: str, value: Any) -> bool:
    """Whether a setting that `command` does not have is given a value that asks for what it does in any case."""
    if not (value is None or isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and abs(value) < 1e6)):
        return False
    words = ANYWAY_IN.get((command, name.lower()), ANYWAY.get(name.lower(), ()))
    return str(value).strip().lower() in words
