"""Penalties that grow where a group is small, by the gradient; what is smallest at the end of the phase goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.step import TrainingStep
from ms_automl.rivals.base import Rival, RivalInputs, remove, shortest, within_layer
from ms_automl.sparsity.groups import Groups

BASE = 1e-5
"""λ_g of growing regularisation at the first step."""


class Penalty(Rival, ABC):
    """∇_θ L + Σ_g λ_g θ_g with one λ_g ≥ 0 for each group; a weight of two groups feels both.

    Args:
        groups: the groups.
        level: share of the weights that go when the sparsifying phase ends, the shortest groups first.
    """

    def __init__(self, groups: Groups, level: float) -> None:
        self.groups, self.level = groups, level

    @abstractmethod
    def strength(self) -> Tensor:
        """[G] λ_g of this step."""

    @torch.no_grad()
    def adjust(self) -> None:
        """Add the penalties' gradients."""
        strength = self.strength()
        for membership in self.groups.memberships:
            for weight, lambda_ in zip(self.groups.weights, membership.spread(strength, absent=0.0), strict=True):
                if weight.grad is not None:
                    weight.grad.addcmul_(weight, lambda_.to(weight.dtype))

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """In the phase's last step, remove."""
        if now.phase >= 1:
            remove(self.groups, shortest(self.groups, self.level))


class GrowingRegularisation(Penalty):
    """`greg`: every ``every`` steps λ_g ← min(ceiling, λ_g + δ (I_max - I_g)/(I_max - I_min)), I_g = ||θ_g||².

    Maximum and minimum are of the layer (Wang et al. 2021, arXiv 2012.09243, section 3, in the form that
    Torch-Pruning gives it). Where the optimiser is Adam it scales the sum of both gradients.

    Args:
        groups: the groups.
        level: share of the weights that go when the phase ends.
        delta: δ.
        ceiling: of λ_g.
        every: steps between two updates.
    """

    def __init__(self, groups: Groups, level: float, delta: float, ceiling: float, every: int) -> None:
        super().__init__(groups, level)
        self.delta, self.ceiling, self.every = delta, ceiling, every
        self.lambda_ = torch.full_like(groups.size, BASE)

    def strength(self) -> Tensor:
        """[G] λ_g of this step."""
        return self.lambda_

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Let the penalties grow where due; in the phase's last step, remove."""
        if (now.index + 1) % self.every == 0:
            growth = within_layer(self.groups, self.groups.norms().square())
            self.lambda_ = (self.lambda_ + self.delta * growth).clamp_(max=self.ceiling)
        super().step(now)

    def state_dict(self) -> dict[str, Any]:
        """λ_g."""
        return {"lambda": self.lambda_.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.lambda_.copy_(state["lambda"])


class GroupNorm(Penalty):
    """`group-norm`: λ_g = reg · 16^((I_max - I_g)/(I_max - I_min)) with I_g = ||θ_g||, the extremes of the layer.

    DepGraph's sparse training (Fang et al. 2023, arXiv 2301.12900, eq. 4; α = 4).

    Args:
        groups: the groups.
        level: share of the weights that go when the phase ends.
        reg: λ_g of a layer's longest group.
    """

    def __init__(self, groups: Groups, level: float, reg: float) -> None:
        super().__init__(groups, level)
        self.reg = reg

    def strength(self) -> Tensor:
        """[G] λ_g of this step."""
        return self.reg * 16 ** within_layer(self.groups, self.groups.norms())


def greg(
    given: RivalInputs, *, delta: float = 1e-4, ceiling: float = 1.0, every: int = 10
) -> GrowingRegularisation:
    """Growing regularisation with the paper's δ, ceiling and interval."""
    return GrowingRegularisation(given.groups, given.level, delta, ceiling, every)


def group_norm(given: RivalInputs, *, reg: float = 1e-4) -> GroupNorm:
    """Torch-Pruning's group-norm penalty with its default strength."""
    return GroupNorm(given.groups, given.level, reg)
