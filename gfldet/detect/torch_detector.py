"""The `Detector` of torch: a fused copy of a model on a device."""

from __future__ import annotations

import copy
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfldet.detect.detector import Selection
from gfldet.nn.blocks import Conv
from gfldet.nn.tasks import DetectionModel
from gfldet.ops.decode import Scored
from gfldet.ops.detections import Detections
from gfldet.ops.images import image_tensor
from gfldet.ops.letterbox import PAD_COLOUR
from gfldet.ops.nms import non_max_suppression

_LIBRARY = ctypes.CDLL(None if os.name == "posix" else "msvcrt")  # of C


@dataclass(frozen=True, slots=True, eq=False)
class TorchDetector:
    """See `detect.detector.Detector`.  `model` is in eval mode and computes on the device of its weights."""

    model: DetectionModel

    @property
    def names(self) -> dict[int, str]:
        return self.model.names

    @property
    def multiple(self) -> int:
        return self.model.multiple

    @property
    def end2end(self) -> bool:
        return self.model.end2end

    @property
    def frame(self) -> tuple[int, int] | None:
        return None

    @property
    def device(self) -> str:
        return next(self.model.parameters()).device.type

    @property
    def pad_colour(self) -> int:
        return PAD_COLOUR

    def infer(self, images: NDArray[np.uint8]) -> Scored:
        """Frames (B, H, W, 3) -> the head's predictions, on the model's device."""
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            return self.model.infer(image_tensor(torch.from_numpy(images), device))

    def select(self, outputs: Scored, selection: Selection, classes: tuple[int, ...] | None = None) -> list[Detections]:
        """The detections of each frame, in its px."""
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            keep = None if classes is None else torch.tensor(classes, dtype=torch.int64, device=device)
            iou = None if self.end2end else selection.iou
            return non_max_suppression(outputs, selection.conf, iou, selection.max_det, selection.agnostic, keep)


def for_inference(model: DetectionModel, device: torch.device) -> TorchDetector:
    """A detector with a fused copy of the model in eval mode on `device`, channels last for speed."""
    fused = copy.deepcopy(model)
    fused.fuse()
    for module in fused.modules():
        if isinstance(module, Conv) and hasattr(module.act, "inplace"):
            module.act.inplace = True  # no one else reads what the convolution wrote
    fused.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchDetector(fused)


class KeptDetector:
    """The detector of a model, made once and made anew when the model has changed since.

    A change of anything in a weight is seen, in whatever way it was made, since all of them are compared with copies:
    versions of tensors do not count what is written through `.data` or an array that shares their memory.
    """

    def __init__(self) -> None:
        self._detector: TorchDetector | None = None
        self._device = torch.device("cpu")
        self._modules: list[nn.Module] = []
        self._names: dict[int, str] = {}
        self._weights: list[Tensor] = []

    def of(self, model: DetectionModel, device: torch.device) -> TorchDetector:
        """The detector of `model` on `device`, as `for_inference` makes it."""
        if self._detector is None or device != self._device or not self._is_of(model):
            self._detector = None  # so that not two of them are held
            self._modules, self._names = _modules(model), dict(model.names)
            self._weights = [weight.detach().clone() for weight in _weights(self._modules)]
            self._detector, self._device = for_inference(model, device), device
        return self._detector

    def _is_of(self, model: DetectionModel) -> bool:
        """Whether the model is still as it was when the detector was made."""
        modules = _modules(model)
        weights = _weights(modules)
        return (
            len(modules) == len(self._modules)
            and all(a is b for a, b in zip(modules, self._modules, strict=True))
            and model.names == self._names
            and len(weights) == len(self._weights)
            and _same(weights, self._weights)
        )


def _modules(model: nn.Module) -> list[nn.Module]:
    """All modules of a model; torch's own listing, which makes their names, takes milliseconds."""
    found = [model]
    for module in found:  # which grows meanwhile
        found.extend(inner for inner in module._modules.values() if inner is not None)
    return found


def _weights(modules: Sequence[nn.Module]) -> list[Tensor]:
    """Parameters and buffers of modules, without those inside them; their own listing takes milliseconds."""
    tables = [table for module in modules for table in (module._parameters, module._buffers)]
    return [weight for table in tables for weight in table.values() if weight is not None]


def _same(now: Sequence[Tensor], before: Sequence[Tensor]) -> bool:
    """Whether tensors are what they were; those of one device are compared at once where to ask it takes time."""
    pairs = list(zip(now, before, strict=True))
    if not all(a.device == b.device and a.dtype == b.dtype and a.shape == b.shape for a, b in pairs):
        return False
    if all(a.is_cpu for a in now):
        return all(_same_bytes(a, b) for a, b in pairs)
    return bool(torch.stack([(a == b).all() for a, b in pairs]).all())


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors in the processor's memory are the same: dense ones by the C library, in half the time."""
    dense = a.stride() == b.stride() and (a.is_contiguous() or a.is_contiguous(memory_format=torch.channels_last))
    if not dense:
        return torch.equal(a, b)
    length = a.numel() * a.element_size()
    return not _LIBRARY.memcmp(ctypes.c_void_p(a.data_ptr()), ctypes.c_void_p(b.data_ptr()), ctypes.c_size_t(length))
