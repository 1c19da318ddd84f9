"""Loggers with the real tools: what each has of a run that was resumed, read back; nothing leaves the machine.

Each training is a process of its own, as the tools leave threads, processes and settings behind.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from gfldet.store import checkpoint as checkpoints
from gfldet.train.observers import COLUMNS

# A process that tells of every connection, and of every name looked up, that leads away from this machine.
ALONE = """
import socket, sys


def guarded(real, host_of):
    def call(*given, **named):
        host = host_of(given)
        if host not in (None, "", "127.0.0.1", "::1", "localhost", socket.gethostname()):
            print("AWAY", host, flush=True)
            raise OSError("no network here")
        return real(*given, **named)

    return call


def of_socket(given):
    return given[1][0] if isinstance(given[1], tuple) else None


socket.socket.connect = guarded(socket.socket.connect, of_socket)
socket.socket.connect_ex = guarded(socket.socket.connect_ex, of_socket)
socket.getaddrinfo = guarded(socket.getaddrinfo, lambda given: given[0])
"""
TRAIN = f"{ALONE}\nfrom gfldet.cli import main\nsys.exit(main(sys.argv[1:]))"


class Runs:
    """Trainings in processes of their own, in one folder, without the settings that this machine has of the tools."""

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        self.folder, self.words = folder, words
        away = ("MLFLOW_", "WANDB_", "DO_NOT_TRACK")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(away)}
        self.environment |= {"HOME": str(folder), "CUDA_VISIBLE_DEVICES": ""}

    @property
    def run(self) -> Path:
        return self.folder / "runs/train"

    def python(self, script: str, *words: str) -> str:
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=110
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "AWAY" not in done.stdout
        assert "left out" not in done.stderr
        return done.stdout

    def train(self, *words: str) -> str:
        return self.python(TRAIN, "train", *words)

    def twice(self, tool: str) -> None:
        """A run of an epoch, and in another process one more."""
        told = self.train(*self.words, "epochs=1", f"log={tool}")
        assert told.count("\nlog: ") == 1
        self.train("resume=runs/train", "epochs=2")
        assert (self.run / "report.html").is_file()

    def numbers(self) -> dict[str, list[list[float]]]:
        """The columns of results.csv: name -> [epoch, value]..."""
        with (self.run / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {n: [[int(row["epoch"]), float(row[n])] for row in rows if row[n]] for n in COLUMNS[1:]}

    def read(self, script: str, *words: str) -> Any:
        return json.loads(self.python(f"import json, sys\n{script}", *words).splitlines()[-1])


@pytest.fixture
def runs(dataset: Callable[..., Any], tiny_yaml: Path, tmp_path: Path) -> Runs:
    words = [f"model={tiny_yaml}", f"data={dataset().yaml}", "imgsz=64", "batch=3", "threads=1", "workers=0"]
    return Runs(tmp_path, [*words, "device=cpu"])


def needs(package: str) -> pytest.MarkDecorator:
    spec = find_spec(package)
    return pytest.mark.skipif(spec is None or spec.origin is None, reason=f"the package {package} is not installed")


def same_as_results(logged: dict[str, list[list[float]]], runs: Runs) -> None:
    """The tool has the numbers of results.csv, each at its epoch, and the metrics of the best weights at the end."""
    expected = {name: points for name, points in runs.numbers().items() if points}
    assert len(expected["train/box_loss"]) == 2
    for name, points in expected.items():
        assert [epoch for epoch, _ in logged[name]] == [epoch for epoch, _ in points], name
        for (_, value), (_, wanted) in zip(logged[name], points, strict=True):
            assert value == pytest.approx(wanted, rel=1e-4, abs=0.06 if name == "time" else 1e-6), name
    metrics = json.loads((runs.run / "metrics.json").read_text())
    assert logged["best/mAP50-95"][-1] == [2, pytest.approx(metrics["map"], rel=1e-6)]
    assert {name for name in logged if "/" in name} <= {*COLUMNS, *(f"best/{c[8:]}" for c in COLUMNS if "metrics" in c)}


PICTURES = {"confusion_matrix", "precision_recall", "results", "thresholds", "val_truth_and_detections"}


@pytest.mark.long
@needs("tensorboard")
def test_tensorboard_has_the_run(runs: Runs) -> None:
    runs.twice("tensorboard")
    read = runs.read(
        """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"images": 0, "tensors": 0, "scalars": 0})
events.Reload()
tags = events.Tags()
scalars = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]}
texts = {t: [e.tensor_proto.string_val[0].decode() for e in events.Tensors(t)] for t in tags["tensors"]}
sizes = {tag: [[i.width, i.height] for i in events.Images(tag)] for tag in tags["images"]}
print(json.dumps({"scalars": scalars, "texts": texts, "images": sizes}))
""",
        str(runs.run / "tensorboard"),
    )
    same_as_results(read["scalars"], runs)
    assert set(read["images"]) >= PICTURES
    assert "| imgsz | 64 |" in read["texts"]["settings/text_summary"][0]
    assert read["texts"]["report/text_summary"][-1] == str(runs.run / "report.html")


@pytest.mark.long
@needs("tensorboard")
def test_epochs_that_are_done_again_replace_those_that_were_logged(runs: Runs) -> None:
    """As after a kill between the report of an epoch and its checkpoint; and a new run in an old folder."""
    script = """
