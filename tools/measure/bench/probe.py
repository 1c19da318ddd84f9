"""Inside a measured process: time, peak memory, and how a task is asked for and answered.

`frames` and `files` call both detectors in the same words.  Standard library only, but for the frames of a camera.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

Task = Callable[..., dict[str, Any]]


def serve(tasks: Mapping[str, Task]) -> None:
    """Run the task that argv asks for: its name, its arguments as JSON, and the file that takes its answer.

    An argument `core` ties the process to that core before anything that starts threads is imported.
    """
    name, arguments, answer = sys.argv[1:]
    request = json.loads(arguments)
    core = request.pop("core", None)
    if core is not None:
        os.sched_setaffinity(0, {core})
    Path(answer).write_text(json.dumps(tasks[name](**request)), encoding="utf-8")


def versions(detector: str) -> dict[str, str]:
    """Versions of a detector's package and of what both detectors are built on; imports them all."""
    return {name: importlib.import_module(name).__version__ for name in (detector, "torch", "numpy", "cv2")}


def seconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Wall time of each of `repeats` calls."""
    return [_timed(call) for _ in range(repeats)]


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def frames(detector: Callable[[str], Any], model: str, paths: list[str], imgsz: int) -> dict[str, Any]:
    """Seconds of a call of `predict` on one array in memory, as in a user's loop: the median after the first few."""
    predict = partial(detector(model).predict, imgsz=imgsz, verbose=False)
    arrays = _camera(paths, imgsz)
    for array in arrays[:5]:
        predict(array)
    return {"seconds": statistics.median(seconds(partial(predict, array), 1)[0] for _ in range(3) for array in arrays)}


def files(detector: Callable[[str], Any], model: str, paths: list[str], imgsz: int) -> dict[str, Any]:
    """Seconds an image of one `predict` of all files, after a first one has warmed everything up."""
    predict = partial(detector(model).predict, stream=True, imgsz=imgsz, verbose=False)

    def run(sources: list[str]) -> None:
        for _ in predict(sources):
            pass

    run(paths[:2])
    return {"seconds": seconds(lambda: run(paths), 1)[0] / len(paths)}


def _camera(paths: Sequence[str], side: int) -> list[Any]:
    """The images of files as a camera gives them: square BGR arrays."""
    import cv2
    import numpy as np

    read = (cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) for path in paths)
    return [cv2.resize(image, (side, side)) for image in read if image is not None]


def extra_memory(call: Callable[[], object]) -> float:
    """MB (2**20 bytes) of resident memory by which one call exceeds, at its peak, what the process held before."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew at what is resident now
        before = _status("VmRSS")
        call()
        return (_status("VmHWM") - before) / 2**10
    except OSError:  # elsewhere: the growth of the highest peak so far, too little if an earlier one was higher
        unit = 2**20 if sys.platform == "darwin" else 2**10
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def _status(name: str) -> int:
    """A line of /proc/self/status, in KB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
