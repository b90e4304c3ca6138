"""The proximal step of the group penalty λ Σ_g sqrt(n_g) ||θ_g||."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ms_automl.sparsity.groups import ChannelGroups


def thresholds(groups: ChannelGroups, lambda_: Tensor, lr: float) -> Tensor:
    """[G] η λ_l sqrt(n_g), by how much the step shortens each group's norm.

    Args:
        groups: the groups.
        lambda_: [L] λ of each layer.
        lr: η, the scheduled learning rate of the step just taken, which keeps the penalised problem's
            stationary points where they are (docs/architecture.md, 'The proximal step').
    """
    return lr * lambda_[groups.layer] * groups.size.sqrt()


def shrink_factors(groups: ChannelGroups, norms: Tensor, threshold: Tensor) -> Tensor:
    """[G] max(0, 1 - threshold_g / ||θ_g||), Yuan & Lin 2006 (group lasso).

    In a layer that must pass the signal the longest group is left as it is where it would die.

    Args:
        groups: the groups.
        norms: [G] ||θ_g|| before the step.
        threshold: [G] as :func:`thresholds` gives it.
    """
    tiny = torch.finfo(norms.dtype).tiny
    factors = (1 - threshold / norms.clamp(min=tiny)).clamp(min=0)
    return torch.where(groups.strongest(norms) & (factors == 0), 1.0, factors)


@torch.no_grad()
def prox_(groups: ChannelGroups, threshold: Tensor) -> None:
    """θ_g ← θ_g · max(0, 1 - threshold_g / ||θ_g||), in place."""
    groups.scale_(shrink_factors(groups, groups.norms(), threshold))


def proximal(groups: ChannelGroups, tensors: Sequence[Tensor], threshold: Tensor) -> list[Tensor]:
    """The proximal step as a pure function, differentiable in the weights and in the threshold.

    Its derivative at a group that dies is exactly 0 (the norm's own derivative at 0 would be NaN); a group that
    is kept to pass the signal answers its weights alone.

    Args:
        groups: the groups.
        tensors: L tensors shaped like the weights, before the step.
        threshold: [G] as :func:`thresholds` gives it.
    """
    squares = groups.inner(tensors, tensors)
    dies = squares <= threshold.square()
    factors = torch.where(dies, 0.0, 1 - threshold / torch.where(dies, 1.0, squares).sqrt())
    factors = torch.where(groups.strongest(squares.detach()) & dies, 1.0, factors)
    return [tensor * factor for tensor, factor in zip(tensors, groups.per_weight(factors), strict=True)]


def smallest(groups: ChannelGroups, norms: Tensor, shares: Tensor) -> Tensor:
    """[G] True for the share of each layer's groups that have the smallest norms.

    Args:
        groups: the groups.
        norms: [G] ||θ_g||.
        shares: [L] between 0 and 1; share · (groups of the layer) is rounded to a count.
    """
    chosen = []
    for part, share in zip(torch.split(norms, groups.counts), shares.tolist(), strict=True):
        count = round(share * len(part))
        ranks = torch.argsort(torch.argsort(part, stable=True))
        chosen.append(ranks < count)
    return torch.cat(chosen)
