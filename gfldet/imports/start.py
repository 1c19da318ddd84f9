"""Any file of weights, of ours or of another program -> what a model starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gfldet.files import exists, is_file
from gfldet.imports.foreign import ForeignModel
from gfldet.imports.registry import read_foreign
from gfldet.store import checkpoint as checkpoints
from gfldet.store.checkpoint import Checkpoint
from gfldet.weights.folder import find_weights


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Weights to start from, and what is to be said of them.

    `family` is empty for a checkpoint of ours.  `left` says in words what of the file was not taken.
    """

    file: str
    checkpoint: Checkpoint
    family: str = ""
    left: tuple[str, ...] = ()

    def told(self, taken: str) -> str:
        """One block for the user: what the file is, what was taken of it, what not, and its licence."""
        what = f"weights of {self.family}" if self.family else "a checkpoint of gfldet"
        body = ", its body alone" if self.checkpoint.body_only else ""
        lines = [f"weights: {self.file}, {what} for {self.checkpoint.description.name}{body}", f"  {taken}"]
        lines += [f"  left out: {part}" for part in self.left]
        licence = self.checkpoint.licence
        return "\n".join([*lines, f"  licence: {licence}"] if licence else lines)


def read_start(path: str | Path) -> Start:
    """Read a checkpoint of ours, or a file of any family that `registry.FAMILIES` names.  `path` may also be the name
    of public weights that were downloaded, where there is no file of this name.

    Raises CheckpointError with the file, what was recognised and what to do, and ConfigError where a package that its
    kind of file needs is not installed.
    """
    file = Path(path)
    if not exists(file):
        file = find_weights(str(path)) or file
    if not is_file(file) or checkpoints.is_ours(file):
        return Start(str(path), checkpoints.load(file))
    foreign = read_foreign(file, also=("a checkpoint that gfldet wrote (.pt)",))
    return Start(str(path), as_checkpoint(foreign), foreign.family, foreign.left)


def as_checkpoint(foreign: ForeignModel) -> Checkpoint:
    """What was read from a foreign file, as a checkpoint of ours."""
    settings = {} if foreign.imgsz is None else {"imgsz": list(foreign.imgsz)}
    numbers = tuple(range(len(foreign.names)))
    told = foreign.licence or "not told in their file"
    licence = f"These weights were brought in: their licence is {told}."
    return Checkpoint(foreign.description, foreign.names, numbers, foreign.weights, settings, licence=licence)
