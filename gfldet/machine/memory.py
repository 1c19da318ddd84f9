"""How much memory there is for images, how freed memory is kept for the next step, and whether a disk is full."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gfldet.machine import system
from gfldet.machine.system import groups_around, lines, number, numbers


def memory_budget(cache: str) -> int:
    """Bytes of RAM that images may take: all (`ram`), none (`none`), or half of what is free now (`auto`)."""
    if cache != "auto":
        return 1 << 62 if cache == "ram" else 0
    return free_memory() // 2


def free_memory() -> int:
    """Bytes of RAM that this process may still take: the least of what the machine has, of what each control group
    around the process leaves (a container, a job of a scheduler), and of what `ulimit -v` leaves."""
    left = [*_machine_left(), *_groups_left(), *_address_space_left()]
    return max(0, min(left)) if left else 4 << 30  # not every system tells


def _machine_left() -> list[int]:
    """What the machine has to give without swapping."""
    told = numbers(system.PROC / "meminfo")
    if "MemAvailable:" in told:
        return [told["MemAvailable:"] << 10]
    try:
        return [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (ValueError, OSError, AttributeError):
        return []


def _groups_left() -> list[int]:
    """What the control groups around this process leave."""
    left = []
    for folder in groups_around("memory"):
        used = number(folder / "memory.current"), number(folder / "memory.usage_in_bytes")
        most = [number(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
        stat = numbers(folder / "memory.stat")
        most.append(stat.get("hierarchical_memory_limit"))  # of groups above that cannot be seen from here
        # What files take is given back when memory is short.  Version 1 counts the groups below as `total_`.
        cached = sum(stat.get(f"total_{kind}", stat.get(kind, 0)) for kind in ("active_file", "inactive_file"))
        taken = max(0, (used[0] or used[1] or 0) - cached)
        left += [limit - taken for limit in most if limit is not None]
    return left


def _address_space_left() -> list[int]:
    """What `ulimit -v` leaves; nothing where there is no such limit."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(next(iter(lines(system.PROC / "self" / "statm")), "0").split()[0])
    except (ImportError, AttributeError, ValueError, OSError):
        return []
    return [] if limit == resource.RLIM_INFINITY else [limit - pages * resource.getpagesize()]


def disk_is_full(folder: Path) -> bool:
    """Whether hardly anything can be written to a folder any more: less than a megabyte is free there.

    For writers of other packages, which do not tell why they failed.
    """
    try:
        return shutil.disk_usage(folder).free < 1 << 20
    except OSError:
        return False


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # as in malloc.h
MMAP_MAX = 65536  # glibc's own limit
MALLOC_TUNED = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"}
OWN_MAPPING = 1 << 20
LARGEST_THRESHOLD = 32 << 20  # up to which glibc raises its mmap threshold by itself, as large blocks are freed


@contextmanager
def freed_memory_kept() -> Iterator[Callable[[], None]]:
    """Let glibc keep memory that tensors free, instead of giving it back to the system at once: from when the function
    that this gives is called, until the end.

    Feature maps of a training step are larger than glibc's mmap threshold: each would be returned and faulted in again,
    zeroed, at every step, which costs a tenth of the time on a CPU.  Call it after a first step: what stays, such as
    the optimiser's state, is made there, and between feature maps that are kept it leaves holes (260 MB of 1,800).
    Until then all that is large has a mapping of its own.  After the end `some_freed_memory_kept` holds, and what is
    free is given back.  Where malloc is not ours to tune (see `_glibc`), all of this does nothing.
    """
    library, kept = _glibc(), False
    if library is None:
        yield lambda: None
        return

    def keep() -> None:
        nonlocal kept
        if not kept:
            library.malloc_trim(0)
            library.mallopt(M_MMAP_MAX, 0)
            library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        kept = True

    library.mallopt(M_MMAP_THRESHOLD, OWN_MAPPING)
    try:
        yield keep
    finally:
        library.mallopt(M_MMAP_MAX, MMAP_MAX)
        some_freed_memory_kept()
        library.malloc_trim(0)


def some_freed_memory_kept() -> None:
    """Let glibc keep up to 64 MB of freed memory from now on: the limits that a program which frees a tensor of 32 MB
    comes to by itself.

    Without it a call of predict(frame) at 640 px faults in up to 10,000 pages again, a fifth of its time.  Where malloc
    is not tuned by us (see `_glibc`), this does nothing.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)


def _glibc() -> ctypes.CDLL | None:
    """The C library, to tune its malloc; None for another one than glibc, and where the environment tunes it."""
    if os.environ.keys() & MALLOC_TUNED or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (AttributeError, OSError, TypeError):
        return None
