"""Every kind of file that a user may give, with good ones to damage and the readers to give them to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzzing import good, mutations
from gfldet.errors import GfldetError

LONGEST = 100_000  # letters of a message
Chance = Random


class Fault(Exception):
    """A reader ended in neither a value nor an error that names the file."""


@dataclass(frozen=True)
class Family:
    """Files of one kind.

    make    writes good ones into a folder
    read    gives what is in the folder to its readers; the same chance may choose among their arguments
    files   patterns of those to damage
    damage  what is done to one of them
    slow    whether a case takes so long that property tests try fewer of them
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path, Chance], None]
    files: tuple[str, ...]
    damage: Callable[[Path, Chance], None] = mutations.damage
    slow: bool = False


def run_case(family: Family, good_folder: Path, folder: Path, chance: Chance) -> None:
    """Damages a copy of the good files and reads it, from within its folder; raises whatever a reader should not."""
    mutations.prepare(good_folder, folder)
    there = sorted(path for pattern in family.files for path in folder.glob(pattern))
    for path in dict.fromkeys(chance.choice(there) for _ in range(chance.choice((1, 1, 1, 2)))):
        if path.exists():  # a family may leave one file alone
            family.damage(path, chance)
    before = Path.cwd()
    os.chdir(folder)
    try:
        family.read(folder, chance)
    finally:
        os.chdir(before)


def attempt(names: str | Path | tuple[str, ...], reader: Callable[[], Any]) -> Any:
    """What a reader gives; None where it refuses, in a message of bounded length with one of `names` in it."""
    try:
        return reader()
    except GfldetError as error:
        message = str(error)
        wanted = names if isinstance(names, tuple) else (str(names),)
        if not any(name in message for name in wanted):
            raise Fault(f"the message names none of {wanted}") from error
        if len(message) > LONGEST:
            raise Fault(f"the message has {len(message)} letters") from error
        if any(not c.isprintable() and c != "\n" and not "\ud800" <= c <= "\udfff" for c in message):
            raise Fault("the message has letters that steer a terminal") from error
        return None


# ---------------------------------------------------------------- data sets


def _read_data(folder: Path, chance: Chance) -> None:
    from gfldet.data.spec import load_spec
    from gfldet.data.split import load_split

    on_bad: Any = chance.choice(("error", "skip"))
    names = (str(folder), "/: is the root of the file system")  # which a YAML may name in place of a folder
    spec = attempt(names, lambda: load_spec(folder / "data.yaml"))
    for split in ("train", "val") if spec is not None else ():
        attempt(names, partial(load_split, spec, split, on_bad, workers=1))


# ---------------------------------------------------------------- models and settings


def _read_model_yaml(folder: Path, chance: Chance) -> None:
    from gfldet.model import Model

    name = str(folder / chance.choice(("net.yaml", "net-s.yaml", "net-n", "nets.yaml")))
    attempt(str(folder), lambda: Model(name))


def _read_settings(folder: Path, chance: Chance) -> None:
    from gfldet.config.load import dump, resolve
    from gfldet.config.schema import COMMANDS, settings_of

    command = chance.choice(("train", "val", "predict", "export", "import"))
    given: dict[str, Any] = {"predict": {"source": "x"}, "import": {"weights": "x"}}.get(command, {})
    given = {**given, "cfg": str(folder / "mine.yaml")}
    names = [setting.name for setting in settings_of(COMMANDS[command])]
    odd = chance.choice(names)
    if chance.randrange(2):
        given[odd] = chance.choice(mutations.WORDS)
    elif chance.randrange(2):
        given[odd] = mutations.value(chance)
    settings = attempt(("mine.yaml", odd), lambda: resolve(command, given))
    if settings is not None:
        dump(settings)


def _read_results(folder: Path, chance: Chance) -> None:
    from gfldet.data.records import Record, Records, Split
    from gfldet.errors import DataError
    from gfldet.files import read_json
    from gfldet.metrics.table import read_results
    from gfldet.train.observers import _rows
    from gfldet.viz.plots import read_columns

    _rows(folder / "results.csv", chance.choice((0, 2, 10**6)))
    attempt("results.csv", lambda: read_columns(folder / "results.csv"))
    found = attempt("predictions.json", lambda: read_json(folder / "predictions.json", DataError))
    if isinstance(found, list):
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        records = Records.of(Record(Path("a.png"), i, "a.png", 9, 9, *none, *none) for i in (1, "b"))
        attempt("etection", lambda: read_results(Split("val", records, ("red",), (0,), ()), found))


# ---------------------------------------------------------------- pictures and sources


def _read_images(folder: Path, chance: Chance) -> None:
    from gfldet.data.images import check_header, probe_size, read_image

    for path in sorted(path for path in folder.iterdir() if path.name.startswith(tuple("aldptc"))):
        if path.name not in (mutations.PIPE, mutations.LOOP):
            for reader in (read_image, probe_size, check_header):
                attempt(str(path), partial(reader, path))


def _damage_images(path: Path, chance: Chance) -> None:
    for other in path.parent.iterdir():
        if other != path and other.name not in (mutations.PIPE, mutations.LOOP):
            other.unlink()
    mutations.damage(path, chance)


