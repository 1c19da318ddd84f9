"""Images as the model takes them."""

from __future__ import annotations

import torch
from torch import Tensor


def image_tensor(images: Tensor, device: torch.device) -> Tensor:
    """Images (B, H, W, 3) uint8 -> (B, 3, H, W) float in [0, 1], channels last, on `device`."""
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
