"""From label files to gradients: thousands of truths in an image, and regions in which nothing counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from gfldet.assigners import Predictions, TaskAlignedAssigner, Truths, task_aligned
from gfldet.config.load import resolve
from gfldet.losses.detection import v8DetectionLoss
from gfldet.nn.build import Description
from gfldet.ops.points import grids
from gfldet.train import prepare

TRUTHS = 5000


def peak_growth(work: Callable[[], Any]) -> int:
    """Bytes by which the memory of this process grew at most while `work` ran."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def kilobytes(key: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))

    try:
        clear.write_text("5")  # the peak is counted from here
    except OSError:
        pytest.skip("this system does not tell the peak of memory")
    before = kilobytes("VmRSS:")
    work()
    return (kilobytes("VmHWM:") - before) * 1024


def crowded(side: int) -> dict[str, torch.Tensor]:
    """A batch dict of one image with 5,000 truths, some of them large."""
    draw = torch.Generator().manual_seed(0)
    size = torch.rand(TRUTHS, 2, generator=draw) ** 4 * 0.5 + 4 / side
    centre = size / 2 + torch.rand(TRUTHS, 2, generator=draw) * (1 - size)
    return {
        "batch_idx": torch.zeros(TRUTHS, dtype=torch.int64),
        "cls": torch.randint(0, 3, (TRUTHS, 1), generator=draw),
        "bboxes": torch.cat((centre, size), dim=1),
    }


def test_thousands_of_truths_in_bounded_memory() -> None:
    side = 640
    criterion = v8DetectionLoss(3, 16, (8, 16, 32))
    maps = [torch.randn(1, 67, side // s, side // s, requires_grad=True) for s in (8, 16, 32)]
    found = []

    def work() -> None:
        found.append(criterion(maps, crowded(side)))
        found[0].total.backward()

    # One float for each truth and point alone would be 168 MB, and for each of its sides four times that.
    assert peak_growth(work) < 300 << 20
    assert found[0].items.isfinite().all()
    assert (found[0].items > 0).all()
    for level in maps:
        assert level.grad is not None
        assert level.grad.isfinite().all()


def test_pairs_are_handled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    candidates = task_aligned._candidates

    def counted(*args: Any) -> Any:
        for inside in candidates(*args):
            sizes.append(inside.total)
            yield inside

    batch, side = crowded(640), 640
    centre, size = batch["bboxes"].split(2, dim=1)
    truths = Truths(
        torch.cat((centre - size / 2, centre + size / 2), dim=1) * side, batch["cls"][:, 0], batch["batch_idx"]
    )
    levels = grids([(side // s, side // s) for s in (8, 16, 32)], (8, 16, 32))
    predictions = Predictions(torch.randn(1, 8400, 3), torch.rand(1, 8400, 4) * side)
    whole = TaskAlignedAssigner(max_pairs=1 << 30)(predictions, truths, levels, 15)
    monkeypatch.setattr(task_aligned, "_candidates", counted)
    parts = TaskAlignedAssigner(max_pairs=20_000)(predictions, truths, levels, 15)
    assert len(sizes) > 10
    assert max(sizes) <= 20_000 + 8400 // 2
    assert torch.equal(whole.point, parts.point)
    assert torch.equal(whole.truth, parts.truth)
    assert torch.equal(whole.alignment, parts.alignment)


@pytest.fixture
def photo(tmp_path: Path, draw: Callable[..., np.ndarray]) -> Path:
    path = tmp_path / "images" / "1.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), draw([(0, 4, 4, 28, 60)], 64, 64, 0)[..., ::-1])
    return path


def test_every_one_of_thousands_of_labels_reaches_the_loss(
    tmp_path: Path, photo: Path, quick: dict[str, Any], tiny: Description, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels").mkdir()
    rows = (f"{i % 2} {0.01 + i % 97 / 100} {0.01 + i // 97 / 60} 0.02 0.02\n" for i in range(TRUTHS))
    (tmp_path / "labels" / "1.txt").write_text("".join(rows))
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [a, b]\n")
    given = {**quick, "data": str(tmp_path / "data.yaml"), "verbose": True, "mosaic": 0, "scale": 0, "translate": 0}
    trainer = prepare.prepare_training(resolve("train", given), tiny, None, tmp_path)
    assert f"train: 1 image, {TRUTHS:,} boxes, 2 classes" in capsys.readouterr().out
    batch = next(trainer._batches(0))
    assert len(batch.boxes_px) == TRUTHS
    trainer.model.train()
    items = trainer._step(batch)
    assert items is not None
    assert items.isfinite().all()


def test_crowds_of_a_coco_file_carry_no_loss(
    tmp_path: Path, photo: Path, quick: dict[str, Any], tiny: Description
) -> None:
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 4, 24, 56], "area": 1344, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 3, "bbox": [32, 0, 32, 64], "area": 2048, "iscrowd": 1},
    ]
    for crowd, name in ((2, "with"), (1, "without")):
        truths = {
            "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
            "annotations": annotations[:crowd],
            "categories": [{"id": 3, "name": "a"}, {"id": 5, "name": "b"}],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(truths))
    (tmp_path / "data.yaml").write_text("train: with.json\nval: without.json\nimages: images\n")
    gradients = []
    for split in ("train", "val"):
        text = (tmp_path / "data.yaml").read_text()
        (tmp_path / "data.yaml").write_text(text if split == "train" else text.replace("train: with", "train: without"))
        given = {**quick, "data": str(tmp_path / "data.yaml"), "augment": "none"}
        trainer = prepare.prepare_training(resolve("train", given), tiny, None, tmp_path)
        batch = next(trainer._batches(0))
        assert (len(batch.boxes_px), len(batch.ignore_px)) == (1, 1 if split == "train" else 0)
        trainer.model.train()
        maps = [m.detach().requires_grad_() for m in trainer.model.predict(batch.to(trainer.device)["img"])]
        trainer.model.criterion(maps, batch.to(trainer.device)).total.backward()
        gradients.append([m.grad[0, 4 * trainer.model.reg_max :] for m in maps if m.grad is not None])
    for with_crowd, without in zip(*gradients, strict=True):
        middle = with_crowd.shape[-1] // 2  # points right of it lie in the crowd
        assert (with_crowd[..., middle:] == 0).all()
        if middle:
            assert (with_crowd[..., :middle] != 0).all()
            assert (without[..., middle:] != 0).all()