from pathlib import Path
from types import SimpleNamespace
from gfldet.train.events import EpochReport, RunFacts
from gfldet.train.loggers import TensorBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
def logged(done, epochs, loss):
    logger = TensorBoard()
    logger.begin(RunFacts(Path("run"), None, {"verbose": False}, ("a",), done))
    for epoch in epochs:
        logger.epoch(EpochReport(epoch, 1.0, {"box": loss, "cls": 1.0, "dfl": 1.0}, 0.1, None, True))
    logger.close(None)
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    return [[e.step, e.value] for e in events.Scalars("train/box_loss")]
print(json.dumps([logged(0, (0, 1, 2), 1.0), logged(2, (2, 3), 2.0), logged(0, (0,), 3.0)]))
"""
    first, again, anew = runs.read(script)
    assert first == [[1, 1.0], [2, 1.0], [3, 1.0]]
    assert again == [[1, 1.0], [2, 1.0], [3, 2.0], [4, 2.0]]
    assert anew == [[1, 3.0]]


@pytest.mark.long
@needs("mlflow")
def test_mlflow_has_the_run(runs: Runs) -> None:
    runs.twice("mlflow")
    read = runs.read("""
import os
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
from mlflow import MlflowClient
client = MlflowClient()
(run,) = client.search_runs([client.get_experiment_by_name("gfldet").experiment_id])
name = run.info.run_id
metrics = {key: [[m.step, m.value] for m in client.get_metric_history(name, key)] for key in run.data.metrics}
files = [f.path for folder in (None, "pictures") for f in client.list_artifacts(name, folder)]
print(json.dumps([name, run.info.run_name, run.info.status, run.data.params, metrics, files]))
""")
    name, title, status, params, metrics, files = read
    same_as_results(metrics, runs)
    assert (title, status) == ("train", "FINISHED")
    assert (params["imgsz"], params["epochs"], params["log"]) == ("64", "1", "['mlflow']")
    assert (runs.run / "mlflow_run.txt").read_text() == name
    assert {"args.yaml", "report.html"} <= set(files)
    assert {f"pictures/{p}" for p in PICTURES} <= {f.rpartition(".")[0] for f in files}


@pytest.mark.long
@needs("wandb")
def test_wandb_has_the_run(runs: Runs) -> None:
    runs.twice("wandb")
    name = (runs.run / "wandb_run.txt").read_text()
    parts = sorted((runs.run / "wandb").glob("offline-run-*"))
    assert [part.name.endswith(f"-{name}") for part in parts] == [True, True]
    read = runs.read(
        """
import struct
from pathlib import Path
from wandb.proto import wandb_internal_pb2 as messages


def records(data):  # a log of LevelDB: blocks of 32 KB, in which a record is one piece or several
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield messages.Record.FromString(whole)
            whole = b""


rows, settings = [], {}
for path in sys.argv[1:]:
    for record in records(Path(path).read_bytes()):
        if record.HasField("history"):
            items = record.history.item
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
        if record.HasField("run"):
            settings |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
print(json.dumps([rows, settings]))
""",
        *(str(next(part.glob("*.wandb"))) for part in parts),
    )
    rows, settings = read
    logged: dict[str, Any] = {}
    for row in rows:
        for key, value in row.items():
            logged.setdefault(key, []).append([row["_step"], value])
    same_as_results({key: points for key, points in logged.items() if key in COLUMNS or "best/" in key}, runs)
    assert settings["imgsz"] == 64
    assert settings["log"] == ["wandb"]
    assert {key for key in logged if key.endswith("/_type")} >= {f"{name}/_type" for name in (*PICTURES, "report")}
    assert logged["report/_type"][-1] == [2, "html-file"]
    assert len(list(parts[-1].glob("files/media/images/*"))) >= len(PICTURES)


@pytest.mark.long
@pytest.mark.parametrize("tool", [pytest.param(t, marks=needs(t)) for t in ("tensorboard", "mlflow", "wandb")])
def test_a_logger_changes_nothing_in_the_run(tool: str, runs: Runs) -> None:
    runs.train(*runs.words, "epochs=2", f"log={tool}", "verbose=false")
    runs.train(*runs.words, "epochs=2", "name=plain", "verbose=false")
    found = [checkpoints.load(runs.folder / f"runs/{name}/weights/last.pt") for name in ("train", "plain")]
    logged, plain = (checkpoint.weights for checkpoint in found)
    assert all(torch.equal(logged[name], plain[name]) for name in plain)


@pytest.mark.long
@needs("mlflow")
def test_the_user_of_mlflow_says_where(runs: Runs) -> None:
    runs.environment |= {"MLFLOW_TRACKING_URI": "sqlite:///own.db", "MLFLOW_EXPERIMENT_NAME": "eyes"}
    runs.train(*runs.words, "epochs=1", "log=mlflow", "plots=false")
    found = runs.read("""
from mlflow import MlflowClient
client = MlflowClient("sqlite:///own.db")
print(len(client.search_runs([client.get_experiment_by_name("eyes").experiment_id])))
""")
    assert found == 1
    assert not (runs.folder / "mlflow.db").exists()
