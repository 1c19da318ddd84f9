"""What was read from a foreign file -> a checkpoint of ours, where the user wants it."""

from __future__ import annotations

import os
from pathlib import Path

from gfldet.errors import OutputError
from gfldet.files import exists, is_folder
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.start import as_checkpoint
from gfldet.store import checkpoint as checkpoints


def check_out(out: str | Path, exist_ok: bool = False) -> Path:
    """Where the checkpoint is to go; OutputError if there is something (unless `exist_ok`) or it could not be
    written."""
    out = Path(out)
    if out.suffix != ".pt":
        raise OutputError(f"out={out}: a checkpoint's name ends with .pt; choose another out=")
    if (exists(out) or os.path.islink(out)) and not exist_ok:
        raise OutputError(f"out={out}: exists; choose another out=, or exist_ok=true to write over it")
    if not is_folder(out.parent) or not os.access(out.parent, os.W_OK | os.X_OK):
        raise OutputError(f"out={out}: {out.parent} is no folder that can be written to; make it, or choose another")
    return out


def save_imported(foreign: ForeignModel, out: str | Path, exist_ok: bool = False) -> Path:
    """Write a checkpoint that `Model(...)` and `pretrained=` take; the path it went to.

    It is written aside and renamed, so that there is a whole file or none.  Raises OutputError as `check_out` does, and
    when the disk is full.
    """
    path = check_out(out, exist_ok)
    checkpoints.save(path, as_checkpoint(foreign))
    return path
