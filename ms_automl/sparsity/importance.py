"""What removing a group would cost, estimated by first-order Taylor expansion or by magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ms_automl.sparsity.groups import Groups


class Importance(Protocol):
    """A ranking of groups over all layers together."""

    def observe(self, gradients: Sequence[Tensor]) -> None:
        """Take in one batch's gradients: L tensors shaped like the weights."""
        ...

    def cost(self) -> Tensor:
        """[G] what removing each group would cost, per weight removed."""
        ...

    def lowest(self, share: float, gone: Tensor | None = None) -> Tensor:
        """[G] True for the cheapest groups, as :func:`cheapest` picks them."""
        ...

    def state_dict(self) -> dict[str, object]:
        """What was observed."""
        ...

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore :meth:`state_dict`."""
        ...


class TaylorImportance:
    """c_g = sqrt(EMA[<∇_θg L, θ_g>²]) / n_g: the change of the loss per weight removed.

    First-order Taylor importance (Molchanov et al. 2019, arXiv 1906.10771, eq. 8), smoothed over batches
    and divided by the group's size, so that ranking by it fills a budget of weights greedily.

    Args:
        groups: the groups.
        decay: of the moving average, per observation.
    """

    def __init__(self, groups: Groups, decay: float = 0.99) -> None:
        self.groups = groups
        self.decay = decay
        self.mean = torch.zeros_like(groups.size)
        self.weight = 0.0  # Σ of the average's weights: corrects its start, as in Adam

    @torch.no_grad()
    def observe(self, gradients: Sequence[Tensor]) -> None:
        """Take in one batch's gradients: L tensors shaped like the weights."""
        change = self.groups.inner(gradients, self.groups.weights)
        self.mean.lerp_(change.square(), 1 - self.decay)
        self.weight = self.decay * self.weight + (1 - self.decay)

    def cost(self) -> Tensor:
        """[G] c_g; before the first observation all 0."""
        return (self.mean / max(self.weight, 1e-12)).sqrt() / self.groups.size

    def lowest(self, share: float, gone: Tensor | None = None) -> Tensor:
        """[G] True for the cheapest groups, as :func:`cheapest` picks them."""
        return cheapest(self.groups, self.cost(), share, gone)

    def state_dict(self) -> dict[str, object]:
        """The moving average."""
        return {"mean": self.mean.clone(), "weight": self.weight}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore the moving average."""
        mean, weight = state["mean"], state["weight"]
        assert isinstance(mean, Tensor) and isinstance(weight, float)
        self.mean.copy_(mean)
        self.weight = weight


class MagnitudeImportance:
    """c_g = ||θ_g||² / (n_g Σ_{h in l: ||θ_h|| ≥ ||θ_g||} ||θ_h||²): magnitude, by the weights themselves.

    The layer-adaptive score of LAMP (Lee et al. 2021, arXiv 2010.07611, eq. 5) with groups in the place of
    single weights, divided by the group's size as in :class:`TaylorImportance`. Bare norms, the ranking of Li
    et al. 2017 (arXiv 1608.08710) within one layer, say nothing across layers: batch norm takes a layer's scale
    out again. This score does not change with it, and needs no share per layer set by hand.

    Args:
        groups: the groups.
    """

    def __init__(self, groups: Groups) -> None:
        self.groups = groups

    def observe(self, gradients: Sequence[Tensor]) -> None:
        """Nothing: the weights are all that counts."""

    def cost(self) -> Tensor:
        """[G] c_g."""
        scores = []
        for squares in torch.split(self.groups.norms().square(), self.groups.counts):
            falling, order = torch.sort(squares, descending=True, stable=True)
            score = torch.empty_like(squares)
            score[order] = falling / falling.cumsum(0).clamp(min=torch.finfo(squares.dtype).tiny)
            scores.append(score)
        return torch.cat(scores) / self.groups.size

    def lowest(self, share: float, gone: Tensor | None = None) -> Tensor:
        """[G] True for the cheapest groups, as :func:`cheapest` picks them."""
        return cheapest(self.groups, self.cost(), share, gone)

    def state_dict(self) -> dict[str, object]:
        """Nothing is remembered."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Nothing to restore."""


class RandomImportance:
    """An order of the groups that is drawn once: what ranking them is worth is the difference to it.

    Args:
        groups: the groups.
        seed: of what is drawn.
    """

    def __init__(self, groups: Groups, seed: int) -> None:
        self.groups = groups
        drawn = torch.rand(len(groups.size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.drawn = drawn.to(groups.size.device, groups.size.dtype)

    def observe(self, gradients: Sequence[Tensor]) -> None:
        """Nothing counts."""

    def cost(self) -> Tensor:
        """[G] uniform on 0 to 1."""
        return self.drawn

    def lowest(self, share: float, gone: Tensor | None = None) -> Tensor:
        """[G] True for the cheapest groups, as :func:`cheapest` picks them."""
        return cheapest(self.groups, self.cost(), share, gone)

    def state_dict(self) -> dict[str, object]:
        """Nothing is remembered: the seed draws the same."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Nothing to restore."""


def cheapest(groups: Groups, cost: Tensor, share: float, gone: Tensor | None = None) -> Tensor:
    """[G] True for the cheapest groups that together hold at least ``share`` of the weights.

    The most important group of a layer that must pass the signal is never among them.

    Args:
        groups: the groups.
        cost: [G] what removing each of them costs, ≥ 0.
        share: of all weights, 0 to 1.
        gone: [G] True for groups removed before: they cost nothing and come first.
    """
    if share <= 0:
        return torch.zeros_like(groups.layer, dtype=torch.bool)
    if gone is not None:
        cost = torch.where(gone, -1.0, cost)
    cost = torch.where(groups.strongest(cost), torch.inf, cost)
    order = torch.argsort(cost, stable=True)
    held = groups.zeroed(order)
    # A group of relative size 1e-9 more than asked is rounding, not a missing group.
    before = torch.cat([held.new_zeros(1), held[:-1]])
    take = (before < share * groups.total * (1 - 1e-9)) & torch.isfinite(cost[order])
    chosen = torch.zeros_like(take)
    chosen[order[take]] = True
    return chosen


def cubic_ramp(level: float, phase: float, end: float = 0.85) -> float:
    """Share to be removed: level · (1 - (1 - min(1, phase/end))³), Zhu & Gupta 2017 (arXiv 1710.01878), eq. 1.

    Args:
        level: the share asked for at the end.
        phase: progress of the sparsifying phase, 0 to 1.
        end: the phase at which the level is reached.
    """
    return level * (1 - (1 - min(1.0, phase / end)) ** 3)
