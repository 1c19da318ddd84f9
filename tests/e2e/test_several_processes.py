"""Runs in two processes, by `device=cpu:2` and by torchrun: their files, their end, and how they go on.  All take
seconds, as each process imports torch."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import gfldet
from gfldet.model import Model
from gfldet.store import checkpoint as checkpoints

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
GFLDET = (sys.executable, "-m", "gfldet")
Start = Callable[..., "subprocess.Popen[str]"]
EACH = "import os, sys; from gfldet.cli import main; rank = os.environ['RANK']; {}; sys.exit(main({}))"
ELSEWHERE = (  # for EACH: rank 1 works in a folder of its own
    "os.makedirs('b', exist_ok=True); rank == '1' and os.chdir('b'); from gfldet.store import runs; runs.SEEN = 1"
)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Words of a command -> the process, in tmp_path; `env` adds to its environment."""
    paths = os.pathsep.join((str(Path(gfldet.__file__).parents[1]), os.environ.get("PYTHONPATH", "")))

    def run(*words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **(env or {})}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, cwd=tmp_path, env=environment, **pipes)

    return run


@pytest.fixture
def words(dataset: Callable[..., Any], quick: dict[str, Any], tiny_yaml: Path) -> list[str]:
    """Those of a training of batches of 3 and 1 images; device and epochs are to be given."""
    settings = {**quick, "data": dataset(train=7).yaml, "model": tiny_yaml, "verbose": True, "project": "runs"}
    return ["train", *(f"{name}={v}" for name, v in settings.items() if name not in ("epochs", "device"))]


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, and what it printed."""
    out, told = process.communicate(timeout=300)
    return process.returncode, out, told


def wait_for(process: subprocess.Popen[str], pattern: str) -> None:
    assert process.stdout is not None
    assert any(re.search(pattern, line) for line in process.stdout), process.communicate()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that it started, in the order of their ranks."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
    ranks = {}
    for child in map(int, children):
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found = [entry for entry in environment if entry.startswith(b"RANK=")]
        if found:
            ranks[int(found[0].removeprefix(b"RANK="))] = child
    return [ranks[rank] for rank in sorted(ranks)]


def test_two_processes_leave_the_files_of_one(start: Start, words: list[str], tmp_path: Path) -> None:
    """In any case with statistics over both; rank 0 alone speaks, and predictions are the same to the bit."""
    (tmp_path / "temporary").mkdir()
    here = {"TMPDIR": str(tmp_path / "temporary")}
    code, out, told = ended(start(*GFLDET, *words, "epochs=2", "device=cpu:2", "sync_bn=true", "name=two", env=here))
    assert (code, told) == (0, "")
    assert not [name for name in os.listdir(here["TMPDIR"]) if not name.startswith("torchinductor_")]
    assert out.count("2/2 ") == 1
    assert "2 processes, 2 on this machine; of each batch 2 images for 1 of them, 1 for the others" in out
    assert "Results are in runs/two" in out
    assert ended(start(*GFLDET, *words, "epochs=2", "device=cpu", "name=one"))[0] == 0
    one, two = (checkpoints.load(tmp_path / "runs" / name / "weights" / "last.pt") for name in ("one", "two"))
    for name, value in one.weights.items():
        torch.testing.assert_close(two.weights[name], value, rtol=1e-3, atol=1e-4)
    assert {p.name for p in (tmp_path / "runs/one").iterdir()} == {p.name for p in (tmp_path / "runs/two").iterdir()}
    val = ("val", "model=runs/two/weights/best.pt", "batch=1", "plots=false", "project=runs")
    assert ended(start(*GFLDET, *val, "device=cpu", "name=val-one"))[0] == 0
    code, out, _ = ended(start(*TORCHRUN, "-m", "gfldet", *val, "device=cpu", "name=val-two"))
    assert code == 0
    assert out.count("AP50-95") == 1
    for file in ("predictions.json", "metrics.json"):
        first, second = ((tmp_path / "runs" / name / file).read_bytes() for name in ("val-one", "val-two"))
        assert first == second
    assert json.loads(first)


@pytest.fixture
def weights(tiny_yaml: Path, tmp_path: Path) -> Path:
    """A file of fresh weights, the same for all processes."""
    file = tmp_path / "tiny.pt"
    Model(str(tiny_yaml)).save(file)
    return file


@pytest.fixture
def photos(dataset: Callable[..., Any], tmp_path: Path) -> Path:
    """A folder of seven pictures, of which two cannot be read, and two have 16 bits but use ten."""
    folder = Path(dataset(train=7).yaml).parent / "images" / "train"
    for number in (2, 3):
        (folder / f"{number:03d}.png").write_bytes((folder / "000.png").read_bytes()[:60])
    for number in (5, 6):
        cv2.imwrite(str(folder / f"{number:03d}.png"), np.full((64, 64), 1000, np.uint16))
    return folder


def test_predictions_of_two_processes_are_those_of_one(
    start: Start, photos: Path, weights: Path, tmp_path: Path
) -> None:
    """Files, lines and errors, in the same order, by the command's own processes and by torchrun."""
    settings = (f"model={weights}", f"source={photos}", "conf=.01", "imgsz=64", "threads=1", "save_json=true")
    words = ("predict", *settings, "save_txt=true", "save_format=coco,yolo")
    by_name = {
        "one": start(*GFLDET, *words, "device=cpu", "name=one"),
        "two": start(*GFLDET, *words, "device=cpu:2", "name=two"),
        "run": start(*TORCHRUN, "-m", "gfldet", *words, "device=cpu", "name=run"),
    }
    code, out, told = ended(by_name["one"])
    assert code == 2
    assert len(out.splitlines()) == 5
    assert told.count("005.png: uses fewer than its 16 bits") == told.count("16 bits") == 1
    assert "gfldet: 2 files of the source cannot be read:\n" in told
    files = {p.relative_to(tmp_path / "runs/one"): p.read_bytes() for p in (tmp_path / "runs/one").rglob("*.*")}
    assert json.loads(files[Path("predictions.json")])
    assert sum(path.suffix == ".jpg" for path in files) == 5
    code, *printed = ended(by_name["two"])
    assert (code, *printed) == (2, out, told)
    code, *printed = ended(by_name["run"])
    assert (code, printed[0]) == (1, out)  # torchrun's own code
    assert printed[1].count(told) == 1
    for name in ("two", "run"):
        folder = tmp_path / "runs" / name
        assert {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")} == files


def test_a_picture_that_cannot_be_written_ends_both_where_it_ends_one(
    start: Start, photos: Path, weights: Path, tmp_path: Path
) -> None:
    """Lines and lists are of the pictures before it, whoever comes there first."""
    (tmp_path / "twice.txt").write_text("".join(f"{photos / name}.png\n" for name in ["000", "001"] * 9), "utf-8")
    settings = (f"model={weights}", "source=twice.txt", "conf=.01", "imgsz=64", "threads=1", "exist_ok=true")
    words = ("predict", *settings, "save_json=true")
    results = {}
    for name, device in (("one", "cpu"), ("two", "cpu:2")):
        for number in (6, 3):
            (tmp_path / f"runs/{name}/001-{number}.jpg").mkdir(parents=True)  # entries 11 and 5: both of rank 1
        (tmp_path / f"runs/{name}/000-5.jpg").mkdir()  # entry 8, of rank 0
        code, out, told = ended(start(*GFLDET, *words, f"device={device}", f"name={name}"))
        rows = (tmp_path / f"runs/{name}/predictions.json").read_bytes()
        results[name] = (code, out, re.sub(r"rank 1 on [^:]+: ", "", told).replace("runs/two", "runs/one"), rows)
    assert results["one"] == results["two"]
    assert results["one"][1].count("\n") == 5
    assert "runs/one/001-3.jpg" in results["one"][2]


def test_a_source_that_cannot_be_read_leaves_what_is_there(
    start: Start, photos: Path, weights: Path, tmp_path: Path
) -> None:
    """No folder comes, and nothing in one that exists is written over; an error of all is told once."""
    (tmp_path / "bad.txt").write_text(f"{photos / '002.png'}\n{photos / '003.png'}\n", encoding="utf-8")
    mine = tmp_path / "runs/mine/predictions.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    words = ("predict", "source=bad.txt", "imgsz=64", "save_json=true", "save_format=coco", "device=cpu:2")
    into = start(*GFLDET, *words, f"model={weights}", "name=mine", "exist_ok=true")
    assert ended(into)[::2] == (2, ended(start(*GFLDET, *words[:-1], f"model={weights}", "device=cpu"))[2])
    code, out, told = ended(start(*GFLDET, *words, f"model={weights}", "on_bad=skip"))
    assert (code, out) == (0, "")
    assert told.count("left out (on_bad=skip)") == 2
    assert [p.relative_to(tmp_path / "runs").as_posix() for p in (tmp_path / "runs").rglob("*")] == [
        "mine",
        "mine/predictions.json",
    ]
    assert mine.read_text(encoding="utf-8") == "mine"
    assert ended(start(*GFLDET, *words, "model=none.pt"))[2].count("none.pt: no such file") == 1


def killed(process: subprocess.Popen[str], rank: int) -> str:
    """What is told where one of two processes is killed; all end within a minute."""
    began = time.monotonic()
    os.kill(workers_of(process)[rank], signal.SIGKILL)
    code, _, told = ended(process)
    assert time.monotonic() - began < 60
    assert code == 1
    assert f"rank {rank} of 2 was ended by SIGKILL, so the others were ended too" in told
    return told


TOGETHER = """
import sys
import numpy as np
from gfldet import Model
model = Model(sys.argv[1])
for source in (np.zeros((64, 64, 3), np.uint8), sys.argv[2]):
    try:
        model.predict_together(source, imgsz=64, device="cpu", project="runs", verbose=False)
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {str(error)[:30]}\\n")
"""


def test_predicting_together_from_python_fails_in_all(
    start: Start, photos: Path, weights: Path, tmp_path: Path
) -> None:
    """By one error; and nobody finds what only one has in memory."""
    (tmp_path / "script.py").write_text(TOGETHER, encoding="utf-8")
    code, _, told = ended(start(*TORCHRUN, "script.py", str(weights), str(photos)))
    assert code == 0, told
    assert told.count("ConfigError: source: several processes shar") == 2, told
    assert told.count("Unreadable: 2 files of the source cannot ") == 2, told


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_a_prediction(
    start: Start, photos: Path, weights: Path, rank: int, tmp_path: Path
) -> None:
    """A list of what was found until then is whole, if there was time to write one."""
    (tmp_path / "many.txt").write_text(f"{photos / '000.png'}\n" * 20_000, encoding="utf-8")
    settings = (f"model={weights}", "source=many.txt", "imgsz=64", "conf=.01", "save_json=true", "save=false")
    process = start(*GFLDET, "predict", *settings, "device=cpu:2")
    wait_for(process, r"000\.png: ")
    killed(process, rank)
    for file in tmp_path.glob("runs/predict/*"):
        assert json.loads(file.read_text(encoding="utf-8"))


def test_a_folder_of_predictions_that_one_does_not_see(
    start: Start, photos: Path, weights: Path, tmp_path: Path
) -> None:
    script = tmp_path / "each.py"
    words = ["predict", f"model={weights}", f"source={photos}", "imgsz=64", "device=cpu"]
    script.write_text(EACH.format(ELSEWHERE, repr(words)), encoding="utf-8")
    code, _, told = ended(start(*TORCHRUN, str(script)))
    assert code == 1
    assert re.search(r"rank 1 on \S+: \S+/b/runs/predict: the run folder that rank 0 .* made is not seen here", told)
    assert not (tmp_path / "runs" / "predict").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_run_which_then_goes_on(
    start: Start, words: list[str], rank: int, tmp_path: Path
) -> None:
    process = start(*GFLDET, *words, "epochs=9000", "device=cpu:2", "val=false")
    wait_for(process, r"^ +2/9000")
    told = killed(process, rank)
    kept = re.search(r"(\d+) of 9000 epochs (?:is|are) kept; gfldet train resume=runs/train goes on from there", told)
    assert kept, told
    done = checkpoints.load(tmp_path / "runs/train/weights/last.pt").epoch + 1
    code, out, told = ended(start(*GFLDET, "train", "resume=runs/train", f"epochs={done + 1}", "device=cpu"))
    assert (code, told) == (0, "")
    assert re.search(f"{done} of {done + 1} epochs (is|are) done", out)


def runs(process: int) -> bool:
    """Whether a process runs; one that has ended, and that nobody has asked about yet, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ranks_end_with_their_launcher(start: Start, words: list[str], tmp_path: Path) -> None:
    """A launcher that is killed tells them nothing; the run can be resumed at once."""
    process = start(*GFLDET, *words, "epochs=9000", "device=cpu:2", "val=false")
    wait_for(process, r"^ +2/9000")
    ranks = workers_of(process)
    process.kill()
    code, _, told = ended(process)  # the ranks hold its streams open
    assert code == -signal.SIGKILL
    # Rank 0 notices what is gone first: the launcher, or rank 1, which has ended for the same reason.
    assert len(re.findall("the launcher that started it is gone|another process of the run has ended", told)) == 1
    until = time.monotonic() + 10
    while any(map(runs, ranks)) and time.monotonic() < until:
        time.sleep(0.1)  # they have closed their streams, and are about to end
    assert not any(map(runs, ranks))
    done = checkpoints.load(tmp_path / "runs/train/weights/last.pt").epoch + 1
    code, _, told = ended(start(*GFLDET, "train", "resume=runs/train", f"epochs={done}", "device=cpu"))
    assert (code, told) == (0, "")


STOPS = """
import sys
from gfldet.cli import main
from gfldet.train.observers import ResultsCsv
epoch, end = ResultsCsv.epoch, int(sys.argv[1])
ResultsCsv.epoch = lambda self, report: epoch(self, report) if report.epoch < end else sys.exit(7)
sys.exit(main(sys.argv[2:]))
"""


def test_another_number_of_processes_keeps_the_schedule(start: Start, words: list[str], tmp_path: Path) -> None:
    """One process, then two, then one: the rates of one process to the bit, the weights but for rounding."""
    script = tmp_path / "stops.py"  # a training that ends when it has done so many epochs
    script.write_text(STOPS, encoding="utf-8")
    settings = (*words, "device=cpu", "sync_bn=true", "close_mosaic=2", "epochs=5")
    assert ended(start(*GFLDET, *settings, "name=one"))[0] == 0
    assert ended(start(sys.executable, str(script), "2", *settings, "name=mixed"))[0] == 7
    assert ended(start(*TORCHRUN, str(script), "4", "train", "resume=runs/mixed"))[0] == 1
    code, out, told = ended(start(*GFLDET, "train", "resume=runs/mixed", "device=cpu"))
    assert (code, told) == (0, "")
    assert "4 of 5 epochs are done" in out
    rows = [
        [(row["epoch"], row["lr"]) for row in csv.DictReader(text.splitlines())]
        for text in ((tmp_path / "runs" / name / "results.csv").read_text("utf-8") for name in ("one", "mixed"))
    ]
    assert rows[0] == rows[1]
    one, mixed = (checkpoints.load(tmp_path / "runs" / name / "weights" / "last.pt") for name in ("one", "mixed"))
    for name, value in one.weights.items():
        torch.testing.assert_close(mixed.weights[name], value, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("to", ["the launcher", "all", "rank 1"])
def test_a_signal_ends_all_and_is_told_once(start: Start, words: list[str], to: str) -> None:
    process = start(*GFLDET, *words, "epochs=9000", "device=cpu:2", "val=false")
    wait_for(process, r"^ +2/9000")
    signal_to(process, to, signal.SIGTERM)
    code, _, told = ended(process)
    assert code == 143
    kept = r"gfldet: .*\d+ of 9000 epochs (is|are) kept; gfldet train resume=runs/train goes on from there\n"
    assert re.fullmatch(f"{kept}gfldet: ended by SIGTERM\n", told), told


def signal_to(process: subprocess.Popen[str], to: str, number: signal.Signals) -> None:
    """Send a signal to a run of two processes: all of them get Ctrl-C of a terminal."""
    one, two = workers_of(process)
    for each in {"the launcher": [process.pid], "all": [process.pid, one, two], "rank 1": [two]}[to]:
        os.kill(each, number)


@pytest.mark.parametrize("seconds", [0.2, 0.4, 0.6, 1, 1.4])
def test_a_signal_before_there_is_work_is_told_once(start: Start, words: list[str], seconds: float) -> None:
    """Whatever is being imported then, and by whom."""
    process = start(*GFLDET, *words, "epochs=9000", "device=cpu:2", "val=false")
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    code, _, told = ended(process)
    assert (code, told) in ((143, "gfldet: ended by SIGTERM\n"), (-signal.SIGTERM, ""))


def test_who_waits_for_the_others_to_start_hears_a_signal(start: Start, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\nif os.environ.get('RANK') == '1': time.sleep(60)\n", encoding="utf-8"
    )
    paths = os.pathsep.join((str(tmp_path), str(Path(gfldet.__file__).parents[1])))
    words = ("predict", f"model={weights}", "source=shapes", "device=cpu:2")
    process = start(*GFLDET, *words, env={"PYTHONPATH": paths})
    time.sleep(4)  # rank 0 waits for rank 1 by then, on a machine that is not very busy
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "", "gfldet: ended by SIGTERM\n")
    assert time.monotonic() - began < 20  # of 30 after which torch would kill it


def test_an_error_of_all_is_told_by_the_first_who_comes_last(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "each.py"
    late = "import time; rank == '0' and time.sleep(1.5)"
    script.write_text(EACH.format(late, ["predict", "source=none", "model=none.pt"]), encoding="utf-8")
    code, _, told = ended(start(*TORCHRUN, str(script)))
    assert code == 1
    assert told.count("none.pt: no such file") == 1


def test_torchrun_starts_again_and_the_run_goes_on(start: Start, words: list[str], tmp_path: Path) -> None:
    process = start(*TORCHRUN, "--max-restarts", "1", "-m", "gfldet", *words, "epochs=40", "device=cpu", "name=mine")
    wait_for(process, r"^ +3/40")
    os.kill(workers_of(process)[1], signal.SIGKILL)
    code, out, told = ended(process)
    assert code == 0, told
    assert re.search(r"training continues from runs/mine/weights/last.pt: \d+ of 40 epochs (is|are) done", out), told
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["mine"]
    rows = (tmp_path / "runs/mine/results.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 41))


@pytest.mark.parametrize(
    ("words_of_rank", "expected"),
    [
        ("words + ['seed=' + rank]", r"differ in settings:\n  seed: 1 for rank 1 on \S+, 0 for rank 0"),
        ("words + ['data=shapes-dense'] * (rank == '1')", "differ in settings:\n  data: 'shapes-dense' for rank 1"),
    ],
)
def test_ranks_that_differ_are_told_apart(
    start: Start, quick: dict[str, Any], tiny_yaml: Path, words_of_rank: str, expected: str, tmp_path: Path
) -> None:
    settings = {**quick, "model": tiny_yaml, "batch": 64}
    words = ["train", *(f"{name}={value}" for name, value in settings.items())]
    script = tmp_path / "each.py"
    script.write_text(EACH.format(f"words = {words}", words_of_rank), encoding="utf-8")
    code, _, told = ended(start(*TORCHRUN, str(script)))
    assert code == 1
    assert re.search(expected, told), told
    assert told.count("The processes of the run differ") == 1
    assert not (tmp_path / "runs").exists()


def test_a_validation_whose_ranks_differ(
    start: Start, dataset: Callable[..., Any], weights: Path, tmp_path: Path
) -> None:
    data = dataset(train=2).yaml
    words = ["val", f"model={weights}", f"data={data}", "device=cpu", "plots=false"]
    script = tmp_path / "each.py"
    script.write_text(EACH.format("pass", f"{words} + ['imgsz=' + str(64 + 32 * int(rank))]"), encoding="utf-8")
    code, _, told = ended(start(*TORCHRUN, str(script)))
    assert code == 1
    assert re.search(r"differ in settings:\n  imgsz: 96 for rank 1 on \S+, 64 for rank 0", told), told
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_folder_that_one_does_not_see(start: Start, words: list[str], tmp_path: Path) -> None:
    script = tmp_path / "each.py"
    script.write_text(EACH.format(ELSEWHERE, repr([*words, "epochs=1", "device=cpu"])), encoding="utf-8")
    code, _, told = ended(start(*TORCHRUN, str(script)))
    assert code == 1
    assert re.search(r"rank 1 on \S+: \S+/b/runs/train: the run folder that rank 0 .* made is not seen here", told), (
        told
    )


TAKEN = """
import os, socket, subprocess, sys
with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    os.environ["MASTER_PORT"] = str(taken.getsockname()[1])
    sys.exit(subprocess.run([sys.executable, "-m", "gfldet", *sys.argv[1:]]).returncode)
"""


def test_a_port_in_use(start: Start, words: list[str], tmp_path: Path) -> None:
    place = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    code, _, told = ended(start(sys.executable, "-c", TAKEN, *words, "device=cpu", env=place))
    assert code == 2
    assert re.fullmatch(r"gfldet: 127\.0\.0\.1:\d+: this port is in use; choose another .*\n", told)
    assert not (tmp_path / "runs").exists()
