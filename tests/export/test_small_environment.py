"""Exported files where torch is not installed, and nothing but the few packages that gfldet/GUIDE.md names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gfldet
from gfldet import Model

# The modules of what tools/small installs, and of what that brings along.
ALLOWED = (
    *("gfldet", "numpy", "cv2", "onnxruntime", "yaml", "_yaml", "PIL", "tqdm", "hotcoco", "pycocotools"),
    *("flatbuffers", "google", "packaging"),
)
# In the environment of the tests: everything else is hidden.
HIDE = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
allowed = set(sys.argv[1].split()) | set(sys.stdlib_module_names)

class Small:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, path, target) if name.partition(".")[0] in allowed else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Small]
sys.path[:0] = [sys.argv[2]]
"""
COMMANDS = """
import sys
from gfldet.cli import main
file, data, images = sys.argv[3:]
assert main(["predict", f"model={file}", f"source={images}", "conf=0.3", "save_json=true", "save=false"]) == 0
assert main(["val", f"model={file}", f"data={data}"]) == 0
assert main(["train"]) == 2
others = {name.partition(".")[0] for name in sys.modules} & {"torch", "torchvision", "matplotlib", "onnx", "scipy"}
assert not others, others
"""
MEGABYTES = 300


def made_python() -> str:
    """The Python of tools/small."""
    python = os.environ.get("GFLDET_SMALL_PYTHON")
    if not python:
        pytest.skip("GFLDET_SMALL_PYTHON=$(tools/small) names the environment")
    return python


@pytest.fixture(params=["hidden", "made"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """Python with its first arguments: the tests' own with most of it hidden, or that of tools/small."""
    root = Path(gfldet.__file__).parents[1]
    if request.param == "hidden":
        return [sys.executable, "-c", HIDE + COMMANDS, " ".join(ALLOWED), str(root)]
    return [made_python(), "-I", "-c", COMMANDS, "", ""]


def test_the_small_environment_is_small() -> None:
    folder = Path(made_python()).parents[1]
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MEGABYTES * 1e6
    assert not list(folder.glob("lib/*/site-packages/torch*"))


def test_predict_and_val_without_torch(
    command: list[str], checkpoint: Callable[..., Path], dataset: Callable[..., Any], tmp_path: Path
) -> None:
    data = dataset(val=3)
    best = checkpoint(data.yaml)
    file = Model(best).export(dynamic=True, verbose=False, threads=1)
    images = data.images / "val"
    command = [*command, *map(str, (file, data.yaml, images))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "matplotlib is not installed, so no curves are drawn" in done.stderr
    assert "torch is not installed" in done.stderr
    theirs = json.loads((tmp_path / "runs" / "predict" / "predictions.json").read_text("utf-8"))
    ours = Model(best).predict(str(images), conf=0.3, verbose=False, threads=1)
    found = [list(box) for one in ours for box in zip(one.boxes.xywh, one.boxes.conf, one.boxes.cls, strict=True)]
    assert len(theirs) == len(found) > 10
    for row, (xywh, score, number) in zip(theirs, found, strict=True):
        left, top, width, height = row["bbox"]
        np.testing.assert_allclose([left + width / 2, top + height / 2, width, height], xywh, atol=0.1)
        assert row["score"] == pytest.approx(float(score), abs=1e-3)
        assert row["category_id"] == (7, 91)[int(number)]
    ap = json.loads((tmp_path / "runs" / "val" / "metrics.json").read_text("utf-8"))["map"]
    again = Model(best).val(data=str(data.yaml), project=str(tmp_path / "again"), plots=False, verbose=False, threads=1)
    assert ap == pytest.approx(again.map, abs=1e-6)
