"""Starts the processes of this machine by torch's own launcher, as `torchrun --standalone` does, for `device=0,1`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gfldet.errors import ConfigError, WorkError
from gfldet.ranks.place import BY_GFLDET
from gfldet.ranks.watch import HOW_TO_GO_ON
from gfldet.signals import ENDING, Interrupted

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

ASK = 0.2  # s between two looks at the processes
SOON = 10  # s; torch gives a process three times as long to end


def launch(processes: int, words: Sequence[str]) -> int:
    """Run `gfldet WORDS` in so many processes, which know each other by torchrun's environment; the exit code.

    A process that ends by an error says why itself; the others are ended then.  Raises WorkError for one that was
    killed, Interrupted for a signal that this process got, which the others get too, or that one of them got;
    ConfigError where torch is not installed.
    """
    if find_spec("torch") is None:
        raise ConfigError("device: several processes take torch, which is not installed here; give one device")
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    of_torch = logging.getLogger("torch.distributed.elastic")
    of_torch.propagate = False  # what went wrong is told below
    of_torch.addHandler(logging.NullHandler())
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{BY_GFLDET}{uuid.uuid4()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any port that is free
        max_restarts=0,
        monitor_interval=ASK,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # it would leave a folder otherwise
    )
    return _launched(config, words)


def _launched(config: LaunchConfig, words: Sequence[str]) -> int:
    """See `launch`."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    try:
        elastic_launch(config, sys.executable)("-m", "gfldet", *words)
    except SignalException as error:
        raise Interrupted(int(error.sigval)) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        # Who was killed is the reason, also where another noticed and ended before the launcher looked.  One that it
        # killed itself, much later, did not end when it was asked to.
        killed = [
            (rank, one)
            for rank, one in sorted(error.failures.items())
            if one.exitcode < 0 and one.timestamp - failure.timestamp < SOON
        ]
        rank, failure = killed[0] if killed else (rank, failure)
        if failure.exitcode < 0:
            one = f"rank {rank} of {config.nproc_per_node}"
            name = signal.Signals(-failure.exitcode).name
            how = f"; {HOW_TO_GO_ON}" if words[0] == "train" else ""
            raise WorkError(f"{one} was ended by {name}, so the others were ended too{how}") from None
        if failure.exitcode - 128 in ENDING:
            raise Interrupted(failure.exitcode - 128) from None
        return int(failure.exitcode)
    return 0
