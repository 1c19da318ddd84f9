"""Nothing behind the user's back: no network, and no file but the run folder's, whatever HOME is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NO_NETWORK = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"the network was asked for: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""
COMMANDS = """
from gfldet.cli import main
model, data, images = sys.argv[1:]
common = ["imgsz=64", "threads=1"]
run = "runs/train/weights/best.pt"
assert main(["train", f"model={model}", f"data={data}", "epochs=1", "batch=4", *common]) == 0
assert main(["val", f"model={run}", *common]) == 0
assert main(["predict", f"model={run}", f"source={images}", "conf=0.001", *common]) == 0
"""
EXPORTED = """
from gfldet.cli import main
model, images, format, file = sys.argv[1:]
assert main(["export", f"model={model}", f"format={format}", f"out={file}", "imgsz=64"]) == 0
assert main(["predict", f"model={file}", f"source={images}", "save=false"]) == 0
"""
PLOT = """
from gfldet.viz.plots import plot_confusion
plot_confusion("matrix.png", [[1, 2], [3, 4]], ["a"])
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name in ("home", "work", "temporary"):
        (tmp_path / name).mkdir()
    return tmp_path / "work"


def run(work: Path, home: Path, code: str, *arguments: object, **environment: str) -> None:
    """Run code in a process of its own, which has to end well and without a word on stderr."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "MPL", "ORT_"))}
    own = {"HOME": str(home), "TMPDIR": str(work.parent / "temporary"), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", NO_NETWORK + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=work, env={**kept, **own}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def left(folder: Path) -> list[str]:
    """What lies in a folder, but for an empty one that torch makes when torchvision is imported."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("torchinductor_"))


@pytest.mark.long
def test_commands_write_nothing_but_their_run_folders(
    work: Path, dataset: Callable[..., Any], tiny_yaml: Path, tmp_path: Path
) -> None:
    data = dataset(train=4, val=2)
    run(work, tmp_path / "home", COMMANDS, tiny_yaml, data.yaml, data.images / "val")
    assert (left(tmp_path / "home"), left(tmp_path / "temporary")) == ([], [])
    assert left(work) == ["runs"]
    assert left(work / "runs") == ["predict", "train", "val"]
    assert (work / "runs" / "train" / "results.png").stat().st_size > 1000


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "format", "files"),
    [("onnxruntime", "onnx", ["model.onnx"]), ("openvino", "openvino", ["model.xml", "model.bin"])],
)
def test_an_engine_keeps_no_record_of_its_use(
    engine: str,
    format: str,
    files: list[str],
    work: Path,
    dataset: Callable[..., Any],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """onnxruntime 1.32 and OpenVINO 2026 do, for their makers; OpenVINO asks the network once it is imported."""
    if find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    data = dataset(train=1, val=1)
    run(work, tmp_path / "home", EXPORTED, checkpoint(), data.images / "val", format, files[0])
    assert (left(tmp_path / "home"), left(tmp_path / "temporary")) == ([], [])
    assert left(work) == sorted(files)


@pytest.mark.long
def test_plots_do_without_home(work: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "file").write_text("")  # even root cannot write below a file
    run(work, tmp_path / "home" / "file", PLOT)
    assert left(work) == ["matrix.png"]
    assert left(tmp_path / "temporary") == []


@pytest.mark.long
def test_a_folder_that_the_user_names_for_matplotlib_is_used(work: Path, tmp_path: Path) -> None:
    run(work, tmp_path / "home", PLOT, MPLCONFIGDIR=str(tmp_path / "mine"))
    assert [name for name in left(tmp_path / "mine") if name.startswith("fontlist")]
    assert left(tmp_path / "home") == []
