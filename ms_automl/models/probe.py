"""Whether zero weights of a layer silence a channel: a class of one's own may do more than its kind does.

A class that standardises its weights, or that adds what it was given to what it computes, answers a channel whose
weights are zero all the same. Its code cannot tell, so it is tried, with random weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ms_automl.models.weights import Layer, channel_axis, is_transposed

Zeroed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Trial:
    """What is tried: with the weights that ``zero`` keeps as 1, outputs `rows` must ignore inputs `columns`."""

    mask: Tensor
    rows: slice
    columns: slice


def zeros_silence(layer: Layer, shape: torch.Size, single: bool) -> bool:
    """Whether a layer ignores an input channel whose weights are zero; False where it cannot be tried.

    Args:
        layer: it is copied, the copy's parameters are random.
        shape: of what it is given, [B, channels, …] or, of a linear layer, [B, …, features].
        single: whether each zero must count by itself: a zero filter gives a constant, a zero between a channel
            and a filter parts the two, and of the kernel only what is not zero is in use.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        layer = copy.deepcopy(layer).cpu().float().eval()
        axis, weight = channel_axis(layer), _by_output(layer)
        if len(shape) < -axis or weight.shape[1] != shape[axis]:
            return False
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            one, other = torch.randn(2, *shape, generator=generator)
            weight = weight.clone()
            trials = [*_by_columns(weight), *(_by_rows(weight) if single else ())]
            if not all(_ignores(layer, weight, trial, one, other) for trial in trials):
                return False
        return not single or isinstance(layer, nn.Linear) or _answers_one_pixel(layer, weight, one)
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


def _by_output(layer: Layer) -> Tensor:
    """Its weight as [out, in, …]."""
    weight = layer.weight.detach()
    return weight.transpose(0, 1) if is_transposed(layer) else weight


def _ignores(layer: Layer, weight: Tensor, trial: _Trial, one: Tensor, other: Tensor) -> bool:
    _by_output(layer).copy_(weight * trial.mask)
    axis = channel_axis(layer)
    changed = one.movedim(axis, 1).clone()
    changed[:, trial.columns] = other.movedim(axis, 1)[:, trial.columns]
    given = (one, changed.movedim(1, axis))
    before, after = (layer(images).movedim(axis, 1)[:, trial.rows] for images in given)
    return bool(torch.isfinite(before).all()) and torch.allclose(before, after, rtol=1e-4, atol=1e-5)


def _answers_one_pixel(layer: Layer, weight: Tensor, images: Tensor) -> bool:
    """Whether with one weight of each kernel a pixel of the output answers one pixel of the input at most."""
    images = images.clone().requires_grad_()
    with torch.no_grad():
        first = torch.zeros_like(weight)
        first.flatten(2)[:, :, 0] = 1
        _by_output(layer).copy_(first * weight)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        outputs = layer(images)
        middle = outputs[0].flatten(1)[:, _middle(outputs.shape[2:])]
        (gradient,) = torch.autograd.grad(middle.sum(), images)
    return int((gradient != 0).any(1).sum()) <= 1


def _middle(sizes: Sequence[int]) -> int:
    """The number of the pixel in the middle."""
    place = 0
    for size in sizes:
        place = place * size + size // 2
    return place
