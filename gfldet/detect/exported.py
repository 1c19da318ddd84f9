"""The runner of exported files: numpy, opencv and onnxruntime (or OpenVINO), no torch.

    file -> card + engine; frames (B, H, W, 3) uint8 -> engine -> boxes and scores -> chosen detections

Everything that torch does on the way from images to detections is done here once more in numpy: the test of both is
that they give the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet.detect.card import INPUT, OUTPUTS, Card
from gfldet.detect.detector import Selection
from gfldet.errors import CheckpointError, ConfigError, shown
from gfldet.files import is_file
from gfldet.machine.cores import FreeCores
from gfldet.ops.decode_numpy import anchor_points, decode, sigmoid
from gfldet.ops.detections import Detections, chosen, logit_floor

Outputs: TypeAlias = "dict[str, NDArray[Any]]"
SUFFIXES = (".onnx", ".xml")
RT_INFO = "gfldet"  # the section of an OpenVINO file that holds the card


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """A loaded graph: `run` takes (B, 3, H, W) float32 and gives its outputs by name; `device` is where it computes."""

    run: Callable[[NDArray[np.float32]], Outputs]
    card: Card
    device: str


def load(path: str | Path, device: str = "auto", threads: int = 0) -> ExportedDetector:
    """Open an exported .onnx (onnxruntime) or .xml (OpenVINO).

    Raises CheckpointError for a file that is missing, damaged or not ours, ConfigError for a device that is not there
    or a package that is not installed.
    """
    file = Path(path)
    if not is_file(file):
        raise CheckpointError(f"{file}: no such file; gfldet export model=best.pt writes one")
    return ExportedDetector((_openvino if file.suffix == ".xml" else _onnxruntime)(file, device, threads))


@dataclass(frozen=True, slots=True, eq=False)
class ExportedDetector:
    """See `detect.detector.Detector`."""

    engine: Engine

    @property
    def card(self) -> Card:
        return self.engine.card

    @property
    def names(self) -> dict[int, str]:
        return dict(enumerate(self.card.names))

    @property
    def multiple(self) -> int:
        return self.card.multiple

    @property
    def end2end(self) -> bool:
        return self.card.end2end

    @property
    def frame(self) -> tuple[int, int] | None:
        return None if self.card.dynamic == "all" else self.card.imgsz

    @property
    def device(self) -> str:
        return self.engine.device

    @property
    def pad_colour(self) -> int:
        return self.card.pad_colour

    def infer(self, images: NDArray[np.uint8]) -> Outputs:
        """Frames (B, H, W, 3) -> outputs as the card's layout has them, float32.

        A file for a fixed number of images is run as often as needed, the last time with blank frames beside.
        """
        batch = self.card.batch
        if self.card.dynamic != "none" or len(images) == batch:
            return self.engine.run(planes(images, self.card))
        parts = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            blank = np.zeros((batch - len(part), *images.shape[1:]), np.uint8)
            parts.append(self.engine.run(planes(np.concatenate((part, blank)), self.card)))
        return {name: np.concatenate([part[name] for part in parts])[: len(images)] for name in parts[0]}

    def select(
        self, outputs: Outputs, selection: Selection, classes: tuple[int, ...] | None = None
    ) -> list[Detections]:
        if self.card.layout == "detections":
            return [
                _kept(Detections(boxes[:count], scores[:count], labels[:count]), selection, classes)
                for boxes, scores, labels, count in zip(
                    outputs["boxes"], outputs["scores"], outputs["classes"], outputs["count"], strict=True
                )
            ]
        iou, anchors = None if self.end2end else selection.iou, self._anchors(outputs)
        found = []
        for image in range(len(outputs["logits" if self.card.layout == "raw" else "scores"])):
            candidates = self._candidates(outputs, image, selection.conf, classes)
            boxes_of = partial(self._boxes, outputs, anchors, image)
            found.append(chosen(candidates, boxes_of, iou, selection.max_det, selection.agnostic))
        return found

    def points(self, outputs: Outputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (B, A, 4) xyxy in px of the frame and scores (B, A, C) of all points; not for layout detections."""
        raw = self.card.layout == "raw"
        scores = sigmoid(outputs["logits"]).transpose(0, 2, 1) if raw else outputs["scores"]
        every, anchors = np.arange(scores.shape[1]), self._anchors(outputs)
        return np.stack([self._boxes(outputs, anchors, image, every) for image in range(len(scores))]), scores

    def _candidates(self, outputs: Outputs, image: int, conf: float, classes: tuple[int, ...] | None) -> Detections:
        """What scores above `conf` in an image, best first, without boxes; ties point by point, then class by class."""
        raw = self.card.layout == "raw"
        values = outputs["logits"][image] if raw else outputs["scores"][image].T  # (C, A)
        wanted = values > (logit_floor(conf) if raw else conf)
        if classes is not None:
            wanted[[c for c in range(len(values)) if c not in classes]] = False
        label, point = wanted.nonzero()
        scores = values[label, point]
        if raw:
            scores = sigmoid(scores)
            sure = scores > conf
            label, point, scores = label[sure], point[sure], scores[sure]
        order = np.lexsort((label, point, -scores))
        return Detections(np.empty((len(order), 0), np.float32), scores[order], label[order], point[order])

    def _anchors(self, outputs: Outputs) -> NDArray[np.float32] | None:
        """The anchor points (A, 3) that raw outputs are decoded from, the same for all frames of a batch."""
        if self.card.layout != "raw":
            return None
        height, width = outputs[INPUT].shape[2:]
        return anchor_points(height, width, self.card.strides)

    def _boxes(
        self, outputs: Outputs, anchors: NDArray[np.float32] | None, image: int, points: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The boxes (P, 4) xyxy of `points` (P,) of an image, in px of the frame."""
        if anchors is None:
            boxes: NDArray[np.float32] = outputs["boxes"][image, points]
            return boxes
        return decode(outputs["bins"][image][:, points], anchors[points], self.card.reg_max)


def planes(images: NDArray[np.uint8], card: Card) -> NDArray[np.float32]:
    """Frames (B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, with the channels and the values that the card asks for.

    A plane at a time: OpenCV's own function takes three times as long.
    """
    count, height, width, _ = images.shape
    values = card.values
    order = 1 if card.channels == "RGB" else -1
    out = np.empty((count, 3, height, width), np.float32)
    for into, image in zip(out, images, strict=True):
        split = cv2.split(image)[::order]
        for plane, greys, mean, scale in zip(into, split, values.mean, values.scale, strict=True):
            if mean:
                greys = np.subtract(greys, np.float32(mean), out=plane, dtype=np.float32)
            np.multiply(greys, np.float32(1 / scale), out=plane, dtype=np.float32)
    return out


def _kept(found: Detections, selection: Selection, classes: tuple[int, ...] | None) -> Detections:
    """The wanted ones of detections that the graph has selected already."""
    wanted = found.scores > selection.conf
    if classes is not None:
        wanted &= np.isin(found.classes, classes)
    return found.take(wanted.nonzero()[0][: selection.max_det])


def import_onnxruntime() -> Any:
    """The package, silent: version 1.32 keeps a record of its use in the user's cache, which is meant for its makers.

    An ORT_DISABLE_TELEMETRY of the user's own stays as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _onnxruntime(file: Path, device: str, threads: int) -> Engine:
    """An .onnx in onnxruntime."""
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        raise ConfigError(f"{file}: onnxruntime is not installed; pip install onnxruntime") from error
    there = onnxruntime.get_available_providers()
    providers: list[Any] = ["CPUExecutionProvider"]
    kind, _, number = device.partition(":")
    if kind == "cuda" and "CUDAExecutionProvider" not in there:
        raise ConfigError(
            f"device={device}: this onnxruntime computes on {', '.join(there)}; pip install onnxruntime-gpu in its "
            "place, or use device=cpu"
        )
    if kind == "mps":
        raise ConfigError(f"device={device}: not for exported files; use device=cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or FreeCores()()
    options.log_severity_level = 3
    if kind in ("auto", "cuda") and "CUDAExecutionProvider" in there:
        providers = [("CUDAExecutionProvider", {"device_id": int(number or 0)}), *providers]
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers)
    except Exception as error:  # onnxruntime's own errors share no class but this
        raise _unreadable(file, error) from error
    card = Card.from_text(session.get_modelmeta().custom_metadata_map, str(file))
    _check_names(file, card, [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()])
    names = list(OUTPUTS[card.layout])

    def run(images: NDArray[np.float32]) -> Outputs:
        return dict(zip(names, session.run(names, {INPUT: images}), strict=True))

    return Engine(_checked(run, card, file), card, session.get_providers()[0].removesuffix("ExecutionProvider").lower())


def import_openvino() -> Any:
    """The package, silent: by itself its import is told to its makers, by way of Google, and noted in HOME.

    It tells nothing where it finds no package openvino_telemetry, so for the time of the import there is none.
    """
    if "openvino" not in sys.modules:
        reports = sys.modules.get("openvino_telemetry")
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            import openvino
        finally:
            del sys.modules["openvino_telemetry"]
            if reports is not None:
                sys.modules["openvino_telemetry"] = reports
    import openvino

    return openvino


@cache
def openvino_core() -> Any:
    """OpenVINO's Core, one for the process, which is never given back.

    Each gives the main thread a stack of its own for signals.  When the older of two ends first, neither stack is left,
    and the next signal, such as Ctrl-C, ends the process (seen with OpenVINO 2026).
    """
    return import_openvino().Core()


def _openvino(file: Path, device: str, threads: int) -> Engine:
    """An .xml, with its .bin beside it, in OpenVINO on the CPU."""
    try:
        core = openvino_core()
    except ImportError as error:
        raise ConfigError(f"{file}: OpenVINO is not installed; pip install openvino") from error
    if device not in ("auto", "cpu"):
        raise ConfigError(f"device={device}: OpenVINO files run on the CPU here; use device=cpu")
    # In full precision also where the processor has bfloat16: the same detections as torch's.
    hints = {"INFERENCE_NUM_THREADS": threads or FreeCores()(), "INFERENCE_PRECISION_HINT": "f32"}
    try:
        model = core.read_model(str(file))
        text = {key: model.get_rt_info([RT_INFO, key]).astype(str) for key in _rt_keys(model)}
        card = Card.from_text(text, str(file))
        compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **hints})
    except RuntimeError as error:
        raise _unreadable(file, error) from error
    _check_names(
        file, card, [i.any_name for i in compiled.inputs], [name for o in compiled.outputs for name in o.names]
    )
    request = compiled.create_infer_request()
    names = list(OUTPUTS[card.layout])

    def run(images: NDArray[np.float32]) -> Outputs:
        request.infer({INPUT: images}, share_inputs=True)
        return {name: request.get_tensor(name).data.copy() for name in names}

    return Engine(_checked(run, card, file), card, "cpu")


