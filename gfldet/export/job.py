"""One export, from settings to a file: built in a temporary folder, compared with torch, then moved to its target."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gfldet.config.schema import ExportSettings
from gfldet.data.gather import open_image
from gfldet.data.records import spread
from gfldet.data.spec import DataSpec, load_spec
from gfldet.data.split import index_split
from gfldet.detect import exported
from gfldet.detect.card import WEIGHTS_LICENCE, Card, Layout
from gfldet.detect.detector import Selection
from gfldet.detect.torch_detector import for_inference
from gfldet.errors import ConfigError, DataError, OutputError, listed
from gfldet.export import onnx, openvino, quantise, web
from gfldet.export.parity import compare
from gfldet.files import exists, is_folder
from gfldet.messages import Tell, teller, warn
from gfldet.nn.tasks import DetectionModel
from gfldet.ops.letterbox import check_frame
from gfldet.ops.tiles import Tiles
from gfldet.store.runs import check_writable, written_here

COMPARED_IMAGES = 6
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "web": "-web"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported: the model, where it comes from, the ids of its classes in the user's files, its licence, the
    data set that it was trained on, if known, and the tiles of that training, as the card has them."""

    model: DetectionModel
    source: str
    category_ids: tuple[int, ...]
    licence: str = WEIGHTS_LICENCE
    data: str | None = None
    tiles: tuple[int, float, bool] | None = None


def export(subject: Subject, settings: ExportSettings) -> Path:
    """Write the file that the settings ask for and return its path.

    Raises UserError, before any work, if settings contradict each other, the target exists or data cannot be read.
    Raises WorkError if the file differs from the torch model or, with int8, loses more AP than `max_drop`.  In both
    cases no file is left behind.
    """
    card = make_card(subject, settings)
    onnx.import_onnx()
    if settings.format == "openvino":
        openvino.import_openvino()
    target = target_path(subject.source, settings)
    with written_here(target):
        target_path(subject.source, settings)  # again, now that no other export can come between
        return _write(subject, card, settings, target)


def _write(subject: Subject, card: Card, settings: ExportSettings, target: Path) -> Path:
    """Make the file beside `target`, move it there and tell what it is."""
    tell = teller(settings.verbose)
    if settings.int8:
        int8_data(subject, settings)  # finds mistakes in the data now, not after minutes
    images = compared_images(subject, settings, tell)
    try:
        with tempfile.TemporaryDirectory(prefix=".gfldet-export-", dir=target.parent) as folder:
            made = build(subject, card, settings, Path(folder), images, tell)
            move(made, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error}); choose another out=") from error
    tell(f"{card.model}: {', '.join(described(card))}")
    tell(f"licence: {card.licence}")
    return target


def make_card(subject: Subject, settings: ExportSettings) -> Card:
    """The card of the file, made from the settings; one ConfigError lists all settings that contradict each other."""
    model = subject.model
    selects = settings.nms or settings.format == "web"
    layout: Layout = "detections" if selects else "decoded" if settings.decode else "raw"
    dynamic = settings.dynamic
    if settings.format == "web" and "dynamic" not in settings.explicit:
        dynamic = "all"
    problems = []
    if selects and not settings.decode:
        problems.append("decode=false with detections inside the graph: detections need decoded boxes; leave one out")
    if settings.half and settings.int8:
        problems.append("half=true with int8=true: a file computes in one precision; leave one out")
    if problems:
        raise ConfigError(listed("These choices make no sense together:", problems, "Leave out what is not needed."))
    idle = sorted({"conf", "iou", "max_det", "agnostic_nms"} & settings.explicit) if not selects else []
    idle += ["batch"] if dynamic != "none" and "batch" in settings.explicit else []
    if idle:
        warn(f"{', '.join(idle)}: without effect on this file; they are chosen when the file is run (see nms, dynamic)")
    check_frame(settings.height_width, model.multiple)
    selection = Selection(**settings.selection()) if selects else Selection(0.0, 1.0, 0)
    return Card(
        names=tuple(model.names.values()),
        category_ids=subject.category_ids,
        imgsz=settings.height_width,
        strides=model.strides,
        multiple=model.multiple,
        reg_max=model.reg_max,
        layout=layout,
        dynamic=dynamic,  # type: ignore[arg-type]
        batch=settings.batch if "batch" in settings.explicit and dynamic == "none" else 1,
        end2end=model.end2end,
        conf=selection.conf,
        iou=selection.iou,
        max_det=selection.max_det,
        agnostic=selection.agnostic,
        precision="int8" if settings.int8 else "float16" if settings.half else "float32",
        sample_bits=settings.sample_bits,
        tiles=subject.tiles,
        model=model.description.name,
        licence=subject.licence,
    )


