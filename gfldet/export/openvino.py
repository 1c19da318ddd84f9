"""ONNX file -> OpenVINO's .xml and .bin, with the card in its rt_info."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from gfldet.detect import exported
from gfldet.detect.card import Card
from gfldet.detect.exported import RT_INFO, openvino_core
from gfldet.errors import ConfigError
from gfldet.machine.memory import disk_is_full


def import_openvino() -> Any:
    """The package; ConfigError if it is not installed."""
    try:
        return exported.import_openvino()
    except ImportError as error:
        raise ConfigError("format=openvino: OpenVINO is not installed; pip install 'gfldet[openvino]'") from error


def convert(file: Path, card: Card, target: Path) -> Path:
    """Write `target` (.xml) and the .bin beside it; ConfigError if OpenVINO is not installed."""
    openvino = import_openvino()
    model = openvino_core().read_model(str(file))
    for key, text in card.to_text().items():
        model.set_rt_info(text, [RT_INFO, key])
    try:
        openvino.save_model(model, str(target), compress_to_fp16=card.precision == "float16")
    except RuntimeError as error:
        if disk_is_full(target.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
    return target
