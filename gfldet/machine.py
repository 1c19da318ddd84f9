"""What this machine offers, and how much of it a run takes: memory, the device, its precision.

torch is imported inside the functions that need it: readers of images and exported files do without.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gfldet.errors import ConfigError

if TYPE_CHECKING:
    import torch

CPU_INFO = Path("/proc/cpuinfo")
PROC = Path("/proc")


def memory_budget(cache: str, processes: int = 1) -> int:
    """Bytes of RAM that images may take: all (`ram`), none (`none`), or half of what is free now (`auto`).

    `processes` is how many of the run share this machine, each with images of its own.
    """
    if cache != "auto":
        return 1 << 62 if cache == "ram" else 0
    return free_memory() // 2 // processes


def free_memory() -> int:
    """Bytes of RAM that this process may still take: the least of what the machine has, of what each control group
    around the process leaves (a container, a job of a scheduler), and of what `ulimit -v` leaves."""
    left = [*_machine_left(), *_groups_left(), *_address_space_left()]
    return max(0, min(left)) if left else 4 << 30  # not every system tells


def _machine_left() -> list[int]:
    """What the machine has to give without swapping."""
    told = _numbers(PROC / "meminfo")
    if "MemAvailable:" in told:
        return [told["MemAvailable:"] << 10]
    try:
        return [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (ValueError, OSError, AttributeError):
        return []


def _groups_left() -> list[int]:
    """What the control groups around this process leave, version 1 and 2; a group is bound by all above it."""
    left = []
    for top, group in _memory_groups():
        for folder in (group, *group.parents):
            used = _number(folder / "memory.current"), _number(folder / "memory.usage_in_bytes")
            most = [_number(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
            stat = _numbers(folder / "memory.stat")
            most.append(stat.get("hierarchical_memory_limit"))  # of groups above that cannot be seen from here
            # What files take is given back when memory is short.  Version 1 counts the groups below as `total_`.
            cached = sum(stat.get(f"total_{kind}", stat.get(kind, 0)) for kind in ("active_file", "inactive_file"))
            taken = max(0, (used[0] or used[1] or 0) - cached)
            left += [limit - taken for limit in most if limit is not None]
            if folder == top:
                break
    return left


def _memory_groups() -> list[tuple[Path, Path]]:
    """(top, group): folders of each hierarchy of control groups that bounds memory, the group this process is in.

    A container often sees its own group as the top and still reads the path that the host knows, which is not there.
    """
    paths = {}
    for line in _lines(PROC / "self" / "cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or "memory" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    found = []
    for line in _lines(PROC / "self" / "mountinfo"):
        where, _, what = line.partition(" - ")
        words, kinds = where.split(), what.split()
        if len(words) < 5 or len(kinds) < 3 or kinds[0] not in paths:
            continue
        if kinds[0] == "cgroup2" or "memory" in kinds[2].split(","):
            top = Path(words[4])
            below = os.path.relpath(paths[kinds[0]], words[3]) if paths[kinds[0]].startswith("/") else ".."
            group = top if below.startswith("..") else top / below
            found.append((top, group if group.is_dir() else top))
    return found


def _address_space_left() -> list[int]:
    """What `ulimit -v` leaves; nothing where there is no such limit."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(next(iter(_lines(PROC / "self" / "statm")), "0").split()[0])
    except (ImportError, AttributeError, ValueError, OSError):
        return []
    return [] if limit == resource.RLIM_INFINITY else [limit - pages * resource.getpagesize()]


def _lines(file: Path) -> list[str]:
    """Lines of a file of the system; none where it is not there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _number(file: Path) -> int | None:
    """The one number in a file of the system; None where there is no such file, or the word `max`."""
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].strip().isdecimal() else None


def _numbers(file: Path) -> dict[str, int]:
    """Numbers by name, from lines `name number ...`."""
    words = (line.split() for line in _lines(file))
    return {pair[0]: int(pair[1]) for pair in words if len(pair) > 1 and pair[1].isdecimal()}


def disk_is_full(folder: Path) -> bool:
    """Whether hardly anything can be written to a folder any more: less than a megabyte is free there.

    For writers of other packages, which do not tell why they failed.
    """
    try:
        return shutil.disk_usage(folder).free < 1 << 20
    except OSError:
        return False


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:N` or `N` -> a device that is there; ConfigError if not, or for several."""
    import torch

    if "," in name or name.startswith("cpu:"):
        raise ConfigError(f"device={name}: one device is expected here; several are for gfldet train and gfldet val")
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ConfigError(f"device={name}: torch sees {there} CUDA devices here; use device=cpu or device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: not available on this machine; use device=cpu or device=auto")
    return device


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
