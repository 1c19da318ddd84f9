"""Exports from checkpoint to file: equal to torch or not there at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfldet import Model, cli
from gfldet.config.assets import resolve_model_yaml
from gfldet.config.load import resolve
from gfldet.detect import exported
from gfldet.detect.card import OUTPUTS, Card
from gfldet.detect.torch_detector import for_inference
from gfldet.errors import CheckpointError, ConfigError, DataError, Notice, OutputError, WorkError
from gfldet.export import job, onnx, parity, quantise
from gfldet.nn.build import read_description
from gfldet.nn.tasks import DetectionModel
from gfldet.results import Results

Write = Callable[..., Path]
Spread = Callable[[DetectionModel], DetectionModel]
QUIET: dict[str, Any] = {"verbose": False, "threads": 1}


def same(ours: list[Results], theirs: list[Results], px: float = 0.1, score: float = 1e-3) -> int:
    """Whether two runs found the same; how much that was."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.path == b.path
        np.testing.assert_allclose(a.boxes.conf, b.boxes.conf, atol=score)
        np.testing.assert_allclose(a.boxes.xyxy, b.boxes.xyxy, atol=px)
        np.testing.assert_array_equal(a.boxes.cls, b.boxes.cls)
    return sum(len(one.boxes) for one in ours)


@pytest.mark.parametrize(
    "how",
    [
        {},
        pytest.param({"batch": 2}, marks=pytest.mark.long),
        pytest.param({"dynamic": "batch"}, marks=pytest.mark.long),
        {"dynamic": True},
        {"decode": False, "dynamic": True},
        {"nms": True, "dynamic": True},
        pytest.param({"nms": True, "agnostic_nms": True, "iou": 0.4, "max_det": 50}, marks=pytest.mark.long),
        {"format": "openvino", "dynamic": True},
        pytest.param({"format": "openvino", "nms": True}, marks=pytest.mark.long),
    ],
)
def test_the_file_finds_what_the_checkpoint_finds(
    checkpoint: Write, pictures: list[np.ndarray], tmp_path: Path, how: dict[str, Any]
) -> None:
    best = checkpoint()
    file = Model(best).export(**how, **QUIET)
    assert file == best.with_suffix(".xml" if "format" in how else ".onnx")
    exported, whole = Model(file), Model(best)
    assert exported.names == {0: "red", 1: "blue"}
    given = {"conf": 0.3, "max_det": 50, **QUIET}
    if how.get("dynamic") is True:
        given["imgsz"] = 96
    else:  # one frame alone, to which torch pads square pictures only
        pictures = [p for p in pictures if p.shape[0] == p.shape[1]]
    chosen = {name: how[name] for name in ("iou", "agnostic_nms") if name in how}
    theirs = [exported.predict(p[..., ::-1], **given)[0] for p in pictures]
    ours = [whole.predict(p[..., ::-1], **given, **chosen)[0] for p in pictures]
    assert same(ours, theirs) > 5 * len(pictures)
    if chosen:
        with pytest.warns(Notice, match=r"agnostic_nms, iou: without effect; .* chooses detections itself"):
            exported.predict(pictures[0], **given, **chosen)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[] if path.stem == "gfldet" else [pytest.mark.long])
        for path in sorted(resolve_model_yaml("gfldet")[0].parent.glob("*.yaml"))
    ],
)
def test_every_model_of_cfg(spread: Spread, name: str, pictures: list[np.ndarray], tmp_path: Path) -> None:
    path, scale = resolve_model_yaml(name)
    model = spread(DetectionModel(read_description(path, scale, nc=3), ["a", "b", "c"]))
    how = {"dynamic": True, "nms": True} if name.startswith("gfldet") else {}  # ResNets take their time
    settings = resolve("export", {"imgsz": 64, **how})
    subject = job.Subject(model, name, (0, 1, 2))
    card = job.make_card(subject, settings)
    assert card.end2end == ("e2e" in name)
    told: list[str] = []
    file = job.build(subject, card, settings, tmp_path, pictures, told.append)
    assert exported.load(file).card == card
    assert "equal to torch on" in told[0]
    assert not told[0].endswith(" 0 detections")


@pytest.mark.long
def test_heads_of_every_kind(spread: Spread, tiny_yaml: Path, pictures: list[np.ndarray], tmp_path: Path) -> None:
    for line in ("dgqp: true", "reg_max: 1", "end2end: true"):
        text = tiny_yaml.read_text("utf-8")
        kept = [row for row in text.splitlines() if row.split(":")[0] != line.split(":")[0]]
        yaml = tmp_path / "model.yaml"
        yaml.write_text("\n".join([line, *kept]), encoding="utf-8")
        model = spread(DetectionModel(read_description(yaml), ["red", "blue"]))
        subject = job.Subject(model, "model.yaml", (0, 1))
        for more in ({"nms": True}, {"decode": False}):
            settings = resolve("export", {"imgsz": 64, "dynamic": True, **more})
            job.build(subject, job.make_card(subject, settings), settings, tmp_path, pictures, print)


