"""Where and with how many threads to compute."""

from __future__ import annotations

import ctypes
import inspect
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gfldet.errors import ConfigError
from gfldet.machine import device, memory
from gfldet.machine import system as room


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.pick_device("auto") == torch.device("cpu")
    assert device.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.pick_device("auto") == torch.device("cuda:0")
    assert device.pick_device("cuda:1") == torch.device("cuda:1")
    assert device.pick_device("1") == torch.device("cuda:1")


def test_devices_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("cuda:1", "7"):
        with pytest.raises(ConfigError, match=f"device={name}: torch sees 1 CUDA devices here; use device=cpu"):
            device.pick_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device=mps: not available on this machine"):
        device.pick_device("mps")


class Heap(ctypes.Structure):
    """glibc's mallinfo2, up to the number of blocks that have a mapping of their own."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*("arena", "ordblks", "smblks", "hblks", "hblkhd"), *"abcde"))


def mapped(size: int = 64 << 20) -> bool:
    """Whether a block of memory gets a mapping of its own, which goes back to the system when it is freed."""
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    library.mallinfo2.restype = Heap
    before = library.mallinfo2().hblks
    block = library.malloc(size)
    after = library.mallinfo2().hblks
    library.free(block)
    return bool(after > before)


KEPT = """
with suppress(KeyboardInterrupt), memory.freed_memory_kept() as keep:
    assert mapped()
    keep()
    assert not mapped()
    raise KeyboardInterrupt
assert mapped()
os.environ["MALLOC_MMAP_MAX_"] = "9"  # the user's own choice
with memory.freed_memory_kept() as keep:
    keep()
    assert mapped()
"""
SOME_KEPT = """
os.environ["MALLOC_MMAP_MAX_"] = "9"
memory.some_freed_memory_kept()
assert mapped(16 << 20)
del os.environ["MALLOC_MMAP_MAX_"]
memory.some_freed_memory_kept()
assert not mapped(16 << 20)
assert mapped()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another C library, or an old glibc")
@pytest.mark.parametrize("steps", [KEPT, SOME_KEPT])
def test_freed_memory_is_kept_for_as_long_as_it_is_asked(steps: str) -> None:
    # In a process of its own: here, memory that other tests have freed would serve.
    imports = "import ctypes, os\nfrom contextlib import suppress\nfrom gfldet.machine import memory\n"
    script = "\n".join((imports, inspect.getsource(Heap), inspect.getsource(mapped), steps))
    free = {name: value for name, value in os.environ.items() if name not in memory.MALLOC_TUNED}
    subprocess.run([sys.executable, "-c", script], env=free, check=True)


