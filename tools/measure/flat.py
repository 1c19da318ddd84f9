"""tools/flat: do memory, open files and threads stay as they are over a long run?  A table, with a row every so often.

What grows from the first fourth of a part to its end is told, and is an exit code of 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gfldet import Model, Observer
from gfldet.errors import GfldetError
from gfldet.machine.system import PROC, numbers
from measure.kills.subject import MODEL
from measure.yolo import Picture, write

PARTS = ("train", "pt", "onnx", "video")
SIDE = 64  # px of the training images
FRAME = 32  # px of the frames to predict on
ROWS = 20  # of a part's table
ALLOWED = 8.0  # MB from the first fourth to the end, which a heap may wander


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds: memory in MB, open files, threads."""

    memory: float
    files: int
    threads: int


def held() -> Held:
    """Now, as Linux tells."""
    status = numbers(PROC / "self" / "status")
    return Held(status["VmRSS:"] / 1024, len(os.listdir(PROC / "self" / "fd")), status["Threads:"])


class Table:
    """Prints a row every so many steps, and keeps them."""

    def __init__(self, part: str, steps: int) -> None:
        self._every = max(1, steps // ROWS)
        self._began = time.monotonic()
        self._steps = steps
        self.rows: list[Held] = []
        print(f"\n{part}: {steps:,} steps\n\n| steps | s | memory, MB | open files | threads |\n|---|---|---|---|---|")

    def step(self, done: int) -> None:
        if done % self._every == 0 or done == self._steps:
            now = held()
            self.rows.append(now)
            seconds = time.monotonic() - self._began
            print(f"| {done:,} | {seconds:.0f} | {now.memory:.1f} | {now.files} | {now.threads} |", flush=True)


def growth(rows: list[Held]) -> list[str]:
    """What has grown from the first fourth of the rows to the last one, in words; nothing where all is flat."""
    first = rows[: max(1, len(rows) // 4)]
    most, last = (Held(*(max(getattr(r, n) for r in some) for n in Held.__slots__)) for some in (first, rows[-1:]))
    found = []
    if last.memory > most.memory + ALLOWED:
        found.append(f"memory from {most.memory:.1f} to {last.memory:.1f} MB")
    found += [
        f"{name} from {getattr(most, name)} to {getattr(last, name)}"
        for name in ("files", "threads")
        if getattr(last, name) > getattr(most, name)
    ]
    return found


class Watch(Observer):
    """Tells a table of each epoch."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def epoch(self, report: Any) -> None:
        self._table.step(report.epoch + 1)


def frames(count: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures (32, 32, 3) with a square each, no two alike in a thousand."""
    rng = np.random.default_rng(0)
    few = rng.integers(0, 255, (1000, FRAME, FRAME, 3), np.uint8)
    few[:, 8:20, 8:20] = (0, 0, 255)
    for number in range(count):
        yield few[number % len(few)]


def pictures(count: int) -> Iterator[Picture]:
    """Pictures with a square each, red and blue in turn."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(70, 120, (SIDE, SIDE, 3), np.uint8)
        left = 4 + 2 * number
        image[20:44, left : left + 24] = (255, 0, 0) if number % 2 == 0 else (0, 0, 255)
        yield Picture(image, [number % 2], np.array([[left, 20, left + 24, 44]], np.float64))


def train(folder: Path, epochs: int, table: Table) -> None:
    """A training, validated and saved after each epoch."""
    data = write(folder / "data", ("red", "blue"), train=pictures(12), val=pictures(4))
    (folder / "tiny.yaml").write_text(MODEL, encoding="utf-8")
    common: dict[str, Any] = {"imgsz": SIDE, "batch": 4, "patience": 0, "workers": 2, "verbose": False}
    where: dict[str, Any] = {"data": str(data), "project": str(folder), "name": "train"}
    Model(folder / "tiny.yaml").train(epochs=epochs, observers=[Watch(table)], device="cpu", **common, **where)


def predict_each(model: Model, count: int, table: Table) -> None:
    """A call of `predict` for each frame, as a loop around a camera has it."""
    for number, frame in enumerate(frames(count), 1):
        model.predict(frame, imgsz=FRAME, conf=0.01, verbose=False)
        table.step(number)


def predict_video(model: Model, folder: Path, count: int, table: Table) -> None:
    """A video, read, predicted on and written."""
    path = folder / "frames.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (FRAME, FRAME))
    for frame in frames(count):
        writer.write(frame)
    writer.release()
    found = model.predict(path, stream=True, imgsz=FRAME, conf=0.01, save=True, project=str(folder), verbose=False)
    for number, _ in enumerate(found, 1):
        table.step(number)


def measure(given: argparse.Namespace, folder: Path) -> list[str]:
    """All parts that are asked for; what has grown in each.  The training comes first: the others use its weights."""
    problems: list[str] = []

    def part(name: str, steps: int, work: Callable[[Table], None]) -> None:
        table = Table(name, steps)
        work(table)
        problems.extend(f"{name}: {one}" for one in growth(table.rows))

    epochs, count = given.epochs, given.frames
    if "train" in given.parts:
        part("train", epochs, lambda table: train(folder, epochs, table))
    else:
        train(folder, 1, Table("train", 1))
    best = folder / "train" / "weights" / "best.pt"
    if "pt" in given.parts:
        part("pt", count, lambda table: predict_each(Model(best), count, table))
    if "onnx" in given.parts:
        exported = Model(best).export(imgsz=FRAME, verbose=False)
        part("onnx", count, lambda table: predict_each(Model(exported), count, table))
    if "video" in given.parts:
        part("video", given.video, lambda table: predict_video(Model(best), folder, given.video, table))
    return problems


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser("tools/flat", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--frames", type=int, default=100_000, help="of pt and of onnx")
    parser.add_argument("--video", type=int, default=20_000, help="frames of the video")
    given = parser.parse_args(argv)
    given.parts = given.parts or list(PARTS)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if min(given.epochs, given.frames, given.video) < 1:
        parser.error("--epochs, --frames and --video take a number from 1 up")
    return given


def main() -> int:
    """Measure; 1 where something grows, or where the work fails."""
    given = arguments()
    if not (PROC / "self" / "status").is_file():
        print("tools/flat: needs /proc, which Linux has", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="gfldet-flat-") as folder:
            problems = measure(given, Path(folder))
    except GfldetError as error:
        print(f"tools/flat: {error}", file=sys.stderr)
        return 1
    print("\n" + ("\n".join(f"grows: {problem}" for problem in problems) or "nothing grows"))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
