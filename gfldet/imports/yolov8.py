"""Public YOLOv8 detectors, as .pt or .onnx files -> models and checkpoints of ours.

yolov8.py   what the rest of gfldet calls
unpickle.py an archive of torch.save -> inert records
tree.py     their tree of modules -> description and weights
graph.py    an ONNX graph -> description and weights
"""

from __future__ import annotations

import os
from pathlib import Path

from gfldet.errors import CheckpointError, OutputError, UserError
from gfldet.imports import graph, tree, unpickle
from gfldet.imports.foreign import Foreign, Refusal
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint

ADVICE = "give a YOLOv8 detection checkpoint (.pt) or its ONNX export (.onnx)"


def read_yolov8(path: str | Path) -> Foreign:
    """A YOLOv8 detector from a .pt of its trainer or an .onnx exported from it; none of the file's code is run.

    Raises CheckpointError with the file, the reason and what to do for one that is missing, damaged, unsafe or of
    another kind, and ConfigError where the package for ONNX files is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {ADVICE}")
    try:
        if path.suffix.lower() == ".onnx":
            return graph.read(path)
        with unpickle.opened(path) as archive:
            return tree.read(archive, path.stem)
    except Refusal as error:
        raise CheckpointError(f"{path}: refused: {error}; {ADVICE}") from error
    except UserError:
        raise
    except Exception as error:  # bytes of any kind may be in there
        reason = f"{type(error).__name__}: {str(error)[:150]}"
        raise CheckpointError(f"{path}: not readable ({reason}); {ADVICE}") from error


def check_out(out: str | Path, exist_ok: bool = False) -> Path:
    """Where the checkpoint is to go; OutputError if there is something (unless `exist_ok`) or it could not be
    written."""
    out = Path(out)
    if out.suffix != ".pt":
        raise OutputError(f"out={out}: a checkpoint's name ends with .pt; choose another out=")
    if (out.exists() or out.is_symlink()) and not exist_ok:
        raise OutputError(f"out={out}: exists; choose another out=, or exist_ok=true to write over it")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise OutputError(f"out={out}: {out.parent} is no folder that can be written to; make it, or choose another")
    return out


def save_imported(foreign: Foreign, out: str | Path, exist_ok: bool = False) -> Path:
    """Write a checkpoint that `Model(...)` and `pretrained=` take; the path it went to.

    It is written aside and renamed, so that there is a whole file or none.  Raises OutputError as `check_out` does, and
    when the disk is full.
    """
    path = check_out(out, exist_ok)
    settings = {} if foreign.imgsz is None else {"imgsz": list(foreign.imgsz)}
    numbers = tuple(range(len(foreign.names)))
    licence = f"These weights were brought in: their licence is {foreign.licence or 'not told in their file'}."
    saved = Checkpoint(foreign.description, foreign.names, numbers, foreign.weights, settings, licence=licence)
    checkpoints.save(path, saved)
    return path
