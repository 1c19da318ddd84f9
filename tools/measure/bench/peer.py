"""What is asked of the peer's command line: to train from scratch, and to validate, with predictions in our ids."""

from __future__ import annotations

import json
from pathlib import Path

from gfldet.data.records import Split
from measure.bench.export import export, images_in
from measure.bench.score import average_precision
from measure.bench.sides import Side, peer_python, peer_side


def words(**settings: object) -> list[str]:
    """Settings as both command lines take them."""
    return [f"{name}={value}" for name, value in settings.items()]


def train_peer(side: Side, data: Path, runs: Path, name: str, **settings: object) -> float:
    """Seconds of a training of yolov8n from scratch on the YOLO copy `data`."""
    scratch = {"model": "yolov8n.yaml", "pretrained": False, "device": "cpu"}
    return side.seconds("train", *words(data=data, project=runs, name=name, **scratch, **settings))


def peer_predictions(
    side: Side, data: Path, runs: Path, name: str, split: Split, imgsz: int
) -> list[dict[str, object]]:
    """The detections of a run's last weights on val, in the ids of our split: the copy's images are numbered as our
    records are."""
    weights = runs / name / "weights" / "last.pt"
    where = {"data": data, "project": runs, "name": f"{name}-val", "save_json": True}
    side.seconds("val", *words(model=weights, imgsz=imgsz, device="cpu", **where))
    found = json.loads((runs / f"{name}-val" / "predictions.json").read_text(encoding="utf-8"))
    return [
        {
            "image_id": split.records[int(one["image_id"])].image_id,
            "category_id": split.category_ids[one["category_id"] - 1],  # it counts classes from 1
            "bbox": one["bbox"],
            "score": one["score"],
        }
        for one in found
    ]


def peer_ap(data: str, epochs: int, seed: int, imgsz: int, batch: int, work: Path, python: Path | None) -> float:
    """AP50-95 of the peer's last weights on val, trained with a step every batch (its nbs) as we do."""
    side = peer_side(work, peer_python(python))
    copy, runs = export(data, work / "data"), work / "runs"
    train_peer(side, copy, runs, "peer", epochs=epochs, seed=seed, imgsz=imgsz, batch=batch, nbs=batch)
    split = images_in(data, "val")
    return average_precision(split, peer_predictions(side, copy, runs, "peer", split, imgsz))
