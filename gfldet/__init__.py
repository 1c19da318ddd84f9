"""gfldet, an object detector with generalized focal losses.

`Model`, `Observer`, `Results` and `check` are resolved on first use, so that `import gfldet` alone (and with it
`gfldet --help`) loads neither torch nor numpy.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gfldet.machine.cores import wait_little

if TYPE_CHECKING:
    from gfldet.checking import check_data as check
    from gfldet.model import Model
    from gfldet.results import Results
    from gfldet.train.events import Observer

__version__ = "0.1.0"
__all__ = ["Model", "Observer", "Results", "__version__", "check"]

wait_little(os.environ)  # before anything loads torch

_HOMES = {  # name -> the module that it comes from, and its name there
    "Model": ("gfldet.model", "Model"),
    "Observer": ("gfldet.train.events", "Observer"),
    "Results": ("gfldet.results", "Results"),
    "check": ("gfldet.checking", "check_data"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gfldet' has no attribute {name!r}")
    module, there = _HOMES[name]
    return getattr(import_module(module), there)


def __dir__() -> list[str]:
    return sorted(__all__)
