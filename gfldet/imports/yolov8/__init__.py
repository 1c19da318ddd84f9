"""Public YOLOv8 detectors, as .pt or .onnx files.

tree.py   the tree of modules in a .pt -> description and weights
graph.py  an ONNX graph -> description and weights
"""

from __future__ import annotations

from pathlib import Path

from gfldet.imports import unpickle
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.unpickle import Allowed
from gfldet.imports.yolov8 import graph, tree

READS = "a YOLOv8 detection checkpoint (.pt) or its ONNX export (.onnx)"
# Beside the classes of modules, what such files hold of settings, devices, paths and numbers.
ALLOWED = Allowed(
    "YOLOv8",
    names=frozenset(
        {
            "builtins.set",
            "__builtin__.set",
            "torch.device",
            "torch.float16",
            "torch.float32",
            "torch.bfloat16",
            "pathlib.PosixPath",
            "pathlib.WindowsPath",
            "numpy.dtype",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
            "_codecs.encode",
        }
    ),
    packages=("ultralytics.", "torch.nn.modules."),
)


def read(path: Path) -> ForeignModel:
    """A YOLOv8 detector from a .pt of its trainer or an .onnx exported from it.

    Raises Refusal for one that cannot be taken, and ConfigError where the package for ONNX files is not installed.
    """
    if path.suffix.lower() == ".onnx":
        return graph.read(path)
    with unpickle.opened(path, ALLOWED) as archive:
        return tree.read(archive, path.stem)
