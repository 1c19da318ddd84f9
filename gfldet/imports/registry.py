"""The families of foreign files that can be read: a module with `recognises` and `read`, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gfldet.errors import CheckpointError, UserError
from gfldet.files import is_file
from gfldet.imports import files, nanodet, resnets, yolov8, yolov9, yolox
from gfldet.imports.files import ForeignFile
from gfldet.imports.foreign import ForeignModel
from gfldet.store.archive import Refusal
from gfldet.store.unpickle import Allowed


@dataclass(frozen=True, slots=True)
class Family:
    """Files of one kind of detector.

    `name` is the detector's, `reads` says in words which files of it are read.  `recognises` tells by names and shapes
    whether an open file is of the family; it is cheap and raises nothing.  `read` runs none of the file's code and
    raises Refusal for a file of the family that cannot be taken.  `allowed` is what its pickles name beside tensors.
    """

    name: str
    reads: str
    recognises: Callable[[ForeignFile], bool]
    read: Callable[[ForeignFile], ForeignModel]
    allowed: Allowed = Allowed()


FAMILIES: tuple[Family, ...] = (
    Family("YOLOv8", yolov8.READS, yolov8.recognises, yolov8.read, yolov8.ALLOWED),
    Family("YOLOv9", yolov9.READS, yolov9.recognises, yolov9.read),
    Family("YOLOX", yolox.READS, yolox.recognises, yolox.read),
    Family("NanoDet", nanodet.READS, nanodet.recognises, nanodet.read),
    Family("torchvision", resnets.READS, resnets.recognises, resnets.read),
)
# What checkpoints of torch's common trainers hold beside tensors: settings and numbers, kept as inert records.
TRAINERS = Allowed(
    names=frozenset(
        {
            *("builtins.set", "__builtin__.set", "builtins.int", "builtins.list", "builtins.dict", "typing.Any"),
            *("torch.device", "torch.float16", "torch.float32", "torch.bfloat16"),
            *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.Path"),
            *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
            *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "_codecs.encode"),
            *("argparse.Namespace", "collections.defaultdict"),
        }
    ),
    packages=("omegaconf.", "pytorch_lightning.", "lightning.", "lightning_fabric.", "mmengine.", "mmcv."),
)


def allowed() -> Allowed:
    """What pickles of any family may name beside tensors."""
    return Allowed(
        TRAINERS.names.union(*(family.allowed.names for family in FAMILIES)),
        TRAINERS.packages + tuple(package for family in FAMILIES for package in family.allowed.packages),
    )


def read_foreign(path: str | Path, also: tuple[str, ...] = ()) -> ForeignModel:
    """A detector of another program, by the family that recognises its file; none of the file's code is run.

    Raises CheckpointError with the file, what was recognised, the reason and what to do for one that is missing,
    damaged, unsafe or of no family, and ConfigError where a package that its kind of file needs is not installed.
    `also` is what the caller takes beside, for the message.
    """
    path = Path(path)
    advice = f"give {', or '.join((*also, *(family.reads for family in FAMILIES)))}"
    if not is_file(path):
        raise CheckpointError(f"{path}: no such file; {advice}")
    family: Family | None = None
    try:
        with files.opened(path, allowed()) as file:
            family = next((family for family in FAMILIES if family.recognises(file)), None)
            if family is None:
                raise Refusal(f"it holds {file.summary()}, which no detector that can be read has")
            return family.read(file)
    except UserError:
        raise
    except Refusal as error:
        where = "refused" if family is None else f"refused as {family.name}"
        raise CheckpointError(f"{path}: {where}: {_line(error)}; {advice}") from error
    except Exception as error:  # bytes of any kind may be in there
        reason = f"not readable ({type(error).__name__}: {_line(error)[:150]})"
        raise CheckpointError(f"{path}: {reason}; {advice}") from error


def _line(error: Exception) -> str:
    """What an error says on one line, without what would steer a terminal: a file's names may be in it."""
    return "".join(c if c.isprintable() else " " for c in " ".join(str(error).split()))
