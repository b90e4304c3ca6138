"""Images as networks take them."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's images, from 0 to 1: what torchvision's pretrained networks expect."""


def normalised(images: Tensor) -> Tensor:
    """[B, H, W, 3] uint8 to [B, 3, H, W] float32, channels last in memory, less the mean, by the deviation."""
    count, height, width, _ = images.shape
    device = images.device
    mean = (255 * torch.tensor(MEAN, device=device)).repeat(
        width
    )  # a row at a time: a last axis of 3 is slow to broadcast over
    scale = (255 * torch.tensor(DEVIATION, device=device)).reciprocal().repeat(width)
    rows = images.reshape(count * height, 3 * width).float()  # on its own: bytes less floats is slow
    return rows.sub_(mean).mul_(scale).reshape(count, height, width, 3).movedim(3, 1)
