"""Checkpoints of every older version: a file of each, which loads, predicts and goes on training.

files/checkpoint-1.pt is `last.pt` of a run of four epochs (batches of 3 at 64 px, on the data set of `dataset()`) that
was stopped after two.  Its weights were rounded to three bits of fraction.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gfldet import Model
from gfldet.detect.torch_detector import for_inference
from gfldet.errors import CheckpointError
from gfldet.store import checkpoint as checkpoints
from gfldet.store import migrations

FILES = Path(__file__).parent / "files"
FIRST = FILES / "checkpoint-1.pt"
# Of the averaged weights by name, in the order of the names, as the gfldet that wrote the file read them.
WEIGHTS = "cf39d1273685b47e7dcec70b770dc25aa48871b87c99930a9aba643522b55a5b"


def of(weights: Any) -> str:
    """A hash of names and values."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return found.hexdigest()


def test_every_step_has_a_file() -> None:
    assert list(migrations.STEPS) == list(range(1, checkpoints.VERSION))
    for version in migrations.STEPS:
        payload = torch.load(FILES / f"checkpoint-{version}.pt", weights_only=True)
        assert payload["version"] == version
        assert payload["training"] is not None


def test_version_1_comes_as_it_was() -> None:
    model, found = checkpoints.load_model(FIRST)
    assert of(found.weights) == WEIGHTS
    assert (found.names, found.category_ids, found.epoch) == (("red", "blue"), (0, 1), 1)
    assert found.description.preferred == {"cls_loss": "bce"}
    assert found.settings["epochs"] == 4
    assert found.training is not None
    progress = found.training["progress"]
    assert (progress["epoch"], progress["step"], progress["share"]) == (2, 4, 0.5)
    assert model.strides == (8,)


def test_version_1_written_anew_is_of_today(tmp_path: Path) -> None:
    old, path = checkpoints.load(FIRST), tmp_path / "new.pt"
    checkpoints.save(path, old)
    assert torch.load(path, weights_only=True)["version"] == checkpoints.VERSION
    new = checkpoints.load(path)
    assert of(new.weights) == WEIGHTS
    assert (new.description, new.settings, new.metrics) == (old.description, old.settings, old.metrics)
    assert old.training is not None
    assert new.training is not None
    assert new.training["progress"] == old.training["progress"]
    assert of(new.training["weights"]) == of(old.training["weights"])


def test_version_1_predicts(dataset: Callable[..., Any]) -> None:
    """A point of a frame of noise, in the numbers that the gfldet which wrote the file gave."""
    model = Model(FIRST)
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    decoded = for_inference(model.model, torch.device("cpu")).infer(frame).decoded()
    assert decoded.boxes[0, :, 27].tolist() == pytest.approx([28.00224, 28.19254, 20.53773, 21.06033], abs=1e-3)
    assert decoded.scores[0, :, 27].tolist() == pytest.approx([0.0180794, 0.0182792], abs=1e-5)
    found = model.predict(dataset().images / "val", conf=0.0, max_det=3, verbose=False, device="cpu", threads=1)
    assert [len(one.boxes) for one in found] == [3] * 4


def test_version_1_goes_on_training(
    dataset: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset()  # at set/data.yaml, as the run has it in its settings
    run = tmp_path / "runs" / "run"
    (run / "weights").mkdir(parents=True)
    shutil.copyfile(FIRST, run / "weights" / "last.pt")
    model = Model(run / "weights" / "last.pt")
    model.train(resume=str(run))
    last = checkpoints.load(run / "weights" / "last.pt")
    assert last.epoch == 3
    assert last.training is not None
    assert (last.training["progress"]["epoch"], last.training["progress"]["step"]) == (4, 8)
    assert of(last.weights) != WEIGHTS


def _payload() -> dict[str, Any]:
    payload: dict[str, Any] = torch.load(FIRST, weights_only=True)
    return payload


def test_a_run_of_unknown_length_has_no_share() -> None:
    payload = {**_payload(), "settings": {}}
    made = migrations.migrated(payload, 2, migrations.STEPS)
    assert made["training"]["progress"]["share"] == 0.0
    assert migrations.migrated({**payload, "training": None}, 2, migrations.STEPS)["training"] is None
    assert payload["version"] == 1  # what was given is left alone


def test_steps_are_taken_in_turn() -> None:
    steps = {number: lambda p, number=number: {**p, "seen": [*p["seen"], number]} for number in (1, 2, 3)}
    assert migrations.migrated({"version": 1, "seen": []}, 4, steps) == {"version": 4, "seen": [1, 2, 3]}
    assert migrations.migrated({"version": 3, "seen": []}, 4, steps) == {"version": 4, "seen": [3]}
    assert migrations.migrated({"version": 4, "seen": []}, 4, steps) == {"version": 4, "seen": []}


@pytest.mark.parametrize("version", [0, -1, 3, "1", True, 1.0, None])
def test_versions_that_are_unknown_are_refused_by_name(tmp_path: Path, version: Any) -> None:
    torch.save({**_payload(), "version": version, "gfldet": "7.8.9"}, tmp_path / "other.pt")
    told = rf"other\.pt: checkpoint version {version!r}; this gfldet .* reads versions 1 to 2; .*\('7\.8\.9'\)"
    with pytest.raises(CheckpointError, match=told):
        checkpoints.load(tmp_path / "other.pt")


@pytest.mark.parametrize("part", ["model", "settings", "training"])
def test_an_older_checkpoint_that_lacks_parts(tmp_path: Path, part: str) -> None:
    payload = _payload()
    del payload[part]
    torch.save(payload, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"odd\.pt: parts of the checkpoint are missing"):
        checkpoints.load(tmp_path / "odd.pt")
