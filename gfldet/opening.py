"""What a `Model` is made from: the kind of a file, fresh weights of a model YAML, weights of other programs."""

from __future__ import annotations

from importlib.util import find_spec
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfldet.config.load import check, resolve
from gfldet.detect.card import FORMAT
from gfldet.errors import ConfigError, counted, listed
from gfldet.files import is_file, size
from gfldet.messages import teller

if TYPE_CHECKING:
    from gfldet.nn.tasks import DetectionModel


def is_foreign(path: str) -> bool:
    """Whether an ONNX file is there and bears no mark of our exports."""
    file = Path(path)
    if file.suffix != ".onnx" or not is_file(file):
        return False
    if size(file) == 0:
        return True
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
        return content.rfind(FORMAT.encode()) < 0  # from the end, where the card is: not all of it is read


def need_torch(what: str) -> None:
    """ConfigError where torch is not installed."""
    if find_spec("torch") is None:
        raise ConfigError(
            f"{what}: torch is not installed here; pip install torch torchvision. Without it, files that were exported "
            "(.onnx, .xml) predict and validate"
        )


def import_weights(weights: str | Path, out: str | Path = "", **settings: Any) -> Path:
    """Bring in weights of another program as a checkpoint of ours; its path.

    Which families of files are read, `gfldet.imports.registry.FAMILIES` says.  The file is read without running
    anything in it.  Without `out` the checkpoint is NAME-gfldet.pt beside it.  All
    settings: `gfldet import --help`.
    """
    resolved = resolve("import", {**settings, "weights": weights, "out": out})
    need_torch("import")
    from gfldet.imports.registry import read_foreign
    from gfldet.imports.save import check_out, save_imported

    file = Path(resolved.weights)
    target = check_out(resolved.out or file.with_name(f"{file.stem}-gfldet.pt"), resolved.exist_ok)
    foreign = read_foreign(file)
    save_imported(foreign, target, resolved.exist_ok)
    tell = teller(resolved.verbose)
    tell(f"{foreign.description.name}: {counted(len(foreign.names), 'class')} ({', '.join(foreign.names)})")
    tell(
        f"licence: these weights are not gfldet's; their own, {foreign.licence or 'which the file does not tell'}, "
        "holds for them and for what is trained from them"
    )
    return target


def fresh(name: str) -> DetectionModel:
    """The model of a YAML, by name or path, with fresh weights."""
    from gfldet.config.assets import resolve_model_yaml
    from gfldet.nn.build import read_description
    from gfldet.nn.tasks import DetectionModel

    path, scale = resolve_model_yaml(name)
    description = read_description(path, scale)
    _, problems = check("train", description.preferred)
    if problems:
        raise ConfigError(listed(f"model YAML {path}:", problems, "gfldet train --help lists these settings."))
    try:
        return DetectionModel(description)
    except ConfigError as error:  # its rows are right one by one, but they do not fit together
        raise ConfigError(f"{path}: {error}") from error
