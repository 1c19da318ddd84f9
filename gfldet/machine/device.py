"""Where a model computes, and in which precision.

torch is imported inside the functions that need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gfldet.errors import ConfigError
from gfldet.machine.system import lines

if TYPE_CHECKING:
    import torch

CPU_INFO = Path("/proc/cpuinfo")


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:N` or `N` -> a device that is there; ConfigError if not, or for several."""
    import torch

    if "," in name or name.startswith("cpu:"):
        raise ConfigError(f"device={name}: one device is expected here; several are for gfldet train, val and predict")
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ConfigError(f"device={name}: torch sees {there} CUDA devices here; use device=cpu or device=auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: not available on this machine; use device=cpu or device=auto")
    return device


def mixed_precision(amp: str, device: torch.device, narrowest: int = 2) -> torch.dtype | None:
    """The precision of the forward beside float32: bfloat16, on a GPU without it float16, or None.

    `auto` takes it on every GPU, and on a CPU whose processor multiplies bfloat16 itself: measured on two cores of such
    a one, training goes 1.6 times as fast, to the same AP.  Other processors emulate bfloat16, which is slower.

    `narrowest` is the width of the model's coarsest map.  Where it is 1, a CPU gets None: in bfloat16, a convolution
    with a stride that makes such a map leaves its weights' gradient unwritten, and large ones are wrong (torch 2.14).
    """
    import torch

    if device.type == "cpu" and narrowest == 1:
        return None
    if amp == "off" or (amp == "auto" and device.type != "cuda" and not _multiplies_bfloat16(device)):
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether this machine's processor says that it has such instructions (as Linux tells; False where it does not)."""
    if device.type != "cpu":
        return False
    flags = next((line.split() for line in lines(CPU_INFO) if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags
