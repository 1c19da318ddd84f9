"""The families of foreign files that can be read: a module with a `read`, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gfldet.errors import CheckpointError, UserError
from gfldet.imports import yolov8
from gfldet.imports.foreign import ForeignModel, Refusal


@dataclass(frozen=True, slots=True)
class Family:
    """Files of one kind of detector.

    `name` is the detector's, `reads` says in words which files of it are read.  `read` takes a file that exists; it
    runs none of the file's code and raises Refusal for one that is not of the family or cannot be taken.
    """

    name: str
    reads: str
    read: Callable[[Path], ForeignModel]


FAMILIES: tuple[Family, ...] = (Family("YOLOv8", yolov8.READS, yolov8.read),)


def read_foreign(path: str | Path) -> ForeignModel:
    """A detector of another program, by the first family that takes its file; none of the file's code is run.

    Raises CheckpointError with the file, the reason and what to do for one that is missing, damaged, unsafe or of
    another kind, and ConfigError where a package that its kind of file needs is not installed.
    """
    path = Path(path)
    advice = f"give {', or '.join(family.reads for family in FAMILIES)}"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {advice}")
    reasons: dict[str, str] = {}
    cause: Exception | None = None
    for family in FAMILIES:
        try:
            return family.read(path)
        except Refusal as error:
            reasons[family.name], cause = f"refused: {error}", error
        except UserError:
            raise
        except Exception as error:  # bytes of any kind may be in there
            reasons[family.name], cause = f"not readable ({type(error).__name__}: {str(error)[:150]})", error
    told = set(reasons.values())
    by_family = "; ".join(f"as {name}: {reason}" for name, reason in reasons.items())
    raise CheckpointError(f"{path}: {told.pop() if len(told) == 1 else by_family}; {advice}") from cause
