"""The two sides of a comparison: a Python, its command, and the environment variables that they run under."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure.bench import LIBRE, PEER
from measure.bench.table import ULTRALYTICS

ROOT = Path(__file__).resolve().parents[3]
TOOLS = ROOT / "tools"


# oneDNN, which both sides compute with, then keeps from its newest instructions; ours asks `amp` for it.
WITHOUT_BFLOAT16 = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}


class BenchError(Exception):
    """A measurement could not be made; the message says why."""


@dataclass(frozen=True)
class Side:
    """One of the programs.  Everything that it writes goes below `work`."""

    name: str  # with its version
    module: str  # of measure.bench: what runs inside this side's Python
    python: Path
    command: tuple[str, ...]  # its command line program
    work: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def seconds(self, *arguments: str) -> float:
        """Wall time of one run of the command line program."""
        began = time.perf_counter()
        self.run([*self.command, *arguments])
        return time.perf_counter() - began

    def peak(self, *arguments: str) -> float:
        """MB (2**20 bytes) of resident memory that one run of the command line program takes at most."""
        return self._peak([*self.command, *arguments])

    def ask_peak(self, task: str, **arguments: Any) -> float:
        """`peak` of a task of this side's module."""
        return self._peak(self._asking(task, arguments))

    def _peak(self, command: list[str]) -> float:
        script = (
            "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
        )
        told = self.run([sys.executable, "-c", script, *command])
        return int(told.splitlines()[-1]) / (2**20 if sys.platform == "darwin" else 2**10)

    def ask(self, task: str, **arguments: Any) -> dict[str, Any]:
        """The answer of a task of this side's module, run in a fresh process."""
        answer = self._answer(task)
        answer.unlink(missing_ok=True)
        self.run(self._asking(task, arguments))
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found

    def _asking(self, task: str, arguments: dict[str, Any]) -> list[str]:
        module = f"measure.bench.{self.module}"
        return [str(self.python), "-m", module, task, json.dumps(arguments), str(self._answer(task))]

    def _answer(self, task: str) -> Path:
        return self.work / f"{task}.json"

    def run(self, command: list[str]) -> str:
        """Run a command in `work`; what it wrote, which a log keeps too.  BenchError with the end of it on failure."""
        environment = {**os.environ, **self.variables}
        done = subprocess.run(
            command,
            cwd=self.work,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        with (self.work / f"{self.module}.log").open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-20:])
            raise BenchError(f"exit code {done.returncode} of: {' '.join(command)}\n{tail}")
        return done.stdout


def last_core() -> int | None:
    """The last core that this process may use; None where the system does not tell."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def our_side(work: Path) -> Side:
    """gfldet in the Python that runs this."""
    script = Path(sys.executable).parent / "gfldet"
    command = (str(script),) if script.is_file() else (sys.executable, "-m", "gfldet")
    return Side("gfldet", "ours", Path(sys.executable), command, work, {"MPLCONFIGDIR": str(work / "matplotlib")})


def peer_side(work: Path, python: Path) -> Side:
    """ultralytics in its own Python, offline."""
    variables = {**_at_home(work), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    variables["YOLO_CONFIG_DIR"] = variables["HOME"]
    return Side(ULTRALYTICS, "theirs", python, (str(python.parent / "yolo"),), work, variables)


def libre_side(work: Path, python: Path) -> Side:
    """LibreYOLO in its own Python."""
    return Side(f"LibreYOLO {LIBRE}", "libre", python, (str(python.parent / "libreyolo"),), work, _at_home(work))


def _at_home(work: Path) -> dict[str, str]:
    """Variables that give a peer a home of its own, where it writes settings and caches."""
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    # Not our checkout: its environment must do without gfldet.
    return {"PYTHONPATH": str(TOOLS), "HOME": str(home), "MPLCONFIGDIR": str(home / "matplotlib")}


def peer_python(given: Path | None) -> Path:
    """The Python to run ultralytics with: the one given, or that of .bench/peer, made and filled if it is missing."""
    return _python_of("peer", f"ultralytics=={PEER}", "--peer-python", given)


def libre_python(given: Path | None) -> Path:
    """The same for LibreYOLO, of .bench/libre."""
    return _python_of("libre", f"libreyolo=={LIBRE}", "--libre-python", given)


def _python_of(name: str, package: str, option: str, given: Path | None) -> Path:
    if given is not None:
        return given.absolute()  # not resolved: a virtual environment's Python is a link
    home = ROOT / ".bench" / name
    python = home / "bin" / "python"
    if not (home / "complete").is_file():
        print(f"Installing {package} into {home} (the first time takes minutes)", file=sys.stderr)
        _make_environment(home, python, package, option)
        (home / "complete").touch()
    return python


def _make_environment(home: Path, python: Path, package: str, option: str) -> None:
    home.parent.mkdir(exist_ok=True)
    (home.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    pip = [str(python), "-m", "pip"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([*pip, "install", "--quiet", package, *_same_torch()], check=True)
        if subprocess.run([str(python), "-c", "import cv2"], capture_output=True, check=False).returncode:
            # A machine without a display may lack what the wheel with windows needs.
            subprocess.run([*pip, "uninstall", "--quiet", "--yes", "opencv-python"], check=True)
            subprocess.run([*pip, "install", "--quiet", "--force-reinstall", "opencv-python-headless"], check=True)
    except subprocess.CalledProcessError as error:
        raise BenchError(
            f"the environment of {package} could not be made: {error}; give a ready one: {option} FILE"
        ) from None


def _same_torch() -> list[str]:
    """The release of torch and torchvision that our side runs on: it is the detectors that are compared."""
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision")]
