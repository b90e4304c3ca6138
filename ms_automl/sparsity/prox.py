"""The proximal step of the group penalty λ Σ_g sqrt(n_g) ||θ_g||."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.prox_metric import multipliers


def thresholds(groups: Groups, lambda_: Tensor, lr: float | Tensor) -> Tensor:
    """[G] η λ_l sqrt(n_g), by how much the step shortens each group's norm.

    Args:
        groups: the groups.
        lambda_: [L] λ of each layer, on any device.
        lr: η, the scheduled learning rate of the step just taken, which keeps the penalised problem's
            stationary points where they are (docs/architecture.md, 'The proximal step'); [G] where groups differ.
    """
    by_layer = lambda_.to(groups.layer.device, non_blocking=True)
    return lr * by_layer.index_select(0, groups.layer) * groups.size.sqrt()


def selective_thresholds(
    groups: Groups, norms: Tensor, lambda_: Tensor, lr: float | Tensor, chosen: Tensor, rest: float | Tensor
) -> Tensor:
    """[G] η λ sqrt(n_g) with λ_l for the chosen groups and one λ for the rest, which it shortens but never zeroes.

    Args:
        groups: the groups.
        norms: [G] ||θ_g||.
        lambda_: [L] λ of each layer's chosen groups.
        lr: η; [G] where groups differ.
        chosen: [G] True for the groups that are to go.
        rest: λ of the others; [L] where layers differ in it.
    """
    every = rest if isinstance(rest, Tensor) else torch.full_like(lambda_, rest)
    shortened = torch.minimum(thresholds(groups, every, lr), norms / 2)
    return torch.where(chosen, thresholds(groups, lambda_, lr), shortened)


def shrink_factors(groups: Groups, norms: Tensor, threshold: Tensor) -> Tensor:
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
def prox_(groups: Groups, threshold: Tensor, metric: Tensor | None = None) -> None:
    """argmin_x (1/2) Σ_i d_i (x_i - θ_i)² + Σ_g threshold_g ||x_g||, in place.

    With d = 1 that is θ_g ← θ_g · max(0, 1 - threshold_g / ||θ_g||); for another metric see
    :mod:`ms_automl.sparsity.prox_metric`. Where groups overlap (coupled channels) the steps of a weight's groups
    are all taken from the same start and their factors multiplied, which is the step of the sum of the penalties
    up to terms in η² (incremental proximal methods: Bertsekas 2011, Mathematical Programming 129).

    Args:
        groups: the groups.
        threshold: [G] as :func:`thresholds` gives it.
        metric: [N] d > 0, in the order of the groups' blocks; None is 1 throughout.
    """
    if metric is None:
        groups.scale_(shrink_factors(groups, groups.norms(), threshold))
    elif groups.single:
        # For a group of one weight, 1 - τ/(d |θ|) is the factor of the step in any metric.
        scaled = torch._foreach_mul(groups.weights, groups.blocks.split(metric))
        groups.scale_(shrink_factors(groups, groups.inner(scaled, scaled).sqrt_(), threshold))
    else:
        groups.multiply_(*multipliers(groups, threshold, metric))


def proximal(groups: Groups, tensors: Sequence[Tensor], threshold: Tensor) -> list[Tensor]:
    """:func:`prox_` with d = 1 as a pure function, differentiable in the weights and the threshold.

    Its derivative at a group that dies is exactly 0 (the norm's own derivative at 0 would be NaN); a group that
    is kept to pass the signal answers its weights alone.

    Args:
        groups: the groups.
        tensors: shaped like the weights, before the step.
        threshold: [G] as :func:`thresholds` gives it.
    """
    squares = groups.inner(tensors, tensors)
    dies = squares <= threshold.square()
    factors = torch.where(dies, 0.0, 1 - threshold / torch.where(dies, 1.0, squares).sqrt())
    factors = torch.where(groups.strongest(squares.detach()) & dies, 1.0, factors)
    return list(torch._foreach_mul(list(tensors), groups.per_weight(factors)))


def smallest(groups: Groups, norms: Tensor, shares: Tensor) -> Tensor:
    """[G] True for the share of each layer's groups that have the smallest norms.

    Args:
        groups: the groups.
        norms: [G] ||θ_g||.
        shares: [L] between 0 and 1; share · (groups of the layer) is rounded to a count.
    """
    chosen = torch.zeros_like(groups.layer, dtype=torch.bool)
    parts = zip(torch.split(norms, groups.counts), torch.split(chosen, groups.counts), strict=True)
    for (part, marks), share in zip(parts, shares.tolist(), strict=True):
        marks[torch.argsort(part, stable=True)[: round(share * len(part))]] = True
    return chosen
