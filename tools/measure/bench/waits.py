"""What a user waits for beside training from scratch: `predict`, `val`, and training beside other work.

Both sides run the same weights where `--weights` names some, else fresh ones of the same graph, and their own defaults.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

from gfldet.errors import counted
from measure.bench.export import images_in
from measure.bench.peer import words
from measure.bench.setup import Bench
from measure.bench.sides import BenchError, Side, last_core
from measure.bench.table import Row

INPUT = 640
MANY = 128  # files of one `predict`
EPOCHS = 4
BUSY = "while True: pass"  # a neighbour that takes all of a core


def predict_rows(bench: Bench) -> Iterator[Row]:
    """A call of `predict` in a loop, many files in one call, and the whole command on one image."""
    weights, peer_weights = bench.models
    exported = _exported(bench, weights)
    paths = pictures(bench)
    what = f"`predict(frame)` in a loop, {INPUT} px, a call"
    loop = {"paths": paths[:20], "imgsz": INPUT}
    yield asked_row(bench, bench.theirs, "frames", what, loop, (weights, peer_weights), target=1.5)
    yield asked_row(bench, bench.theirs, "frames", f"{what}, ours as .onnx", loop, (exported, peer_weights))
    what, many = f"`predict` on {len(paths)} images, {INPUT} px, an image", {"paths": paths, "imgsz": INPUT}
    yield asked_row(bench, bench.theirs, "files", what, many, (weights, peer_weights), target=1.6)
    yield asked_row(bench, bench.theirs, "files", f"{what}, ours as .onnx", many, (exported, peer_weights), target=2)
    source = f"source={paths[0]}"
    peer = ["predict", f"model={peer_weights}", source, "save=false"]
    for told, file, target in (("", weights, 2), (", ours as .onnx", exported, 10)):
        run = ["predict", f"model={file}", source, "save=false"]
        yield commands_row(
            bench, bench.theirs, f"`predict` of one image, whole command{told}", run, peer, target, usual=5
        )


def pictures(bench: Bench) -> list[str]:
    """MANY files of the val split, some of them again; fewer with --quick."""
    paths = [str(path) for path in sorted((bench.peer_data.parent / "images" / "val").iterdir())]
    return (paths * (MANY // len(paths) + 1))[: 8 if bench.quick else MANY]


def val_rows(bench: Bench) -> Iterator[Row]:
    """The whole command `val` on both sides, of the weights that the peer has after one epoch on the data."""
    given = words(imgsz=bench.imgsz, device="cpu")
    where = bench.work / "runs" / "learnt"
    alike = training(bench, "yolov8n.yaml", bench.peer_data, where)
    once = words(name="one", pretrained=False, epochs=1)
    bench.theirs.run([*bench.theirs.command, "train", *alike, *once])
    weights = where / "one" / "weights" / "last.pt"
    ours = ["val", f"model={weights}", f"data={bench.data}", "project=runs/val", *given]
    theirs = ["val", f"model={weights}", f"data={bench.peer_data}", f"project={bench.work / 'runs/peer'}", *given]
    count = len(images_in(bench.data, "val").records)
    yield commands_row(
        bench, bench.theirs, f"`val` of {count} images, {bench.imgsz} px, whole command", ours, theirs, 2
    )


def memory_rows(bench: Bench) -> Iterator[Row]:
    """Peak memory of `train` without loader processes."""
    where, given = bench.work / "runs" / "memory", {"epochs": 1, "workers": 0}
    ours = bench.ours.peak(
        "train", *training(bench, "gfldet-n", bench.data, where / "ours"), *words(**given, **bench.own)
    )
    peer = words(pretrained=False, **given)
    theirs = bench.theirs.peak("train", *training(bench, "yolov8n.yaml", bench.peer_data, where / "peer"), *peer)
    what = f"peak memory of `train`, {bench.imgsz} px, batch {bench.batch}"
    yield Row(what, "MB", [ours], [theirs], target=1 / 0.7, note="workers=0 on both sides")


def training(bench: Bench, model: str, data: Path | str, where: Path | str) -> list[str]:
    """The settings of a training that both sides have."""
    return words(model=model, data=data, device="cpu", project=where, plots=False, **bench.shared)


def epoch_rows(bench: Bench) -> Iterator[Row]:
    """Seconds an epoch of `train` on one core each, a validation included, from each side's own results.csv."""
    ours, theirs = [], []
    for turn in bench.times(1):
        ours += _epochs(bench, f"epoch-{turn}", core=True)
        where = bench.work / "runs" / "peer-epoch"
        given = words(name=turn, pretrained=False, close_mosaic=0, epochs=EPOCHS)
        bench.theirs.run(
            on_one_core(
                [*bench.theirs.command, "train", *training(bench, "yolov8n.yaml", bench.peer_data, where), *given]
            )
        )
        theirs += epoch_times(where / str(turn) / "results.csv")
    yield Row(f"`train`, {bench.imgsz} px, batch {bench.batch}, one core: an epoch", "s", ours, theirs, target=1.4)


