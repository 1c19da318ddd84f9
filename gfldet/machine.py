"""What this machine offers, and how much of it a run takes: cores, threads, memory, the device, its precision.

torch is imported inside the functions that need it: readers of images and exported files do without.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gfldet.errors import ConfigError

if TYPE_CHECKING:
    import torch

CPU_INFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def loader_threads(wanted: int, on_cpu: bool) -> int:
    """Threads or processes that prepare images; -1 -> none beside a model on the CPU, up to 14 beside a GPU.

    A model on the CPU needs every core itself: measured on two cores, one thread that takes turns with them costs a
    quarter of the training speed, while making the batches in between costs a thirtieth.
    """
    if wanted >= 0:
        return wanted
    return 0 if on_cpu else max(1, min(14, cores() - 2))


def memory_budget(cache: str) -> int:
    """Bytes of RAM that images may take: all (`ram`), none (`none`), or half of what is free now (`auto`)."""
    if cache != "auto":
        return 1 << 62 if cache == "ram" else 0
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):  # not every system tells
        return 2 << 30


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:N` or `N` -> a device that is there; ConfigError if it is not."""
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ConfigError(f"device={name}: torch sees {there} CUDA devices here; use device=cpu or device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: not available on this machine; use device=cpu or device=auto")
    return device


def check_one_process() -> None:
    """ConfigError where torchrun, or a launcher like it, started several processes for one run.

    Each of them would do the whole run by itself, beside the others.
    """
    world = os.environ.get("WORLD_SIZE", "")
    if world.isdecimal() and int(world) > 1:
        raise ConfigError(
            f"WORLD_SIZE={world}: a launcher such as torchrun started {world} processes, but gfldet runs in one, "
            "on one device; start it without the launcher, with device=0 for instance (and unset WORLD_SIZE)"
        )


def set_threads(threads: int) -> None:
    """`threads` (0: every core) for torch, one for opencv, whose work runs in threads of the loader already."""
    import cv2
    import torch

    torch.set_num_threads(threads or cores())
    cv2.setNumThreads(1)


@contextmanager
def threads_of(threads: int | None) -> Iterator[None]:
    """`set_threads` for as long as a command computes; afterwards the process has the threads that it had.

    None is for an exported file, whose engine has threads of its own: then torch is left alone, and not even loaded.
    """
    import cv2

    of_opencv = cv2.getNumThreads()
    if threads is None:
        cv2.setNumThreads(1)  # more would wait for those of the engine, which spin
        try:
            yield
        finally:
            cv2.setNumThreads(of_opencv)
        return
    import torch

    of_torch = torch.get_num_threads()
    try:
        set_threads(threads)
        yield
    finally:
        torch.set_num_threads(of_torch)
        cv2.setNumThreads(of_opencv)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # as in malloc.h
MMAP_MAX = 65536  # glibc's own limit
MALLOC_TUNED = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"}
LARGEST_THRESHOLD = 32 << 20  # up to which glibc raises its mmap threshold by itself, as large blocks are freed


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep memory that tensors free while this lasts, instead of giving it back to the system at once.

    Feature maps of a training step are larger than glibc's mmap threshold: each would be returned and faulted in again,
    zeroed, at every step, which costs a tenth of the time on a CPU.  Afterwards glibc has the limits that a program
    with such tensors comes to by itself, and gives back what is free.  Elsewhere (other C libraries), and where the
    environment tunes malloc, this does nothing.
    """
    tuned = bool(os.environ.keys() & MALLOC_TUNED) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        tuned = True
    if tuned:
        yield
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(M_MMAP_MAX, MMAP_MAX)
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)
        trim(0)


def mixed_precision(amp: str, device: torch.device) -> torch.dtype | None:
    """The precision of the forward beside float32: bfloat16, on a GPU without it float16, or None.

    `auto` takes it on every GPU, and on a CPU whose processor multiplies bfloat16 itself: measured on two cores of such
    a one, training goes 1.6 times as fast, to the same AP.  Other processors emulate bfloat16, which is slower.
    """
    import torch

    if amp == "off" or (amp == "auto" and device.type != "cuda" and not _multiplies_bfloat16(device)):
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether this machine's processor says that it has such instructions (as Linux tells; False where it does not)."""
    if device.type != "cpu":
        return False
    try:
        told = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line.split() for line in told.splitlines() if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags
