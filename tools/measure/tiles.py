"""What tiles are worth, measured on made pictures; one table.

Small pictures of 640 px show a few shapes of 12 px on textured backgrounds.  36 of them side by side make one of 3,840
px, so that the same objects are measured twice: in pictures that pass as they are, and in one that is cut or shrunk.
A model is trained first on pictures of 160 px of the same kind, unless `--model` names one of the class "shape".
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gfldet import Model
from gfldet.data.shapes import Variant, draw, layout
from gfldet.data.spec import load_spec
from gfldet.data.split import load_split
from gfldet.metrics.coco import DetectionMetrics, evaluate
from measure.yolo import Picture, write

SIDE, ACROSS = 640, 6  # px of a small picture; how many make a row of a large one
SHAPES = {"radius": (5.8, 7.0), "hidden": 0.0, "inside": 1.2}  # about 12 px
HUGE = (9000, 12000)  # height and width, px
NAMES = ("shape",)
SURE = 0.25  # score from which `predict` shows a detection


def small_picture(seed: Sequence[int], size: int) -> Picture:
    """A picture of `size` px with 1 or 2 shapes; COCO counts 100 detections of a class, so 36 must have fewer."""
    variant, rng = Variant(size=size, objects=(1, 2), **SHAPES), np.random.default_rng(seed)  # type: ignore[arg-type]
    figures = layout(variant, rng)
    boxes = np.array([figure.box for figure in figures], np.float64).reshape(-1, 4)
    return Picture(draw(variant, figures, rng), [0] * len(boxes), boxes)


def side_by_side(pictures: Sequence[Picture]) -> Picture:
    """ACROSS x ACROSS pictures as one."""
    places = [(SIDE * (n % ACROSS), SIDE * (n // ACROSS)) for n in range(ACROSS**2)]
    canvas = np.empty((SIDE * ACROSS, SIDE * ACROSS, 3), np.uint8)
    for (x, y), picture in zip(places, pictures, strict=True):
        canvas[y : y + SIDE, x : x + SIDE] = picture.image
    moved = [picture.boxes + np.array([x, y] * 2) for (x, y), picture in zip(places, pictures, strict=True)]
    boxes = np.concatenate(moved)
    return Picture(canvas, [0] * len(boxes), boxes)


def trained(folder: Path, epochs: int) -> Path:
    """A model of the shapes, trained at full resolution."""
    train, val = ([small_picture((split, n), 160) for n in range(count)] for split, count in ((0, 160), (1, 16)))
    model = Model("gfldet-n")
    model.train(
        data=write(folder / "learnt", NAMES, train=train, val=val),
        imgsz=160,
        epochs=epochs,
        project=str(folder / "runs"),
        plots=False,
    )
    assert model.save_dir is not None
    return model.save_dir / "weights" / "best.pt"


def measure(model: Path, folder: Path, tile: int, large: int) -> None:
    """Print recall and AP of the same objects in small pictures, in large ones, and in large ones in tiles.

    What was found in the small pictures is laid side by side too, as COCO counts 100 detections of a picture.
    """
    pictures = [small_picture((2, n), SIDE) for n in range(large * ACROSS**2)]
    some = [pictures[n : n + ACROSS**2] for n in range(0, len(pictures), ACROSS**2)]
    small = write(folder / "small", NAMES, val=pictures)
    one = write(folder / "large", NAMES, val=[side_by_side(part) for part in some])
    size = f"{large} of {SIDE * ACROSS} px"
    print(f"{'':44} {'AP50-95':>8} {'AP50':>8} {f'recall at score {SURE}':>20} {'seconds':>8}")
    rows = (
        (f"{len(pictures)} pictures of {SIDE} px", small, {"imgsz": SIDE}),
        (f"{size}, imgsz=640", one, {"imgsz": SIDE}),
        (f"{size}, tile={tile}", one, {"tile": tile}),
        (f"{size}, tile={tile} tile_whole=false", one, {"tile": tile, "tile_whole": False}),
    )
    for name, data, settings in rows:
        detector, began = Model(model), time.perf_counter()
        metrics = detector.val(data=data, project=str(folder / "runs"), plots=False, verbose=False, **settings)
        tell(name, metrics, time.perf_counter() - began)
        if data == small:
            assert detector.save_dir is not None
            found = json.loads((detector.save_dir / "predictions.json").read_text(encoding="utf-8"))
            tell(
                "the same, side by side", evaluate(load_split(load_spec(one), "val"), [moved(row) for row in found]), 0
            )


def tell(name: str, metrics: DetectionMetrics, seconds: float) -> None:
    """Print a row of the table."""
    (curve,) = metrics.curves
    recall = max(curve.recall[curve.scores >= SURE], default=0.0)
    print(f"{name:44} {metrics.map:8.4f} {metrics.map50:8.4f} {recall:20.4f} {seconds:8.1f}", flush=True)


def moved(row: dict[str, Any]) -> dict[str, Any]:
    """A detection in a small picture as one in the large picture that it is a part of."""
    picture, place = divmod(row["image_id"], ACROSS**2)
    x, y, width, height = row["bbox"]
    box = [x + SIDE * (place % ACROSS), y + SIDE * (place // ACROSS), width, height]
    return {**row, "image_id": picture, "bbox": box}


def peak(model: Path, folder: Path, tile: int, options: Sequence[str]) -> None:
    """Print the peak memory of the command on a JPEG of 12,000 x 9,000 px."""
    file = folder / "huge.jpg"
    coarse = np.random.default_rng(0).integers(0, 255, (HUGE[0] // 20, HUGE[1] // 20, 3), np.uint8)
    cv2.imwrite(str(file), cv2.resize(coarse, HUGE[::-1], interpolation=cv2.INTER_CUBIC))
    began = time.perf_counter()
    command = [sys.executable, "-m", "gfldet", "predict", f"model={model}", f"source={file}", f"tile={tile}"]
    subprocess.run([*command, f"project={folder / 'runs'}", *options], check=True)
    seconds = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 10 if sys.platform == "linux" else 1 << 20)
    print(f"{HUGE[1]} x {HUGE[0]} px ({file.stat().st_size >> 20} MiB), tile={tile}: {most:.0f} MiB, {seconds:.0f} s")


def main() -> None:
    """Train if needed, measure, print."""
    parser = argparse.ArgumentParser(prog="tools/tiles", description=__doc__)
    parser.add_argument("--model", type=Path, help="a checkpoint; without it one is trained")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--tile", type=int, default=640)
    parser.add_argument("--large", type=int, default=1, help="pictures of 3,840 px")
    parser.add_argument("--only-memory", action="store_true", help="measure the memory alone")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory, which takes minutes")
    given, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="gfldet-tiles-") as name:
        folder = Path(name)
        model = given.model or trained(folder, given.epochs)
        if not given.no_memory:  # first: the peak is that of the largest child so far
            peak(model, folder, given.tile, options)
        if not given.only_memory:
            measure(model, folder, given.tile, given.large)


if __name__ == "__main__":
    main()