def _rt_keys(model: Any) -> list[str]:
    """The keys that the file's own card has."""
    info = model.get_rt_info()
    return list(info[RT_INFO]) if RT_INFO in info else []


def _check_names(file: Path, card: Card, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """CheckpointError where a graph has not the input and outputs that its card speaks of."""
    wanted = list(OUTPUTS[card.layout])
    if list(inputs) != [INPUT] or not set(wanted) <= set(outputs):
        raise CheckpointError(
            f"{file}: another layout: input {', '.join(inputs)} and outputs {', '.join(outputs)}, where its card "
            f"({card.layout}) says {INPUT} and {', '.join(wanted)}; export it anew with gfldet export"
        )


def _checked(
    run: Callable[[NDArray[np.float32]], Outputs], card: Card, file: Path
) -> Callable[[NDArray[np.float32]], Outputs]:
    """`run`, which gives the frames beside its outputs, and raises CheckpointError where the graph of `file` fails or
    gives other outputs than the card says."""

    def checked(images: NDArray[np.float32]) -> Outputs:
        try:
            outputs = run(images)
        except Exception as error:  # engines' own errors share no class but this
            reason = shown(" ".join(str(error).split()), 300, quoted=False)
            raise CheckpointError(f"{file}: its graph fails when it is run ({reason}); export it anew") from error
        problem = output_problem(card, images.shape, outputs)
        if problem:
            raise CheckpointError(f"{file}: its graph gives {problem}; export it anew with gfldet export model=best.pt")
        return {INPUT: images, **outputs}

    return checked


def output_problem(card: Card, images: tuple[int, ...], outputs: Outputs) -> str:
    """What of the outputs for frames of shape `images` is not as the card says; empty if all is."""
    count, _, height, width = images
    points = sum(-(-height // stride) * -(-width // stride) for stride in card.strides)
    classes, scores = len(card.names), outputs.get("scores")
    best = scores.shape[-1:] if isinstance(scores, np.ndarray) else ()  # D
    shapes: dict[str, tuple[int, ...]] = {
        "raw": {"bins": (count, 4 * card.reg_max, points), "logits": (count, classes, points)},
        "decoded": {"boxes": (count, points, 4), "scores": (count, points, classes)},
        "detections": {
            "boxes": (count, *best, 4),
            "scores": (count, *best),
            "classes": (count, *best),
            "count": (count,),
        },
    }[card.layout]
    for name, shape in shapes.items():
        found, kinds = outputs[name], "iu" if name in ("classes", "count") else "f"
        if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype.kind not in kinds:
            told = f"{list(found.shape)} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
            kind = "whole numbers" if kinds == "iu" else "fractions"
            return f"{name} {told}, where its card says {list(shape)}, {kind}"
    for name, most in (("classes", classes - 1), ("count", best[0])) if card.layout == "detections" else ():
        found = outputs[name]
        if found.size and not (found.min() >= 0 and found.max() <= most):
            return f"{name} from {found.min()} to {found.max()}, where 0 to {most} are possible"
    return ""


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    reason = shown(" ".join(str(error).split()), 300, quoted=False)
    return CheckpointError(f"{file}: cannot be loaded ({reason}); export it anew with gfldet export model=best.pt")
