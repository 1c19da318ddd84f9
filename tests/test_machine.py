"""Where and with how many threads to compute."""

from __future__ import annotations

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


def test_loader_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 6)
    assert machine.loader_threads(-1, on_cpu=True) == 0
    assert machine.loader_threads(-1, on_cpu=False) == 4
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
