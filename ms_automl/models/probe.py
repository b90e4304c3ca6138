"""Whether zero weights of a convolution silence a channel: a class of one's own may do more than Conv2d does.

A class that standardises its weights, or that adds what it was given to what it computes, answers a channel whose
weights are zero all the same. Its code cannot tell, so it is tried, with random weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Zeroed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Trial:
    """What is tried: with the weights that ``zero`` keeps as 1, outputs `rows` must ignore inputs `columns`."""

    mask: Tensor
    rows: slice
    columns: slice


def zeros_silence(conv: nn.Conv2d, shape: torch.Size, single: bool) -> bool:
    """Whether a convolution ignores an input channel whose weights are zero; False where it cannot be tried.

    Args:
        conv: it is copied, the copy's parameters are random.
        shape: of what it is given, [B, channels, H, W].
        single: whether each zero must count by itself: a zero filter gives a constant, a zero between a channel
            and a filter parts the two, and of the kernel only what is not zero is in use.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        conv = copy.deepcopy(conv).cpu().float().eval()
        if len(shape) != 4 or conv.weight.shape[1] != shape[1]:
            return False
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for parameter in conv.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            one, other = torch.randn(2, *shape, generator=generator)
            weight = conv.weight.detach().clone()
            trials = [*_by_columns(weight), *(_by_rows(weight) if single else ())]
            if not all(_ignores(conv, weight, trial, one, other) for trial in trials):
                return False
        return not single or _answers_one_pixel(conv, weight, one)
    except Exception:  # whatever a class of one's own does when it is called by itself
        return False


def _by_columns(weight: Tensor) -> Iterator[_Trial]:
    for parity in (0, 1):
        mask = torch.ones_like(weight)
        mask[:, parity::2] = 0
        yield _Trial(mask, slice(None), slice(parity, None, 2))


def _by_rows(weight: Tensor) -> Iterator[_Trial]:
    for parity in (0, 1):
        mask = torch.ones_like(weight)
        mask[parity::2] = 0
        yield _Trial(mask, slice(parity, None, 2), slice(None))
        mask = torch.ones_like(weight)
        mask[parity::2, 0::2] = 0
        mask[1 - parity :: 2, 1::2] = 0
        yield _Trial(mask, slice(parity, None, 2), slice(0, None, 2))


def _ignores(conv: nn.Conv2d, weight: Tensor, trial: _Trial, one: Tensor, other: Tensor) -> bool:
    conv.weight.copy_(weight * trial.mask)
    changed = one.clone()
    changed[:, trial.columns] = other[:, trial.columns]
    before, after = (conv(images)[:, trial.rows] for images in (one, changed))
    return bool(torch.isfinite(before).all()) and torch.allclose(before, after, rtol=1e-4, atol=1e-5)


def _answers_one_pixel(conv: nn.Conv2d, weight: Tensor, images: Tensor) -> bool:
    """Whether with one weight of each kernel a pixel of the output answers one pixel of the input at most."""
    images = images.clone().requires_grad_()
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, 0, 0] = weight[:, :, 0, 0]
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        outputs = conv(images)
        middle = outputs[0, :, outputs.shape[2] // 2, outputs.shape[3] // 2]
        (gradient,) = torch.autograd.grad(middle.sum(), images)
    return int((gradient != 0).any(1).sum()) <= 1