def _read_sources(folder: Path, chance: Chance) -> None:
    from gfldet.data.sources import iter_source

    names = ("list.txt", "list.txt", "video.avi", "video.mp4", ".", "*", "**/*.png", "a.png")
    source: Any = chance.choice((*names, mutations.PIPE, mutations.LOOP))
    if chance.randrange(4) == 0:
        source = chance.choice([word for word in mutations.WORDS if not word.isdecimal()])  # which would be a camera
        source = chance.choice((source, ["a.png", source], [[source]]))
    on_bad: Any = chance.choice(("error", "skip"))
    # A list's lines may be any, and are named as they are.
    attempt("", lambda: [frame.image.shape for frame in iter_source(source, 1, on_bad)])


# ---------------------------------------------------------------- weights


def _read_checkpoint(folder: Path, chance: Chance) -> None:
    from gfldet.config.load import resolve
    from gfldet.model import VALIDATED_WITH, Model

    path = str(folder / "best.pt")
    model = attempt(path, lambda: Model(path))
    if model is not None:
        restored = model._trained_with(VALIDATED_WITH)
        attempt("best.pt", lambda: resolve("val", {"model": path}, restored=restored, file=path))
        blank = np.zeros((good.SIZE, good.SIZE, 3), np.uint8)
        attempt("best.pt", lambda: model.predict(blank, imgsz=good.SIZE, verbose=False, device="cpu", threads=1))


def _damage_checkpoint(path: Path, chance: Chance) -> None:
    """Half of the cases: a sound archive of a payload with odd values."""
    if chance.randrange(2):
        mutations.damage(path, chance)
        return
    import torch

    payload = torch.load(path, weights_only=True)
    weights = payload.pop("weights")
    payload = mutations.restructured(payload, chance)
    if isinstance(payload, dict) and chance.randrange(3):
        names = list(weights)
        odd = torch.tensor([float("nan")]), torch.zeros(0), torch.zeros(2, 3, dtype=torch.int8), 3, "x", None, [1]
        for _ in range(chance.choice((0, 0, 1, 3))):
            weights[chance.choice(names)] = chance.choice(odd)
        payload["weights"] = weights
    torch.save(payload, path)


def _read_onnx(folder: Path, chance: Chance) -> None:
    from gfldet.detect import exported
    from gfldet.detect.detector import Selection

    for path in sorted(folder.glob("*.onnx")):
        detector = attempt(str(path), partial(exported.load, path, "cpu", 1))
        if detector is None or (detector.frame or (good.SIZE, good.SIZE)) > (2000, 2000):
            continue
        frames = np.zeros((1, *(detector.frame or (good.SIZE, good.SIZE)), 3), np.uint8)

        def found(detector: Any = detector, frames: Any = frames) -> Any:
            return detector.select(detector.infer(frames), Selection(0.1, 0.5, 10))

        attempt(str(path), found)


def _damage_onnx(path: Path, chance: Chance) -> None:
    """Two thirds of the cases: a sound graph with odd entries in its card."""
    for other in path.parent.glob("*.onnx"):
        if other != path:
            other.unlink()
    if chance.randrange(3) == 0:
        mutations.damage(path, chance)
        return
    import onnx

    graph = onnx.load(str(path))
    for _ in range(chance.choice((1, 1, 2))):
        entry = chance.choice(list(graph.metadata_props))
        try:
            text = mutations.written(mutations.value(chance), ".json").decode("utf-8", "replace")
            entry.value = chance.choice((text, str(chance.choice(mutations.WORDS)), text.strip('"')))
        except (UnicodeEncodeError, ValueError):
            entry.value = ""
    path.write_bytes(graph.SerializeToString())


def _read_foreign(folder: Path, chance: Chance) -> None:
    from gfldet.model import Model

    for path in sorted(folder.iterdir()):
        if path.suffix in (".pt", ".pth", ".onnx"):
            attempt(str(path), partial(Model, path))


def _damage_foreign(path: Path, chance: Chance) -> None:
    for other in path.parent.iterdir():
        if other != path and other.name not in (mutations.PIPE, mutations.LOOP):
            other.unlink()
    if chance.randrange(2) or path.suffix == ".onnx":
        mutations.damage(path, chance)
        return
    import torch

    tree = {"a": torch.zeros(2), "b": [1, {"c": "d"}], "model": {"x.weight": torch.zeros(2, 2)}}
    torch.save(mutations.restructured(torch.load(path, weights_only=True) | tree, chance), path)


FAMILIES: tuple[Family, ...] = (
    Family("yolo", good.yolo, _read_data, ("data.yaml", "val.txt", "labels/*", "images/*")),
    Family("coco", good.coco, _read_data, ("data.yaml", "*.json", "*.json", "*.json", "images/*")),
    Family("voc", good.voc, _read_data, ("data.yaml", "ImageSets/*", "Annotations/*", "Annotations/*", "JPEGImages/*")),
    Family("data-yaml", good.yolo, _read_data, ("data.yaml",)),
    Family("model-yaml", good.model_yaml, _read_model_yaml, ("net.yaml",)),
    Family("settings", good.settings, _read_settings, ("mine.yaml",)),
    Family("results", good.results, _read_results, ("results.csv", "predictions.json")),
    Family("images", good.images, _read_images, ("*.*",), _damage_images),
    Family("sources", good.sources, _read_sources, ("*.*",)),
    Family("checkpoint", good.checkpoint, _read_checkpoint, ("best.pt",), _damage_checkpoint, slow=True),
    Family("onnx", good.onnx, _read_onnx, ("*.onnx",), _damage_onnx, slow=True),
    Family("foreign", good.foreign, _read_foreign, ("*.pt", "*.pth", "*.onnx"), _damage_foreign, slow=True),
)
BY_NAME = {family.name: family for family in FAMILIES}
