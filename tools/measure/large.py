"""tools/large: a made data set of the size of COCO, and the time and memory that it takes before anything is learnt.

`make` writes it: as COCO JSON (coco.yaml) and as YOLO txt (yolo.yaml), of the same pictures.  `index` reads and checks
a split, `start` goes on to the first training step, `validation` measures made detections on the training split, and
`ranks` trains in several processes and tells the memory of each, shared pages by their share (PSS).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from measure.processes import environment_of

NAMES = [f"class {number}" for number in range(80)]
SIDES = (16, 33)  # px, from and below


def make(folder: Path, images: int, boxes: int, val: int, side: tuple[int, int]) -> None:
    """Write the set into a new folder: `images` to train on with `boxes` in all, and `val` more to validate on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", val)):
        _make_split(folder, split, count, round(boxes * count / images), side, rng)
    (folder / "coco.yaml").write_text(
        "format: coco\ntrain: train.json\nval: val.json\nimages: {train: images/train, val: images/val}\n"
    )
    (folder / "yolo.yaml").write_text(f"train: images/train\nval: images/val\nnames: {json.dumps(NAMES)}\n")


def _make_split(
    folder: Path, split: str, images: int, boxes: int, side: tuple[int, int], rng: np.random.Generator
) -> None:
    pictures, labels = folder / "images" / split, folder / "labels" / split
    pictures.mkdir(parents=True)
    labels.mkdir(parents=True)
    sizes = rng.integers(*side, (images, 2))
    owner = np.sort(rng.integers(0, images, boxes))
    low = rng.uniform(0, 0.6, (boxes, 2))
    shares = np.concatenate([low, rng.uniform(0.1, 0.4, (boxes, 2))], 1)  # left, top, width, height
    px = (shares * np.tile(sizes[owner], 2)).round(2).tolist()
    centred = np.concatenate([low + shares[:, 2:] / 2, shares[:, 2:]], 1).tolist()
    classes = rng.integers(0, len(NAMES), boxes).tolist()
    starts = np.searchsorted(owner, np.arange(images + 1)).tolist()
    for number, (width, height) in enumerate(sizes.tolist()):
        picture = rng.integers(0, 255, (height, width, 3), np.uint8)
        cv2.imwrite(str(pictures / f"{number:012d}.jpg"), cv2.blur(picture, (5, 5)))
        rows = range(starts[number], starts[number + 1])
        text = "".join(f"{classes[r]} {' '.join(f'{value:.6f}' for value in centred[r])}\n" for r in rows)
        (labels / f"{number:012d}.txt").write_text(text)
    of_images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "width": width, "height": height, "license": 1}
        for number, (width, height) in enumerate(sizes.tolist())
    ]
    annotations = [
        {
            "id": r + 1,
            "image_id": image,
            "category_id": classes[r] + 1,
            "bbox": px[r],
            "area": round(px[r][2] * px[r][3], 2),
            "iscrowd": 0,
            "segmentation": [],
        }
        for r, image in enumerate(owner.tolist())
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
    text = json.dumps({"images": of_images, "annotations": annotations, "categories": categories})
    (folder / f"{split}.json").write_text(text)


def index(data: str, check: str) -> None:
    """Read and check the training split."""
    from gfldet.data.load import load_images
    from gfldet.data.spec import load_spec
    from gfldet.machine.shared import Pool

    load_images(load_spec(data), "train", (640, 640), Pool(0), "error", print, True, check=check)


def start(data: str, check: str) -> None:
    """Everything up to the end of the first training step of gfldet-n."""
    from gfldet.config.load import resolve
    from gfldet.model import Model
    from gfldet.train import prepare

    given = {"data": data, "imgsz": 64, "batch": 16, "check_images": check}
    with tempfile.TemporaryDirectory() as runs:
        settings = resolve("train", {**given, "project": runs})
        folder = Path(runs)
        trainer = prepare.prepare_training(settings, Model("gfldet-n").description, None, folder)
        batches = trainer._batches(0)
        trainer._step(next(batches))
        batches.close()


def validation(data: str, check: str) -> None:
    """The evaluation of ten detections an image on the training split; told apart from the reading before it."""
    from gfldet.data.spec import load_spec
    from gfldet.data.split import load_split
    from gfldet.metrics.coco import evaluate
    from gfldet.metrics.table import DetectionTable

    split = load_split(load_spec(data), "train", check=check)  # type: ignore[arg-type]
    rng, count = np.random.default_rng(0), 10 * len(split.records)
    pick = np.sort(rng.integers(0, len(split.records.boxes), count))
    boxes = split.records.boxes[pick].astype(np.float64) + rng.normal(0, 0.5, (count, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.5)
    found = DetectionTable(split.records.images[pick], split.records.classes[pick], boxes, rng.random(count))
    before = _peak()
    began = time.perf_counter()
    metrics = evaluate(split, found, detailed=False)
    print(f"evaluation: {time.perf_counter() - began:.1f} s, AP {metrics.map:.4f}; peak before it {before:.2f} GB")


def ranks(data: str, processes: int, rest: list[str]) -> None:
    """Train for an epoch in `processes` processes; the most memory of each, in MB."""
    from gfldet.machine.system import PROC, numbers

    command = [sys.executable, "-m", "gfldet", "train", f"data={data}", "epochs=1", "plots=false", *rest]
    command += [f"device=cpu:{processes}"] if processes > 1 else ["device=cpu"]
    run = subprocess.Popen(command)
    most: dict[str, int] = {}
    while run.poll() is None:
        for rank, process in _ranks_of(run.pid):
            kept = numbers(PROC / str(process) / "smaps_rollup").get("Pss:", 0)  # KiB; of shared pages its share
            most[rank] = max(most.get(rank, 0), kept)
        time.sleep(0.5)
    print("PSS: " + ", ".join(f"rank {rank} {pss >> 10} MB" for rank, pss in sorted(most.items())))


def _ranks_of(parent: int) -> list[tuple[str, int]]:
    """(rank, process) of a run and the processes that it started; a run in one process is rank 0."""
    given = [(environment_of(process).get("RANK"), process) for process in (parent, *_children(parent))]
    return [(rank, process) for rank, process in given if rank is not None] or [("0", parent)]


def _children(parent: int) -> list[int]:
    from gfldet.machine.system import PROC, lines

    rows = lines(PROC / f"{parent}/task/{parent}/children")
    own = [int(word) for row in rows for word in row.split()]
    return [*own, *(child for one in own for child in _children(one))]


def _peak() -> float:
    """GB of memory that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("tools/large", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write the set into a new folder")
    making.add_argument("folder", type=Path)
    for name, default in (("images", 118_000), ("boxes", 860_000), ("val", 5000)):
        making.add_argument(f"--{name}", type=int, default=default)
    making.add_argument("--side", type=int, nargs=2, default=SIDES, help="smallest side, and the largest and one")
    measured: dict[str, Callable[[str, str], None]] = {"index": index, "start": start, "validation": validation}
    for name, function in measured.items():
        one = commands.add_parser(name, help=function.__doc__)
        one.add_argument("data")
        one.add_argument("--check", choices=("auto", "full", "quick"), default="auto")
    several = commands.add_parser("ranks", help=ranks.__doc__)
    several.add_argument("data")
    several.add_argument("--processes", type=int, default=2)
    several.add_argument("settings", nargs="*", help="of gfldet train")
    given = parser.parse_args()
    began = time.perf_counter()
    if given.command == "make":
        make(given.folder, given.images, given.boxes, given.val, tuple(given.side))
    elif given.command == "ranks":
        ranks(given.data, given.processes, given.settings)
    else:
        measured[given.command](given.data, given.check)
    seconds, peak = time.perf_counter() - began, _peak()
    from gfldet.machine.cores import cores

    print(f"{given.command}: {seconds:.1f} s, peak {peak:.2f} GB, {cores()} cores")


if __name__ == "__main__":
    main()
