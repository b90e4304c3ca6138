"""What removing a group would cost, estimated by first-order Taylor expansion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ms_automl.sparsity.groups import Groups


class TaylorImportance:
    """c_g = sqrt(EMA[<∇_θg L, θ_g>²]) / n_g: the change of the loss per weight removed.

    First-order Taylor importance (Molchanov et al. 2019, arXiv 1906.10771, eq. 8), smoothed over batches
    and divided by the group's size, so that ranking by it fills a budget of weights greedily.

    Args:
        groups: the groups.
        decay: of the moving average, per observation.
    """

    def __init__(self, groups: Groups, decay: float = 0.95) -> None:
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
        """[G] True for the cheapest groups that together hold at least ``share`` of the weights.

        The most important group of a layer that must pass the signal is never among them.

        Args:
            share: of all weights, 0 to 1.
            gone: [G] True for groups removed before: they cost nothing and come first.
        """
        if share <= 0:
            return torch.zeros_like(self.groups.layer, dtype=torch.bool)
        cost = self.cost()
        if gone is not None:
            cost = torch.where(gone, -1.0, cost)
        cost = torch.where(self.groups.strongest(cost), torch.inf, cost)
        order = torch.argsort(cost, stable=True)
        held = self.groups.zeroed(order)
        # A group of relative size 1e-9 more than asked is rounding, not a missing group.
        before = torch.cat([held.new_zeros(1), held[:-1]])
        take = (before < share * self.groups.total * (1 - 1e-9)) & torch.isfinite(cost[order])
        chosen = torch.zeros_like(take)
        chosen[order[take]] = True
        return chosen

    def state_dict(self) -> dict[str, object]:
        """The moving average."""
        return {"mean": self.mean.clone(), "weight": self.weight}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore the moving average."""
        mean, weight = state["mean"], state["weight"]
        assert isinstance(mean, Tensor) and isinstance(weight, float)
        self.mean.copy_(mean)
        self.weight = weight


def cubic_ramp(level: float, phase: float, end: float = 0.85) -> float:
    """Share to be removed: level · (1 - (1 - min(1, phase/end))³), Zhu & Gupta 2017 (arXiv 1710.01878), eq. 1.

    Args:
        level: the share asked for at the end.
        phase: progress of the sparsifying phase, 0 to 1.
        end: the phase at which the level is reached.
    """
    return level * (1 - (1 - min(1.0, phase / end)) ** 3)
