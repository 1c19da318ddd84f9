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

from measure.bench import PEER

ROOT = Path(__file__).resolve().parents[3]
TOOLS = ROOT / "tools"


# oneDNN, which both sides compute with, then keeps from its newest instructions; ours asks `amp` for it.
WITHOUT_BFLOAT16 = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}


class BenchError(Exception):
    """A measurement could not be made; the message says why."""


@dataclass(frozen=True)
class Side:
    """One of the two programs.  Everything that it writes goes below `work`."""

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
        script = (
            "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
        )
        told = self.run([sys.executable, "-c", script, *self.command, *arguments])
        return int(told.splitlines()[-1]) / (2**20 if sys.platform == "darwin" else 2**10)

    def ask(self, task: str, **arguments: Any) -> dict[str, Any]:
        """The answer of a task of `ours` or `theirs`, run in a fresh process."""
        answer = self.work / f"{task}.json"
        answer.unlink(missing_ok=True)
        self.run([str(self.python), "-m", f"measure.bench.{self.module}", task, json.dumps(arguments), str(answer)])
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found

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
    return Side("ours", Path(sys.executable), command, work, {"MPLCONFIGDIR": str(work / "matplotlib")})


def peer_side(work: Path, python: Path) -> Side:
    """ultralytics in its own Python, offline, with a home of its own: it writes settings and caches there."""
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    variables = {
        "PYTHONPATH": str(TOOLS),  # not our checkout: its environment must do without gfldet
        "HOME": str(home),
        "YOLO_CONFIG_DIR": str(home),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }
    return Side("theirs", python, (str(python.parent / "yolo"),), work, variables)


def peer_python(given: Path | None) -> Path:
    """The Python to run the peer with: the one given, or that of .bench/peer, made and filled if it is missing."""
    if given is not None:
        return given.absolute()  # not resolved: a virtual environment's Python is a link
    home = ROOT / ".bench" / "peer"
    python = home / "bin" / "python"
    if not (home / "complete").is_file():
        print(f"Installing ultralytics {PEER} into {home} (the first time takes minutes)", file=sys.stderr)
        _make_environment(home, python)
        (home / "complete").touch()
    return python


def _make_environment(home: Path, python: Path) -> None:
    home.parent.mkdir(exist_ok=True)
    (home.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    pip = [str(python), "-m", "pip"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([*pip, "install", "--quiet", f"ultralytics=={PEER}", *_same_torch()], check=True)
        if subprocess.run([str(python), "-c", "import cv2"], capture_output=True, check=False).returncode:
            # A machine without a display may lack what the wheel with windows needs.
            subprocess.run([*pip, "uninstall", "--quiet", "--yes", "opencv-python"], check=True)
            subprocess.run([*pip, "install", "--quiet", "--force-reinstall", "opencv-python-headless"], check=True)
    except subprocess.CalledProcessError as error:
        raise BenchError(
            f"the peer's environment could not be made: {error}; give a ready one: --peer-python FILE"
        ) from None


def _same_torch() -> list[str]:
    """The release of torch and torchvision that our side runs on: it is the detectors that are compared."""
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision")]
