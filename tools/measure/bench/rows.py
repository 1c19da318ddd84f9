"""The measurements, one function for each part of the table.  Sides take turns, so that both meet the same weather."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from measure.bench.export import images_in
from measure.bench.growth import scale_rows
from measure.bench.others import libre_rows
from measure.bench.peer import peer_predictions, train_peer, words
from measure.bench.problem import draw
from measure.bench.score import average_precision
from measure.bench.setup import Bench
from measure.bench.sides import last_core
from measure.bench.table import Row
from measure.bench.waits import busy_rows, epoch_rows, memory_rows, predict_rows, val_rows

CLASSES, IMAGES, INPUT = 80, 8, 640  # of the assigner's problem; 640 px is also what models run at by default


def help_rows(bench: Bench) -> Iterator[Row]:
    """Time to the first word: the help of both programs."""
    ours, theirs = [], []
    bench.ours.seconds("--help"), bench.theirs.seconds("help")
    for _ in bench.times(9):
        ours.append(bench.ours.seconds("--help"))
        theirs.append(bench.theirs.seconds("help"))
    script = "import sys; from gfldet.cli import main; main(['--help']); print('torch' in sys.modules)"
    lean = bench.ours.run([str(bench.ours.python), "-c", script]).splitlines()[-1] == "False"
    what = "`gfldet --help` against `yolo help`"
    if lean:
        yield Row(what, "s", ours, theirs, target=15, note="ours imports no torch")
    else:
        yield Row(what, "s", ours, theirs, target=15, broken="ours imports torch")


def assigner_rows(bench: Bench) -> Iterator[Row]:
    """Task-aligned assignment of one batch: time, and the memory that a call adds at its peak."""
    for truths in (10, 200, 1000):
        path = bench.work / "problem.npz"
        draw(IMAGES, truths, CLASSES, INPUT, seed=0).save(path)
        request = {"problem": str(path), "threads": bench.threads, "repeats": 3, "size": INPUT}
        seconds: tuple[list[float], list[float]] = [], []
        memory: tuple[list[float], list[float]] = [], []
        for _ in bench.times(3):
            for side, (time, space) in zip((bench.ours, bench.theirs), zip(seconds, memory, strict=True), strict=True):
                answer = side.ask("assigner", **request)
                time += answer["seconds"]
                space.append(answer["memory"])
        what = f"assigner, {IMAGES} images x {truths:,} truths, {INPUT} px, {CLASSES} classes"
        target = 10 if truths == 1000 else None
        ours, theirs = ([1000 * second for second in side] for side in seconds)
        yield Row(f"{what}: time", "ms", ours, theirs, target=target)
        yield Row(f"{what}: memory", "MB", memory[0], memory[1], target=target, note="peak growth of one call")


def mosaic_rows(bench: Bench) -> Iterator[Row]:
    """Augmented training batches, made on one core, by its processor time: what else runs there does not count."""
    core = last_core()
    for imgsz in (640, 320):
        request = {"imgsz": imgsz, "batch": bench.batch, "at_least": 1.0 if bench.quick else 5.0, "core": core}
        ours: list[float] = []
        theirs: dict[str, list[float]] = {"": [], "ram": []}
        for _ in bench.times(3):
            ours.append(bench.ours.ask("mosaic", data=bench.data, **request)["rate"])
            for cache, rates in theirs.items():
                rates.append(bench.theirs.ask("mosaic", data=str(bench.peer_data), cache=cache, **request)["rate"])
        faster = max(theirs, key=lambda cache: sorted(theirs[cache])[len(theirs[cache]) // 2])
        yield Row(
            f"mosaic pipeline, one core, {imgsz} px",
            "images/s",
            ours,
            theirs[faster],
            more_is_better=True,
            target=2 if imgsz == 640 else None,
            note=f"peer's faster setting: cache={faster or 'False, its default'}",
        )


def train_rows(bench: Bench) -> Iterator[Row]:
    """The whole train command, defaults on both sides, for a number of epochs and for twice as many."""
    lengths = (bench.short, 2 * bench.short)
    ours: dict[int, list[float]] = {n: [] for n in lengths}
    theirs: dict[int, list[float]] = {n: [] for n in lengths}
    for turn in bench.times(1):
        for n in lengths:
            ours[n].append(_train_ours(bench, n, f"short{n}-{turn}"))
            theirs[n].append(_train_theirs(bench, n, f"short{n}-{turn}"))
    images = len(images_in(bench.data, "train").records)
    what = f"`train`, {bench.imgsz} px, batch {bench.batch}"
    for n in lengths:
        target = 2.5 if n == max(lengths) else None
        yield Row(f"{what}: whole command, {n} epochs", "s", ours[n], theirs[n], target=target)
    rates, peer_rates = (_rates(images, bench.short, side) for side in (ours, theirs))
    note = f"{images} images an epoch; from the difference of the two lengths, validation included"
    if 2 * bench.short <= 10:
        note += "; the peer leaves out mosaic in so short a run (its close_mosaic=10), gfldet in the last 15 %"
    yield Row(f"{what}: throughput", "images/s", rates, peer_rates, more_is_better=True, target=2.5, note=note)


def loss_rows(bench: Bench) -> Iterator[Row]:
    """How many times longer a training step of gfldet-n takes than the loss and the assigner in it."""
    shares = []
    for _ in bench.times(3):
        answer = bench.ours.ask("loss", data=bench.data, imgsz=bench.imgsz, batch=bench.batch, repeats=5)
        shares.append(median(answer["step"]) / median(answer["loss"]))
    what = f"training step over its loss and assigner, {bench.imgsz} px, batch {bench.batch}"
    yield Row(what, "x", shares, more_is_better=True, at_least=10, note="gradient of the loss included")


def _rates(images: int, short: int, wall: dict[int, list[float]]) -> list[float]:
    """Training images a second, start and end of the command taken out."""
    return [images * short / (b - a) for a, b in zip(wall[short], wall[2 * short], strict=True)]


def _train_ours(bench: Bench, epochs: int, name: str) -> float:
    where = {"data": bench.data, "project": bench.work / "runs" / "gfldet", "name": name}
    given = words(model="gfldet-n", epochs=epochs, device="cpu", **where, **bench.shared, **bench.own)
    return bench.ours.seconds("train", *given)


def _train_theirs(bench: Bench, epochs: int, name: str) -> float:
    return train_peer(bench.theirs, bench.peer_data, bench.work / "runs" / "peer", name, epochs=epochs, **bench.shared)


def runtime_rows(bench: Bench) -> Iterator[Row]:
    """Exported files: what `predict` takes beyond decoding the image and running the session, and its start."""
    formats = ["onnx", "openvino"]
    files = bench.ours.ask("export", data=bench.data, imgsz=INPUT, formats=formats, folder=str(bench.work))
    for imgsz in (INPUT, bench.imgsz):
        for format, file in files.items():
            request = {"data": bench.data, "imgsz": imgsz, "repeats": 2 if bench.quick else 7}
            answer = bench.ours.ask("runtime", file=file, **request)
            spared = [d + b for d, b in zip(answer["decoding"], answer["bare"], strict=True)]
            shares = [bare / whole for bare, whole in zip(spared, answer["whole"], strict=True)]
            note = f"{median(answer['whole']):.1f} ms an image, of these {median(spared):.1f} ms cannot be spared"
            what = f"`predict` of {format}, {imgsz} px: image decoding and bare session over the whole"
            at_least = 0.909 if imgsz == INPUT else None
            yield Row(what, "x", shares, more_is_better=True, at_least=at_least, note=note)
    (image,) = images_in(bench.data, "val").records[:1]
    command = ["predict", f"model={files['onnx']}", f"source={image.path}", "save=false"]
    starts = [bench.ours.seconds(*command) for _ in bench.times(5)]
    slow = "" if median(starts) < 1 else "slower than a second"
    yield Row("`predict model=best.onnx` of one image, whole command", "s", starts, note="below 1 s asked", broken=slow)


def accuracy_rows(bench: Bench) -> Iterator[Row]:
    """AP50-95 on val of the last epoch's weights, from scratch, by pycocotools from the saved predictions."""
    split, runs = images_in(bench.data, "val"), bench.work / "runs" / "gfldet"
    wall = _train_ours(bench, bench.epochs, "long")
    where = {"data": bench.data, "project": runs, "name": "long-val"}
    weights = runs / "long" / "weights" / "last.pt"
    bench.ours.seconds("val", *words(model=weights, imgsz=bench.imgsz, device="cpu", **where))
    found = json.loads((runs / "long-val" / "predictions.json").read_text(encoding="utf-8"))
    ap, peer_ap, peer_wall = [average_precision(split, found)], [], []
    if bench.peer_accuracy:
        peer_wall = [_train_theirs(bench, bench.epochs, "long")]
        theirs = peer_predictions(
            bench.theirs, bench.peer_data, bench.work / "runs" / "peer", "long", split, bench.imgsz
        )
        peer_ap = [average_precision(split, theirs)]
        reached = minutes_to(peer_ap[0], runs / "long" / "results.csv")
        what = f"minutes of `train` to the AP that the peer ends with after {bench.epochs} epochs"
        broken = "" if reached else "never reached"
        yield Row(what, "min", reached or [math.nan], [seconds / 60 for seconds in peer_wall], target=8, broken=broken)
    what = f"{bench.epochs} epochs, {bench.imgsz} px, batch {bench.batch}, from scratch"
    target = 0.57 if Path(bench.data).stem == "bccd" and bench.epochs == 60 else None
    yield Row(f"AP50-95 on val, last weights, {what}", "AP", ap, peer_ap, more_is_better=True, at_least=target)
    yield Row(f"`train`, {what}: whole command", "s", [wall], peer_wall, target=2.5)


def minutes_to(ap: float, results: Path) -> list[float]:
    """Minutes of a run of ours to its first epoch with this AP, validations included; none if it has no such epoch."""
    with results.open(encoding="utf-8", newline="") as file:
        rows = [(float(row["time"]), float(row["metrics/mAP50-95"] or 0)) for row in csv.DictReader(file)]
    return [seconds / 60 for seconds, reached in rows if reached >= ap][:1]


PARTS = {
    "help": help_rows,
    "train": train_rows,
    "assigner": assigner_rows,
    "loss": loss_rows,
    "runtime": runtime_rows,
    "mosaic": mosaic_rows,
    "accuracy": accuracy_rows,
    "predict": predict_rows,
    "val": val_rows,
    "epoch": epoch_rows,
    "memory": memory_rows,
    "busy": busy_rows,
    "scale": scale_rows,
    "libre": libre_rows,
}


def measure(bench: Bench, parts: list[str]) -> Iterator[Row]:
    """Rows of the parts, each told on stderr as soon as it is there."""
    for part in parts:
        print(f"{part} ...", file=sys.stderr)
        for row in PARTS[part](bench):
            print(f"  {' | '.join(cell for cell in row.cells() if cell)}", file=sys.stderr)
            yield row
