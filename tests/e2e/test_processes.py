"""The command line in processes of its own: signals end it, two at once do not meet.  Each imports torch, so all take
seconds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gfldet
from gfldet.store import checkpoint as checkpoints

pytestmark = pytest.mark.long

# What a shell starts in the background ignores Ctrl-C, what `nohup` starts ignores the hang-up; Python leaves both so.
# What a user starts in a terminal ignores neither.
START = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if "UNDER_NOHUP" not in os.environ:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
from gfldet.cli import main
sys.exit(main())
"""
TOLD = {
    signal.SIGINT: "gfldet: interrupted; ",
    signal.SIGTERM: "gfldet: ended by SIGTERM; ",
    signal.SIGHUP: "gfldet: ended by SIGHUP; ",
}


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Words of a command line -> the process, in tmp_path."""
    paths = os.pathsep.join((str(Path(gfldet.__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}

    def run(*words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", START, *words],
            cwd=tmp_path,
            env=environment | ({"UNDER_NOHUP": "1"} if "nohup" in prefix else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.fixture
def train_words(dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path) -> list[str]:
    """Those of a training; `epochs` are to be given."""
    settings = {**quick, "data": dataset().yaml, "model": tiny_yaml, "verbose": True, "project": "runs", "val": False}
    return ["train", *(f"{name}={value}" for name, value in settings.items() if name != "epochs")]


def wait_for(process: subprocess.Popen[str], pattern: str) -> None:
    """Read its output up to a line with the pattern."""
    assert process.stdout is not None
    assert any(re.search(pattern, line) for line in process.stdout), process.communicate()


@pytest.mark.parametrize("number", TOLD)
def test_a_signal_ends_a_training_which_then_goes_on(
    start: Callable[..., Any], train_words: list[str], number: signal.Signals, tmp_path: Path
) -> None:
    with start(*train_words, "epochs=9000") as process:
        wait_for(process, r"^ +3/9000")
        for _ in range(3):  # who presses twice sees no more
            process.send_signal(number)
            time.sleep(0.05)
        _, told = process.communicate(timeout=100)
    assert process.returncode == 128 + number
    how = r"(\d+) of 9000 epochs (?:is|are) kept; gfldet train resume=runs/train goes on from there\n"
    kept = re.fullmatch(TOLD[number] + how, told)
    assert kept, told
    assert not list((tmp_path / "runs").rglob(".*"))
    done = checkpoints.load(tmp_path / "runs" / "train" / "weights" / "last.pt").epoch + 1
    assert done == int(kept[1]) >= 2
    with start("train", "resume=runs/train", f"epochs={done + 1}") as process:
        _, told = process.communicate(timeout=100)
    assert (process.returncode, told) == (0, "")


def test_a_hangup_that_is_ignored_stays_so(start: Callable[..., Any], train_words: list[str]) -> None:
    with start(*train_words, "epochs=12", prefix=("nohup",)) as process:
        wait_for(process, r"^ +2/12")
        process.send_signal(signal.SIGHUP)
        wait_for(process, r"^ +12/12")
        process.communicate(timeout=100)
    assert process.returncode == 0


def test_two_runs_at_once_have_two_folders(start: Callable[..., Any], train_words: list[str], tmp_path: Path) -> None:
    processes = [start(*train_words, "epochs=2", f"seed={seed}") for seed in (1, 2)]
    for process in processes:
        process.communicate(timeout=100)
        assert process.returncode == 0
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert folders == ["train", "train2"]
    last = [checkpoints.load(tmp_path / "runs" / name / "weights" / "last.pt") for name in folders]
    assert {checkpoint.settings["seed"] for checkpoint in last} == {1, 2}
    assert [checkpoint.epoch for checkpoint in last] == [1, 1]


def test_two_resumes_at_once_are_one(start: Callable[..., Any], train_words: list[str], tmp_path: Path) -> None:
    with start(*train_words, "epochs=9000") as process:
        wait_for(process, r"^ +2/9000")
        with start("train", "resume=runs/train") as second:
            _, told = second.communicate(timeout=100)
        assert second.returncode == 2
        assert told.startswith(f"gfldet: runs/train: process {process.pid} on ")
        process.kill()
    assert (tmp_path / "runs" / "train" / ".lock").is_file()  # a process that is killed cleans nothing
    done = checkpoints.load(tmp_path / "runs" / "train" / "weights" / "last.pt").epoch + 1
    with start("train", "resume=runs/train", f"epochs={done + 1}") as process:
        assert process.communicate(timeout=100)[1] == ""
    assert process.returncode == 0
    assert not list((tmp_path / "runs").rglob(".*"))


@pytest.mark.parametrize("command", ["predict", "val", "export"])
def test_a_signal_leaves_no_half_files(
    start: Callable[..., Any],
    dataset: Callable[..., Any],
    checkpoint: Callable[..., Path],
    command: str,
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnx")
    drawn = dataset(val=40)
    words = {
        "predict": [f"source={drawn.images}/*/*.png", "save_txt=true", "save_json=true"],
        "val": [f"data={drawn.yaml}"],
        "export": ["out=out/x.onnx", f"data={drawn.yaml}"],
    }[command]
    before = {"predict": r"^.*\.png: ", "val": r"^val: ", "export": "^compared on images"}[command]
    (tmp_path / "out").mkdir()
    with start(command, f"model={checkpoint()}", *words, *(["project=out"] if command != "export" else [])) as process:
        wait_for(process, before)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=100)
    assert (process.returncode, told.splitlines()[-1]) == (143, "gfldet: ended by SIGTERM")
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    if command != "predict":
        assert left == []
        assert not list((tmp_path / "out").iterdir())
    assert not [path for path in left if path.name.startswith(".")]
    assert all(path.stat().st_size for path in left if path.suffix == ".jpg")