@pytest.mark.parametrize("name", ["cpu:2", "0,1"])
def test_one_device_is_picked(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device={name}: one device is expected"):
        device.pick_device(name)


@pytest.mark.parametrize(
    ("amp", "name", "flags", "expected"),
    [
        ("off", "cpu", "avx512_bf16", None),
        ("auto", "cpu", "avx2 avx512f avx512_bf16", torch.bfloat16),
        ("auto", "cpu", "amx_bf16", torch.bfloat16),
        ("auto", "cpu", "avx2 avx512f avx512_bf16x", None),
        ("auto", "cpu", "", None),
        ("on", "cpu", "", torch.bfloat16),
        ("off", "cuda", "", None),
        ("auto", "mps", "avx512_bf16", None),
    ],
)
def test_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amp: str, name: str, flags: str, expected: torch.dtype | None
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nbogomips : 1\n", encoding="utf-8")
    monkeypatch.setattr(device, "CPU_INFO", info)
    assert device.mixed_precision(amp, torch.device(name)) is expected


@pytest.mark.parametrize("amp", ["on", "auto"])
def test_precision_of_a_map_one_pixel_wide(monkeypatch: pytest.MonkeyPatch, amp: str) -> None:
    monkeypatch.setattr(device, "_multiplies_bfloat16", lambda _: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert device.mixed_precision(amp, torch.device("cpu"), 1) is None
    assert device.mixed_precision(amp, torch.device("cpu"), 2) is torch.bfloat16
    assert device.mixed_precision(amp, torch.device("cuda"), 1) is torch.bfloat16


def test_precision_where_the_system_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "none")
    assert device.mixed_precision("auto", torch.device("cpu")) is None


@pytest.mark.parametrize(("bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert device.mixed_precision("auto", torch.device("cuda")) is expected


def test_memory_for_images() -> None:
    assert memory.memory_budget("none") == 0
    assert memory.memory_budget("ram") > 1 << 60
    assert 0 < memory.memory_budget("auto") < 1 << 50


class System:
    """A made-up /proc and made-up control groups, which `machine/` reads in place of the real ones."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(room, "PROC", folder / "proc")
        monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.write("proc/meminfo", "MemTotal: 64000000 kB\nMemFree: 1000 kB\nMemAvailable: 32000000 kB\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def in_groups(self, cgroup: str, *mounts: str) -> None:
        """`mounts` are lines of mountinfo, in which @ stands for the folder of the made-up groups."""
        self.write("proc/self/cgroup", cgroup)
        lines = "\n".join(line.replace("@", str(self.folder / "fs")) for line in mounts)
        self.write("proc/self/mountinfo", "22 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n" + lines)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    return System(tmp_path, monkeypatch)


V1 = "35 31 0:32 {root} @ rw,relatime shared:9 - cgroup cgroup rw,memory"
V2 = "35 31 0:32 {root} @ rw,relatime - cgroup2 cgroup2 rw"


def test_memory_of_the_machine(system: System) -> None:
    assert memory.free_memory() == 32_000_000 << 10
    assert memory.memory_budget("auto") == 16_000_000 << 10
    assert memory.memory_budget("none") == 0
    assert memory.memory_budget("ram") > 1 << 60


@pytest.mark.parametrize("above", ["10000000", "max"])
def test_memory_of_nested_groups(system: System, above: str) -> None:
    """cgroup v2: the least of what any group around this process leaves; caches of files are given back."""
    system.in_groups("0::/job/step\n", V2.format(root="/"))
    system.write("fs/job/step/memory.max", "max\n")
    system.write("fs/job/step/memory.current", "1000\n")
    system.write("fs/job/memory.max", "9000000\n")
    system.write("fs/job/memory.current", "6000000\n")
    system.write("fs/job/memory.stat", "anon 4\ninactive_file 1500000\nactive_file 500000\n")
    system.write("fs/memory.max", above)
    system.write("fs/memory.current", "1000")
    assert memory.free_memory() == 5_000_000
    system.write("fs/job/step/memory.high", "3001000")
    assert memory.free_memory() == 3_000_000


def test_memory_of_a_container(system: System) -> None:
    """It sees its own group as the top, while the path is that which the host knows, or one it cannot see."""
    for version, path, root in (
        (V1, "/docker/abc", "/docker/abc"),
        (V1, "/docker/abc", "/"),
        (V2, "/docker/abc", "/"),
        (V2, "/../../abc", "/"),
    ):
        old = version is V1
        system.in_groups(f"{'4:cpu,memory' if old else '0:'}:{path}\n", version.format(root=root))
        system.write("fs/memory.limit_in_bytes" if old else "fs/memory.max", "8000000000")
        system.write("fs/memory.usage_in_bytes" if old else "fs/memory.current", "1000000000")
        assert memory.free_memory() == 7_000_000_000, (version, path, root)
        (system.folder / "fs").rename(system.folder / f"done{len(list(system.folder.iterdir()))}")


def test_memory_of_groups_of_version_1(system: System) -> None:
    """Beside an empty hierarchy of version 2, as systemd mounts both; the limit may be that of a group out of sight."""
    mounts = (
        V1.format(root="/"),
        "41 31 0:38 / @/unified rw - cgroup2 cgroup2 rw",
        "9 9 0:9 / @/pids rw - cgroup c pids",
    )
    system.in_groups("8:pids:/x\n4:memory:/slurm/job\n1:name=systemd:/\n0::/\n", *mounts)
    system.write("fs/slurm/memory.limit_in_bytes", "9223372036854771712")
    system.write("fs/slurm/job/memory.limit_in_bytes", "4000000000")
    system.write("fs/slurm/job/memory.usage_in_bytes", "2000000000")
    system.write("fs/slurm/job/memory.stat", "inactive_file 7\ntotal_inactive_file 500000000\n")
    assert memory.free_memory() == 2_500_000_000
    system.write("fs/slurm/job/memory.stat", "hierarchical_memory_limit 3000000000\n")
    assert memory.free_memory() == 1_000_000_000


def test_memory_under_a_limit_of_the_address_space(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4_000_000_000, resource.RLIM_INFINITY))
    system.write("proc/self/statm", f"{1_000_000_000 // resource.getpagesize()} 5 5 5 0 5 0\n")
    assert memory.free_memory() == pytest.approx(3_000_000_000, abs=resource.getpagesize())
    system.write("proc/self/statm", f"{5_000_000_000 // resource.getpagesize()} 5 5 5 0 5 0\n")
    assert memory.free_memory() == 0


def test_memory_where_the_system_tells_little(system: System) -> None:
    (system.folder / "proc/meminfo").unlink()
    assert memory.free_memory() > 0
    system.write("proc/meminfo", "MemAvailable: some kB\n")
    system.in_groups("nonsense\n4:memory\n0::relative\n", "short line", V2.format(root="/"))
    system.write("fs/memory.max", "not a number")
    assert memory.free_memory() > 0