@pytest.mark.long
def test_half_precision(checkpoint: Write, pictures: list[np.ndarray], tmp_path: Path) -> None:
    best = checkpoint()
    whole = Model(best).export(out=str(tmp_path / "whole.onnx"), **QUIET)
    half = Model(best).export(out=str(tmp_path / "half.onnx"), half=True, **QUIET)
    assert half.stat().st_size < whole.stat().st_size
    found = exported.load(half)
    assert found.card.precision == "float16"
    outputs = found.infer(pictures[0][None])
    assert {name: value.dtype for name, value in outputs.items()} == dict.fromkeys(outputs, np.dtype(np.float32))


@pytest.mark.long
def test_names_of_inputs_and_outputs(checkpoint: Write) -> None:
    import onnx as package

    best = checkpoint()
    for layout, how in (("raw", {"decode": False}), ("decoded", {}), ("detections", {"nms": True})):
        graph = package.load(str(Model(best).export(**how, **QUIET, exist_ok=True))).graph
        assert [i.name for i in graph.input] == ["images"]
        assert [o.name for o in graph.output] == list(OUTPUTS[layout])  # type: ignore[index]


@pytest.mark.long
def test_a_comparison_without_a_detection_is_told(
    checkpoint: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pictures: list[np.ndarray]
) -> None:
    grey = [np.full_like(picture, 114) for picture in pictures]
    monkeypatch.setattr(job, "compared_images", lambda *_: grey)
    monkeypatch.setattr(parity, "MIN_DETECTION_SCORE", 1.0)
    Model(checkpoint()).export(threads=1)
    assert "warning: nothing was found in the images of the comparison" in capsys.readouterr().err