def target_path(source: str, settings: ExportSettings) -> Path:
    """The file or folder to write: `out`, or the name of the checkpoint with another suffix, in the same folder.

    For a model of cfg/models this is the current folder.  Raises OutputError if the target exists (unless `exist_ok`),
    has a wrong suffix, or could not be written.
    """
    suffix = SUFFIX[settings.format]
    beside = Path(source) if source.endswith(".pt") else Path(Path(source).name)
    target = Path(settings.out) if settings.out else beside.with_name(f"{beside.stem}{suffix}")
    if suffix.startswith(".") and target.suffix != suffix:
        raise OutputError(f"out={target}: format={settings.format} writes a {suffix} file; end the name in {suffix}")
    for path in (target, target.with_suffix(".bin")) if suffix == ".xml" else (target,):
        if exists(path) and not settings.exist_ok:
            raise OutputError(f"{path} exists; choose another out=, or exist_ok=true to write over it")
    if exists(target) and is_folder(target) != (settings.format == "web"):
        raise OutputError(f"{target}: is a {'folder' if is_folder(target) else 'file'}; choose another out=")
    check_writable(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def compared_images(subject: Subject, settings: ExportSettings, tell: Tell) -> list[NDArray[np.uint8]]:
    """A few images to compare on, of `data`, else of the training data if these can be read, else of the shapes.

    They come from the val split, or from train if there is no val.  Raises DataError if `data` cannot be read.
    """
    wanted = data_of(subject, settings)
    if wanted is not None:
        try:
            spec = load_spec(wanted, settings.val_share)
            items = index_split(spec, "train" if spec.val is None else "val").items
            tell(f"compared on images of {spec.source}")
            return [open_image(item.path, bits=settings.sample_bits) for item in spread(items, COMPARED_IMAGES)]
        except DataError as error:
            if "data" in settings.explicit:
                raise
            warn(f"the training data cannot be read; the built-in shapes are used ({str(error).splitlines()[0]})")
    else:
        tell("compared on the built-in shapes; give data= for images of your own")
    return [open_image(item.path) for item in index_split(load_spec("shapes"), "val").items[:COMPARED_IMAGES]]


def build(
    subject: Subject,
    card: Card,
    settings: ExportSettings,
    folder: Path,
    images: Sequence[NDArray[np.uint8]],
    tell: Tell,
) -> Path:
    """Make the finished file or folder inside `folder`, compare it with torch, and return its path."""
    fused = for_inference(subject.model, torch.device("cpu"))
    # OpenVINO stores weights in float16 but chooses the precision of computation itself, so it gets a float32 graph.
    half = settings.half and settings.format != "openvino"
    float_card = replace(card, precision="float16" if half else "float32")
    bare_card = replace(float_card, layout="raw" if card.layout == "raw" else "decoded")
    bare_file, final_file = folder / "bare.onnx", folder / "final.onnx"
    graph = onnx.to_graph(for_inference(subject.model, torch.device("cpu")).model, bare_card)
    onnx.save(graph, bare_card, bare_file)
    if card.layout == "detections":
        onnx.save(onnx.with_selection(graph, card), float_card, final_file)
    else:
        final_file = bare_file
    bare = exported.load(bare_file, "cpu", settings.threads)
    final = exported.load(final_file, "cpu", settings.threads) if final_file != bare_file else bare
    parity = compare(fused, bare, final, images)
    tell(str(parity))
    if not parity.detections:
        warn("nothing was found in the images of the comparison, so no detection was compared; give other data=")
    if settings.int8:
        float_file, final_file = final_file, folder / "int8.onnx"
        spec = int8_data(subject, settings)
        tiles = None if card.tiles is None else Tiles(*card.tiles)
        calibration = quantise.calibration_images(spec, settings.calibration, settings.sample_bits, tiles)
        quantise.quantised(float_file, card, predicting_weights(subject.model), calibration, final_file)
        quantise.check_drop(float_file, final_file, spec, settings, tiles)
    if settings.format == "openvino":
        final_file = openvino.convert(final_file, card, folder / "model.xml")
        if not settings.int8:
            final = exported.load(final_file, "cpu", settings.threads)
            tell(f"OpenVINO: {compare(fused, bare if card.layout == 'detections' else final, final, images)}")
    if settings.format == "web":
        return web.write(final_file, card, folder / "web")
    return final_file


def data_of(subject: Subject, settings: ExportSettings) -> str | None:
    """The data YAML that the user gives, else that of the training run, if known."""
    return settings.data if "data" in settings.origins else subject.data


def int8_data(subject: Subject, settings: ExportSettings) -> DataSpec:
    """The data set that int8 is calibrated and measured on; ConfigError if none is known."""
    wanted = data_of(subject, settings)
    if wanted is None:
        raise ConfigError("int8=true: needs images to calibrate on; give data=, the data YAML of the training run")
    return load_spec(wanted, settings.val_share)


def predicting_weights(model: DetectionModel) -> list[str]:
    """The names that the graph gives to the weights of the prediction layers."""
    ours = {id(weight) for weight in model.predicting()}
    return [f"model.{name}" for name, weight in model.named_parameters() if id(weight) in ours]


def move(made: Path, target: Path) -> None:
    """Move the finished file or folder to `target`; an OpenVINO .xml takes its .bin with it.

    If `target` is a folder that exists, files of the same names are replaced, and nothing else is touched.
    """
    if made.is_dir() and target.exists():
        for part in made.iterdir():
            os.replace(part, target / part.name)
        return
    if made.suffix == ".xml":
        os.replace(made.with_suffix(".bin"), target.with_suffix(".bin"))
    os.replace(made, target)


def described(card: Card) -> list[str]:
    """The file in a few words for the terminal."""
    height, width = card.imgsz
    size = {"none": f"{card.batch} x {height} x {width} px", "batch": f"any number of {height} x {width} px"}
    return [size.get(card.dynamic, "any number and size"), f"outputs {card.layout}", card.precision]
