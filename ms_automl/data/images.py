"""Images as networks take them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's images, from 0 to 1: what torchvision's pretrained networks expect."""


@cache
def _row(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """-mean/deviation and 1/deviation of every number of a row of pixels: a last axis of 3 broadcasts slowly."""
    mean, deviation = (255 * torch.tensor(value, device=device) for value in (MEAN, DEVIATION))
    return (-mean / deviation).repeat(width), deviation.reciprocal().repeat(width)


def empty_images(count: int, height: int, width: int, device: torch.device) -> Tensor:
    """[B, 3, H, W] float32, channels last in memory, not filled."""
    return torch.empty(count, height, width, 3, device=device).movedim(3, 1)


def normalise(images: Tensor, out: Tensor) -> None:
    """Fill ``out``, of :func:`empty_images`, from [B, H, W, 3] uint8: less the mean, by the deviation."""
    count, height, width, _ = images.shape
    shift, scale = _row(width, images.device)
    rows = out.movedim(1, 3).view(count * height, 3 * width)
    rows.copy_(images.reshape(count * height, 3 * width))  # bytes with floats is slow
    torch.addcmul(shift, rows, scale, out=rows)