def busy_rows(bench: Bench) -> Iterator[Row]:
    """Seconds an epoch of `train` beside neighbours that take a core each, against none."""
    epochs: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for turn in bench.times(1):
        for count, found in epochs.items():
            with neighbours(count):
                found += _epochs(bench, f"busy{count}-{turn}")
    quiet = median(epochs[0])
    for count in (1, 2):
        what = f"`train`, {bench.imgsz} px: an epoch beside {counted(count, 'busy neighbour')}, against none"
        times = [seconds / quiet for seconds in epochs[count]]
        note = f"{median(epochs[count]):.1f} s against {quiet:.1f} s; at most 3 asked"
        yield Row(what, "x as long", times, note=note, broken=note if median(times) > 3 else "")


def _epochs(bench: Bench, name: str, core: bool = False) -> list[float]:
    """Seconds of our epochs after the first."""
    where = bench.work / "runs" / "epochs"
    given = [*training(bench, "gfldet-n", bench.data, where), *words(name=name, epochs=EPOCHS, **bench.own)]
    command = [*bench.ours.command, "train", *given]
    bench.ours.run(on_one_core(command) if core else command)
    return epoch_times(where / name / "results.csv")


def epoch_times(results: Path) -> list[float]:
    """Seconds of each epoch after the first: both sides write the seconds since the start."""
    with results.open(encoding="utf-8", newline="") as file:
        rows = [{name.strip(): value for name, value in row.items()} for row in csv.DictReader(file)]
    times = [float(row["time"]) for row in rows]
    return [b - a for a, b in pairwise(times)]


def on_one_core(command: Sequence[str]) -> list[str]:
    """The command, tied to the last core that this process may use."""
    core = last_core()
    if core is None:
        raise BenchError("this system does not let a process choose its core; leave the part epoch out")
    script = f"import os, sys; os.sched_setaffinity(0, [{core}]); os.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", script, *command]


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that do nothing but take a core."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _exported(bench: Bench, weights: str) -> str:
    asked = {"model": weights, "data": bench.data, "imgsz": INPUT, "formats": ["onnx"], "folder": str(bench.work)}
    return str(bench.ours.ask("export", **asked)["onnx"])


def asked_row(
    bench: Bench,
    peer: Side,
    task: str,
    what: str,
    asked: dict[str, object],
    models: tuple[str, str],
    target: float | None = None,
) -> Row:
    """Milliseconds of us and a peer, in turns, by a task that both have."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in bench.times(3):
        for side, model, found in ((bench.ours, models[0], ours), (peer, models[1], theirs)):
            found.append(1000 * side.ask(task, model=model, **asked)["seconds"])
    return Row(what, "ms", ours, theirs, target=target, peer=peer.name)


def commands_row(
    bench: Bench,
    peer: Side,
    what: str,
    ours: Sequence[str],
    theirs: Sequence[str],
    target: float | None = None,
    usual: int = 3,
) -> Row:
    """Seconds of two commands, in turns."""
    runs: list[tuple[Side, Sequence[str], list[float]]] = [(bench.ours, ours, []), (peer, theirs, [])]
    for _ in bench.times(usual):
        for side, command, found in runs:
            found.append(side.seconds(*command))
    return Row(what, "s", runs[0][2], runs[1][2], target=target, peer=peer.name)
