"""λ learned from what the removal of the groups near zero would cost and save."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.hypergradients import Ties
from ms_automl.meta.iterative import IterativeLambda
from ms_automl.meta.pricing import live_width
from ms_automl.meta.reference import Reference
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups, TaylorImportance, shrink_factors, thresholds

DEATHS = 0.03
"""Share of a layer's groups that may die in one step."""


class RemovalLearner(IterativeLambda):
    """ρ_l moves by the balance of the groups near zero: what they cost against what they save.

    With C_g = n_g c_g the removal cost (:class:`~ms_automl.sparsity.TaylorImportance`), m the mean norm of the
    layer's living groups and w_g = max(0, 1 - ||θ_g||/m) a group's nearness to zero,

        slope_l = Σ_g w_g (C_g - price n_g/N) / Σ_g w_g |C_g - price n_g/N|   in [-1, 1],   ρ_l ← ρ_l - lr slope_l.

    λ may remove at most 3 % of a layer's groups in a step, so that the costs keep up with the removals; a zero
    group that the optimiser has moved since counts as removed before. Costs are in units of the training loss and
    not of the objective, and without recovery: a price does not mean here what it means there.

    Args:
        groups: the groups.
        ties: which ρ each layer uses.
        price: of density.
        bounds: (low, high) that λ stays within.
        start: λ at the first step.
        lr: the largest step of ρ.
        every: steps between two updates.
        warmup: share of the sparsifying phase over which λ rises from 0.
        reference: what the guard compares with.
    """

    def __init__(
        self,
        groups: Groups,
        ties: Ties,
        *,
        price: float,
        bounds: tuple[float, float],
        start: float,
        lr: float,
        every: int,
        warmup: float,
        reference: Reference,
    ) -> None:
        super().__init__(groups, ties, bounds=bounds, start=start, warmup=warmup, reference=reference)
        self.price, self.lr, self.every = price, lr, every
        self.importance = TaylorImportance(groups)
        self.alive = torch.ones_like(groups.layer, dtype=torch.bool)  # [G] after the last step

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """One prox with the present λ, and where due one step of λ."""
        groups = self.groups
        self.begin(now)
        self.importance.observe(now.gradients())
        norms = groups.norms()
        if now.index % self.every == 0:
            self._learn(norms)
        threshold = torch.minimum(thresholds(groups, self.lambdas(), now.lr), self._cap(norms))
        factors = shrink_factors(groups, norms, threshold)
        groups.scale_(factors)
        self.alive = (factors > 0) & (norms > 0)
        self.end(now)

    def _learn(self, norms: Tensor) -> None:
        groups = self.groups
        near = (1 - norms / live_width(groups, norms)).clamp(min=0) * (norms > 0)
        balance = near * (self.importance.cost() * groups.size - self.price * groups.size / groups.total)
        zeros = torch.zeros_like(self.rho)
        gain = zeros.index_add(0, self.ties.layers, groups.layer_sum(balance))
        scale = zeros.index_add(0, self.ties.layers, groups.layer_sum(balance.abs()))
        self.rho -= self.lr * gain / scale.clamp(min=torch.finfo(scale.dtype).tiny)
        self.keep_within()

    def _cap(self, norms: Tensor) -> Tensor:
        """[G] the threshold that kills no more than the share allowed: the norm of the first to be spared."""
        caps = []
        counts = self.groups.counts
        for part, alive in zip(torch.split(norms, counts), torch.split(self.alive, counts), strict=True):
            living = part[alive].sort().values
            spared = max(1, round(DEATHS * len(part)))
            caps.append(living[spared] * (1 - 1e-6) if spared < len(living) else part.new_full((), torch.inf))
        return torch.stack(caps)[self.groups.layer]

    def state_dict(self) -> dict[str, Any]:
        """λ, the costs and which groups were alive."""
        return super().state_dict() | {"alive": self.alive, "importance": self.importance.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state)
        self.alive = state["alive"].to(self.groups.layer.device)
        self.importance.load_state_dict(state["importance"])
