"""gfldet against LibreYOLO, on one network that both have: YOLOv9-t, of which each side learns its own weights.

Both have their defaults.  LibreYOLO reads and writes a YOLO copy of the data, as the other peer does.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from measure.bench.export import images_in
from measure.bench.peer import words
from measure.bench.setup import Bench
from measure.bench.sides import BenchError, last_core
from measure.bench.table import Row
from measure.bench.waits import INPUT, asked_row, commands_row, epoch_times, on_one_core, pictures, training

OURS = "gfldet-v9-t"
EPOCHS = 3


def libre_rows(bench: Bench) -> Iterator[Row]:
    """An epoch and the memory of `train`, then `val` and `predict` with the weights that were learnt."""
    libre = bench.libre
    if libre is None:
        raise BenchError("libre: LibreYOLO is not here; give its Python, --libre-python FILE")
    shape = f"YOLOv9-t, {bench.imgsz} px"
    learnt, seconds = _ours(bench)
    answer = libre.ask("train", project=_runs(bench, "core"), epochs=EPOCHS, core=last_core(), **_asked(bench))
    what = f"`train`, {shape}, batch {bench.batch}, one core: an epoch"
    note = "ours with its validation; LibreYOLO validates after the last epoch, which is left out"
    yield Row(what, "s", seconds, _seconds(Path(answer["results"]))[1:-1], note=note, peer=libre.name)
    peer_learnt = answer["weights"]

    train = ["train", *_training(bench, "memory"), *words(epochs=1, workers=0)]
    peak = libre.ask_peak("train", project=_runs(bench, "memory"), epochs=1, workers=0, **_asked(bench))
    what = f"peak memory of `train`, {shape}, batch {bench.batch}"
    yield Row(what, "MB", [bench.ours.peak(*train)], [peak], note="workers=0 on both sides", peer=libre.name)

    ours = ["val", f"model={learnt}", f"data={bench.data}", "project=runs/val", *words(imgsz=bench.imgsz, device="cpu")]
    given = ("--data", str(bench.peer_data), "--imgsz", str(bench.imgsz), "--device", "cpu")
    theirs = ["val", "--model", peer_learnt, *given, "--project", _runs(bench, "val")]
    count = len(images_in(bench.data, "val").records)
    yield commands_row(bench, libre, f"`val` of {count} images, {shape}, whole command", ours, theirs)

    paths = pictures(bench)
    for task, some, what in (
        ("frames", paths[:20], f"`predict(frame)` in a loop, YOLOv9-t, {INPUT} px, a call"),
        ("files", paths, f"`predict` on {len(paths)} images, YOLOv9-t, {INPUT} px, an image"),
    ):
        yield asked_row(bench, libre, task, what, {"paths": some, "imgsz": INPUT}, (str(learnt), peer_learnt))
    ours = ["predict", f"model={learnt}", f"source={paths[0]}", "save=false", f"imgsz={INPUT}"]
    theirs = ["predict", "--model", peer_learnt, "--source", paths[0], "--imgsz", str(INPUT), "--device", "cpu"]
    yield commands_row(bench, libre, "`predict` of one image, YOLOv9-t, whole command", ours, theirs)


def _ours(bench: Bench) -> tuple[Path, list[float]]:
    """Our weights, and the seconds of the epochs after the first, on one core."""
    given = ["train", *_training(bench, "core"), *words(epochs=EPOCHS)]
    bench.ours.run(on_one_core([*bench.ours.command, *given]))
    where = bench.work / "runs" / "v9" / "core"
    return where / "weights" / "last.pt", epoch_times(where / "results.csv")


def _training(bench: Bench, name: str) -> list[str]:
    return [*training(bench, OURS, bench.data, bench.work / "runs" / "v9"), *words(name=name, **bench.own)]


def _asked(bench: Bench) -> dict[str, object]:
    """The settings of LibreYOLO's training; all others are its defaults."""
    return {"data": str(bench.peer_data), **bench.shared}


def _runs(bench: Bench, name: str) -> str:
    return str(bench.work / "runs" / "libre" / name)


def _seconds(results: Path) -> list[float]:
    """Seconds of each epoch, which its table has as they are."""
    with results.open(encoding="utf-8", newline="") as file:
        return [float(row["time"]) for row in csv.DictReader(file)]
