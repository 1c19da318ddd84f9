"""Where and with how many threads to compute."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext, suppress
from pathlib import Path

import cv2
import pytest
import torch

from gfldet import machine
from gfldet.errors import ConfigError


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.pick_device("auto") == torch.device("cpu")
    assert machine.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine.pick_device("auto") == torch.device("cuda:0")
    assert machine.pick_device("cuda:1") == torch.device("cuda:1")
    assert machine.pick_device("1") == torch.device("cuda:1")


def test_devices_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("cuda:1", "7"):
        with pytest.raises(ConfigError, match=f"device={name}: torch sees 1 CUDA devices here; use device=cpu"):
            machine.pick_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device=mps: not available on this machine"):
        machine.pick_device("mps")


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        machine.set_threads(3)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 1)
        monkeypatch.setattr(machine, "cores", lambda: 2)
        machine.set_threads(0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [3, None])
def test_the_caller_s_threads_come_back(threads: int | None) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        with suppress(KeyboardInterrupt), machine.threads_of(threads):
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (threads or 2, 1)
            raise KeyboardInterrupt
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class Heap(ctypes.Structure):
    """glibc's mallinfo2, up to the number of blocks that have a mapping of their own."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*("arena", "ordblks", "smblks", "hblks", "hblkhd"), *"abcde"))


def mapped() -> bool:
    """Whether a block of 64 MiB gets a mapping of its own, which goes back to the system when it is freed."""
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    library.mallinfo2.restype = Heap
    before = library.mallinfo2().hblks
    block = library.malloc(64 << 20)
    after = library.mallinfo2().hblks
    library.free(block)
    return bool(after > before)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another C library, or an old glibc")
def test_freed_memory_is_kept_for_as_long_as_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in machine.MALLOC_TUNED:
        monkeypatch.delenv(name, raising=False)
    with suppress(KeyboardInterrupt), machine.freed_memory_kept():
        assert not mapped()
        raise KeyboardInterrupt
    assert mapped()
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "9")  # the user's own choice
    with machine.freed_memory_kept():
        assert mapped()


@pytest.mark.parametrize(("world", "refused"), [("", False), ("1", False), ("none", False), ("2", True), ("16", True)])
def test_a_launcher_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch, world: str, refused: bool) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ConfigError, match=f"WORLD_SIZE={world}: .*start it without") if refused else nullcontext():
        machine.check_one_process()


def test_loader_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 6)
    assert machine.loader_threads(-1, on_cpu=True) == 0
    assert machine.loader_threads(-1, on_cpu=False) == 6
    assert machine.loader_threads(0, on_cpu=False) == 0
    assert machine.loader_threads(4, on_cpu=True) == 4


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
    monkeypatch.setattr(machine, "CPU_INFO", info)
    assert machine.mixed_precision(amp, torch.device(name)) is expected


def test_precision_where_the_system_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "none")
    assert machine.mixed_precision("auto", torch.device("cpu")) is None


@pytest.mark.parametrize(("bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert machine.mixed_precision("auto", torch.device("cuda")) is expected


def test_memory_for_images() -> None:
    assert machine.memory_budget("none") == 0
    assert machine.memory_budget("ram") > 1 << 60
    assert 0 < machine.memory_budget("auto") < 1 << 50
