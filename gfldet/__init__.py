"""gfldet, an object detector with generalized focal losses.

`Model`, `Observer` and `Results` are resolved on first use, so that `import gfldet` alone (and with it
`gfldet --help`) loads neither torch nor numpy.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gfldet.machine.cores import wait_little

if TYPE_CHECKING:
    from gfldet.model import Model
    from gfldet.results import Results
    from gfldet.train.events import Observer

__version__ = "0.1.0"
__all__ = ["Model", "Observer", "Results", "__version__"]

wait_little(os.environ)  # before anything loads torch

_HOMES = {"Model": "gfldet.model", "Observer": "gfldet.train.events", "Results": "gfldet.results"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gfldet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
