"""What this machine offers, and how much of it a run takes: cores, threads, memory, the device, its precision.

torch is imported inside the functions that need it: readers of images and exported files do without.
"""

from __future__ import annotations

import ctypes
import os
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


def set_threads(threads: int) -> None:
    """`threads` (0: every core) for torch, one for opencv, whose work runs in threads of the loader already."""
    import cv2
    import torch

    torch.set_num_threads(threads or cores())
    cv2.setNumThreads(1)


def keep_freed_memory() -> None:
    """Let glibc keep memory that tensors free, instead of giving it back to the system at once.

    Feature maps of a training step are larger than glibc's mmap threshold: each would be returned and faulted in again,
    zeroed, at every step, which costs a tenth of the time on a CPU.  Elsewhere (other C libraries) this does nothing.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


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
