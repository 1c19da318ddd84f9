"""Float samples and torch tensors, given as pictures to predict on, as the uint8 arrays that all other code takes.

Floats are samples of 0 to 1 where none is above 1, and of 0 to 255 where one is above 2.  Between the two, nobody knows
which is meant, so that is refused.  torch is not imported here: who has a tensor has imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from gfldet.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-3  # above 1 or below 0, as a resize or an augmentation in floats leaves it


def is_tensor(source: Any) -> TypeGuard[Tensor]:
    """Whether `source` is a tensor of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def float_scale(samples: NDArray[np.floating], what: str) -> float:
    """What float samples are to be multiplied by so that they go from 0 to 255; DataError, naming `what`, if they are
    of neither range."""
    low, high = float(samples.min()), float(samples.max())
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return 255.0
    if low >= -_ROUNDING and 2 < high <= 255 + _ROUNDING:
        return 1.0
    raise DataError(
        f"{what}: float samples from {low:.4g} to {high:.4g}; expected 0 to 1, or 0 to 255 with one above 2: scale and "
        "clip them, or give uint8"
    )


def to_uint8(samples: NDArray[np.floating], scale: float) -> NDArray[np.uint8]:
    """Float samples times `scale`, rounded."""
    return np.clip(np.rint(samples.astype(np.float32) * scale), 0, 255).astype(np.uint8)


def pictures_of(tensor: Tensor) -> list[NDArray[np.uint8]]:
    """A tensor (B, 3, H, W) or (3, H, W), RGB, of floats or uint8, on any device -> its pictures (H, W, 3) uint8 BGR,
    as OpenCV has them.

    One channel instead of three is grey.  All pictures of a tensor are of one range of floats.  Raises DataError for a
    tensor of another shape or type.
    """
    shape = tuple(tensor.shape)
    if len(shape) not in (3, 4) or 0 in shape or shape[-3] not in (1, 3):
        raise DataError(
            f"source: a tensor of shape {shape}; expected (B, 3, H, W) or (3, H, W), RGB. Give a picture of OpenCV as "
            "the array that it is"
        )
    if tensor.is_floating_point():
        samples = tensor.detach().float().cpu().numpy()
        samples = to_uint8(samples, float_scale(samples, "source: a tensor"))
    elif str(tensor.dtype) == "torch.uint8":
        samples = tensor.cpu().numpy()
    else:
        raise DataError(f"source: a tensor of {tensor.dtype}; expected floats from 0 to 1, or uint8")
    return list(samples.reshape(-1, *shape[-3:]).transpose(0, 2, 3, 1)[..., ::-1])