def test_the_training_data_are_compared_on(
    checkpoint: Write, dataset: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data = dataset()
    Model(checkpoint(data.yaml)).export(threads=1)
    told = capsys.readouterr()
    assert f"compared on images of {data.yaml}" in told.out
    assert "equal to torch on" in told.out
    assert "gfldet is Apache-2.0" in told.out
    data.yaml.unlink()
    Model(checkpoint(data.yaml)).export(threads=1, exist_ok=True)
    assert "the training data cannot be read; the built-in shapes are used" in capsys.readouterr().err
    with pytest.raises(DataError):
        Model(checkpoint(data.yaml)).export(data=str(data.yaml), **QUIET, exist_ok=True)


@pytest.mark.parametrize("what", ["weights", pytest.param("choice", marks=pytest.mark.long)])
def test_a_graph_that_differs_is_not_written(
    checkpoint: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    """Weights of one input channel that are .01 off, and an NMS that is left out."""
    best = checkpoint()
    if what == "weights":
        to_graph = onnx.to_graph

        def spoilt(model: DetectionModel, card: Any) -> Any:
            next(model.parameters()).data[:, 0] += 0.01
            return to_graph(model, card)

        monkeypatch.setattr(onnx, "to_graph", spoilt)
    else:
        monkeypatch.setattr(onnx, "BY_NMS", onnx.BY_SCORE)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WorkError, match=r"differs from the torch model on frames of .* Nothing was written"):
        Model(best).export(nms=True, **QUIET)
    assert sorted(tmp_path.iterdir()) == before


def test_targets(checkpoint: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(subject: job.Subject, card: Any, settings: Any, folder: Path, *_: Any) -> Path:
        """Where the file goes has nothing to do with what is in it."""
        made = folder / "made.onnx"
        made.write_text(card.layout)
        return made

    monkeypatch.setattr(job, "build", build)
    best = checkpoint()
    file = Model(best).export(**QUIET)
    first = file.read_bytes()
    with pytest.raises(OutputError, match=r"best\.onnx exists; choose another out=, or exist_ok=true"):
        Model(best).export(**QUIET)
    assert Model(best).export(nms=True, exist_ok=True, **QUIET).read_bytes() != first
    with pytest.raises(OutputError, match=r"format=onnx writes a \.onnx file"):
        Model(best).export(out=str(tmp_path / "x.xml"), **QUIET)
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(OutputError, match=r"a\.onnx: is a folder"):
        Model(best).export(out=str(tmp_path / "a.onnx"), exist_ok=True, **QUIET)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        Model(best).export(out=str(tmp_path / "file" / "x.onnx"), **QUIET)
    (tmp_path / "y.bin").write_text("mine")
    with pytest.raises(OutputError, match=r"y\.bin exists"):
        Model(best).export(format="openvino", out=str(tmp_path / "y.xml"), **QUIET)
    assert (tmp_path / "y.bin").read_text() == "mine"
    monkeypatch.chdir(tmp_path)
    assert Model("gfldet-n").export(imgsz=64, **QUIET) == Path("gfldet-n.onnx")


INTERRUPTED = """
import signal, sys
from pathlib import Path
from gfldet.detect import exported
signal.signal(signal.SIGINT, signal.default_int_handler)
files = [exported.load(Path(sys.argv[1]), "cpu", 1) for _ in range(2)]
del files[0]
files.clear()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.long
def test_a_process_that_had_two_openvino_files_can_be_interrupted(checkpoint: Write) -> None:
    pytest.importorskip("openvino")
    file = Model(checkpoint()).export(format="openvino", **QUIET)
    command = [sys.executable, "-c", INTERRUPTED, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@pytest.mark.long
def test_what_else_is_in_a_folder_stays(checkpoint: Write, tmp_path: Path) -> None:
    best = checkpoint()
    folder = Model(best).export(format="web", **QUIET)
    assert folder == best.with_name("best-web")
    (folder / "node_modules").mkdir()
    (folder / "mine.txt").write_text("mine")
    (folder / "model.onnx").write_text("old")
    Model(best).export(format="web", exist_ok=True, **QUIET)
    assert (folder / "mine.txt").read_text() == "mine"
    assert (folder / "node_modules").is_dir()
    assert (folder / "model.onnx").stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.long
def test_a_very_low_threshold(checkpoint: Write) -> None:
    """As it is written into the graph's text."""
    assert exported.load(Model(checkpoint()).export(nms=True, conf=1e-5, iou=1, **QUIET)).card.conf == 1e-5


def test_choices_that_make_no_sense(checkpoint: Write, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(checkpoint())
    with pytest.raises(ConfigError, match="decode=false with detections inside the graph") as error:
        model.export(decode=False, nms=True, half=True, int8=True, **QUIET)
    assert "half=true with int8=true" in str(error.value)
    with pytest.raises(ConfigError, match="int8=true: needs images to calibrate on; give data="):
        model.export(int8=True, **QUIET)
    model.export(iou=0.5, dynamic=True, batch=4, **QUIET)
    assert "batch, iou: without effect" in capsys.readouterr().err.replace("iou, batch", "batch, iou")


def test_what_an_exported_file_is_not_for(checkpoint: Write, tmp_path: Path, pictures: list[np.ndarray]) -> None:
    file = Model(checkpoint()).export(**QUIET)
    for work in (lambda m: m.train(data="shapes"), lambda m: m.export(), lambda m: m.model):
        with pytest.raises(ConfigError, match=r"best\.onnx: an exported file predicts and validates, nothing else"):
            work(Model(file))
    with pytest.raises(ConfigError, match="takes frames of 64 x 64 px only"):
        Model(file).predict(pictures[0], imgsz=96, **QUIET)


def test_val_of_the_file_is_val_of_the_checkpoint(
    checkpoint: Write, dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = dataset(val=5)
    best = checkpoint(data.yaml)
    file = Model(best).export(dynamic=True, **QUIET)
    given = {"data": str(data.yaml), "plots": False, "batch": 2, **QUIET}
    ours, theirs = Model(best).val(**given), Model(file).val(**given)
    assert theirs.map == pytest.approx(ours.map, abs=1e-6)
    assert (tmp_path / "runs" / "val2" / "metrics.json").is_file()


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_processes_see_that_their_files_hold_other_weights(checkpoint: Write, format: str) -> None:
    """Also where they were made alike, and so have equal cards."""
    best, found = checkpoint(), []
    file = best.with_suffix(".onnx" if format == "onnx" else ".xml")
    for step in (0.0, 0.125):
        weights = torch.load(best, weights_only=True)
        next(value for value in weights["weights"].values() if value.ndim == 4).add_(step)
        torch.save(weights, best)
        Model(best).export(format=format, out=str(file), exist_ok=True, **QUIET)
        found += [Model(file)._likeness(), Model(file)._likeness()]
    assert found[0] == found[1] != found[2] == found[3]


def test_from_the_shell(checkpoint: Write, dataset: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset()
    best = checkpoint(data.yaml)
    assert cli.main(["export", f"model={best}", "nms=True", "dynamic=True", "threads=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Written: {best.with_suffix('.onnx')}"
    assert cli.main(["export", f"model={best}"]) == 2
    assert "exists; choose another out=" in capsys.readouterr().err
    (best.parent / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    source = f"source={best.parent / 'broken.png'}"
    assert cli.main(["predict", f"model={best.with_suffix('.onnx')}", source]) == 2
    assert "broken.png" in capsys.readouterr().err


@pytest.mark.long
def test_integers(
    checkpoint: Write, dataset: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx as package

    data = dataset()
    best = checkpoint(data.yaml)
    file = Model(best).export(int8=True, calibration=3, threads=1)
    assert "AP" in capsys.readouterr().out
    graph = package.load(str(file)).graph
    quantised = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    whole = [node for node in convolutions if node.input[1] not in quantised]
    assert len(convolutions) > len(whole) == 4  # two levels, boxes and classes
    assert exported.load(file).card.precision == "int8"
    monkeypatch.setattr(quantise, "_measured", lambda file, *rest: 0.5 if "int8" in file.name else 0.52)
    with pytest.raises(WorkError, match=r"a drop of 0.0200.*max_drop=0.01 is allowed. Nothing was written"):
        Model(best).export(int8=True, calibration=1, out=str(best.with_name("other.onnx")), **QUIET)
    assert not best.with_name("other.onnx").exists()
    monkeypatch.setattr(quantise, "_measured", lambda file, *rest: 0.52 if "int8" in file.name else 0.5)
    Model(best).export(int8=True, calibration=1, threads=1, out=str(best.with_name("gain.onnx")))
    assert "a gain of 0.0200" in capsys.readouterr().out
    empty = data.yaml.with_name("empty.yaml")
    (data.yaml.parent / "none").mkdir()
    empty.write_text("train: none\nval: images/val\nnames: [red, blue]\n", encoding="utf-8")
    with pytest.raises(DataError, match="none"):
        Model(best).export(int8=True, data=str(empty), out=str(best.with_name("other.onnx")), **QUIET)


def test_licence_of_weights_from_elsewhere(checkpoint: Write, tiny_yaml: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from gfldet.store import checkpoint as checkpoints

    foreign = tmp_path / "foreign.pt"
    checkpoints.save(foreign, replace(checkpoints.load(checkpoint()), licence="Theirs alone."))
    assert exported.load(Model(foreign).export(**QUIET)).card.licence == "Theirs alone."


def test_ties_are_excused_and_nothing_else() -> None:
    def found(*rows: tuple[float, float]) -> parity.Detections:
        boxes = np.array([[x, 0, x + 10, 10] for x, _ in rows], np.float32).reshape(-1, 4)
        return parity.Detections(boxes, np.array([s for _, s in rows], np.float32), np.zeros(len(rows), np.int64))

    limit, nms = parity.Tolerance(0.05, 1e-4), parity.Selection(0.1, 0.5, 3)
    count = parity._without_partner
    assert count(found((0, 0.9), (50, 0.5)), found((0.01, 0.9), (50, 0.50005)), limit, nms) == 0
    assert count(found((0, 0.9), (50, 0.5)), found((0, 0.9)), limit, nms) == 1
    assert count(found((0, 0.9)), found((1, 0.9)), limit, nms) == 0  # NMS took the one or the other
    assert count(found((0, 0.9), (50, 0.5)), found((1, 0.8), (50, 0.5)), limit, nms) == 0  # each because of the other
    assert count(found((0, 0.9)), found((0, 0.9), (1, 0.8)), limit, nms) == 1  # NMS was not done
    assert count(found((0, 0.9)), found((0, 0.9), (3.333, 0.8)), limit, nms) == 0  # IoU of .5, the threshold
    assert count(found((0, 0.9)), found((8, 0.8)), limit, nms) == 2
    assert count(found((0, 0.9), (50, 0.10005)), found((0, 0.9)), limit, nms) == 0  # at conf
    full = found((0, 0.9), (50, 0.8), (100, 0.7))
    assert count(full, found((0, 0.9), (50, 0.8), (150, 0.7)), limit, nms) == 0  # at the cut after max_det


def test_frames_of_every_kind(checkpoint: Write, pictures: list[np.ndarray]) -> None:
    subject = job.Subject(Model(checkpoint()).model, "best.pt", (0, 1))

    def card_of(**how: Any) -> Card:
        return job.make_card(subject, resolve("export", {"imgsz": 64, **how}))

    card = card_of(dynamic=True)
    shapes = [batch.shape[:3] for batch in parity.batches(pictures, card)]
    assert shapes == [(1, 64, 64), (3, 64, 64), (3, 32, 96), (1, 32, 64)]
    card = card_of(batch=2)
    assert [batch.shape[:3] for batch in parity.batches(pictures, card)] == [(2, 64, 64), (3, 64, 64)]


def test_the_model_is_left_as_it_was(checkpoint: Write) -> None:
    model = Model(checkpoint())
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    model.export(half=True, **QUIET)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    assert for_inference(model.model, torch.device("cpu")).device == "cpu"


def test_no_checkpoint_no_export(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        Model(tmp_path / "none.onnx")
