"""Functions run in processes that know each other by gloo, as torchrun starts them; they are forked, which is fast."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from gfldet.ranks.group import Group


def _child(work: Callable[[Group], Any], rank: int, size: int, folder: Path, number: int) -> None:
    """Do the work as one rank, and leave what it gives, or how it failed, in a file; never returns."""
    try:
        torch.set_num_threads(1)
        store = dist.FileStore(str(folder / f"store{number}"), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        dist.barrier()  # who has nothing to say to the others would be gone before they have found it
        found: Any = work(Group(rank, size, size, "cpu"))
        dist.destroy_process_group()
    except BaseException:
        found = traceback.format_exc()
    (folder / f"found{number}-{rank}").write_bytes(pickle.dumps(found))
    os._exit(0)


@pytest.fixture
def in_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """work(group) -> what it gives in each of `size` processes."""
    numbers = iter(range(100))

    def run(work: Callable[[Group], Any], size: int = 2) -> list[Any]:
        number, children = next(numbers), []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                _child(work, rank, size, tmp_path, number)
            children.append(child)
        try:
            for child in children:
                os.waitpid(child, 0)
        except BaseException:
            for child in children:
                os.kill(child, signal.SIGKILL)
            raise
        found = [pickle.loads((tmp_path / f"found{number}-{rank}").read_bytes()) for rank in range(size)]  # noqa: S301
        failed = [one for one in found if isinstance(one, str) and one.startswith("Traceback")]
        assert not failed, failed[0]
        return found

    return run
