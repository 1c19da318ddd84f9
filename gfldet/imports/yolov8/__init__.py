"""Public YOLOv8 detectors, as .pt or .onnx files.

tree.py   the tree of modules in a .pt -> description and weights
graph.py  an ONNX graph -> description and weights
"""

from __future__ import annotations

from gfldet.imports.files import ForeignFile
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.yolov8 import graph, tree
from gfldet.store.archive import Refusal
from gfldet.store.unpickle import Allowed, Record

READS = "a YOLOv8 detection checkpoint (.pt) or its ONNX export (.onnx)"
ALLOWED = Allowed(packages=("ultralytics.", "torch.nn.modules."))  # the classes of its modules


def recognises(file: ForeignFile) -> bool:
    """A whole model of that program, or a graph that ends in a convolution over box bins."""
    if file.onnx is not None:
        return graph.has_bins(file.onnx)
    return file.archive is not None and isinstance(tree.model_in(file.archive), Record)


def read(file: ForeignFile) -> ForeignModel:
    """A YOLOv8 detector from a .pt of its trainer or an .onnx exported from it; Refusal for what cannot be taken."""
    if file.onnx is not None:
        return graph.read(file.onnx)
    if file.archive is None:
        raise Refusal("it is no archive as torch.save writes them")
    return tree.read(file.archive, file.path.stem)
