"""One proximal step and its derivative in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ms_automl.sparsity import Groups


@dataclass(frozen=True)
class Shrinkage:
    """The prox of one step, θ_g = (1 - τ_g/||z_g||) z_g for groups that live and 0 for those that die.

    Its Jacobian in z is symmetric: J v = (1 - r) v + r u <u, v> with u = z/||z||, r = τ/||z||; J = 0 where a group
    dies and J = 1 where one is kept to pass the signal. Its derivative in ρ = log λ is -τ u where 0 < r < 1.

    Attributes:
        norms: [G] ||z_g||.
        threshold: [G] τ_g = η λ sqrt(n_g).
        factors: [G] what the prox multiplies by, 1 - r; 0 where the group dies.
    """

    norms: Tensor
    threshold: Tensor
    factors: Tensor

    @property
    def answers(self) -> Tensor:
        """[G] True where the prox depends on λ: shrunk, and neither dead nor kept as it is."""
        return (self.factors > 0) & (self.factors < 1)

    @torch.no_grad()
    def carry_(
        self,
        groups: Groups,
        weights: Sequence[Tensor],
        tensors: list[Tensor],
        *,
        decay: float = 1.0,
        push: bool = False,
    ) -> None:
        """Set v ← γ J v, with ``push`` v ← γ J v - τ u, in place.

        Args:
            groups: the groups.
            weights: L tensors z, or any positive multiple of each group: the weights after the prox serve too.
            tensors: L tensors v shaped like the weights.
            decay: γ.
            push: whether to add the derivative in ρ.
        """
        lengths = groups.inner(weights, weights).sqrt_().clamp_(min=torch.finfo(self.norms.dtype).tiny)
        along = groups.inner(tensors, weights) / lengths  # <u, v>
        pull = decay * (1 - self.factors) * along
        if push:
            pull = pull - self.threshold
        pull = torch.where(self.answers, pull, 0.0) / lengths
        torch._foreach_mul_(tensors, groups.per_weight(self.factors * decay))
        torch._foreach_addcmul_(tensors, list(weights), groups.per_weight(pull))

    @torch.no_grad()
    def slope(self, groups: Groups, weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
        """[L] <v, dθ/dρ_l> = -Σ_{g in l} τ_g <u_g, v_g>; arguments as for :meth:`carry_`."""
        lengths = groups.inner(weights, weights).sqrt_().clamp_(min=torch.finfo(self.norms.dtype).tiny)
        along = groups.inner(tensors, weights) / lengths
        return -groups.layer_sum(torch.where(self.answers, self.threshold * along, 0.0))


class Ties:
    """Which ρ each layer uses: L layers share R free ones.

    Args:
        groups: the groups.
        index: [L] number of the ρ that each layer uses, from 0; equal numbers share one.

    Attributes:
        layers: [L] the same as a tensor.
        groups: [G] number of the ρ that each group's threshold follows.
        count: R.
    """

    def __init__(self, groups: Groups, index: Sequence[int]) -> None:
        self.layers = torch.tensor(list(index), device=groups.layer.device)
        self.groups = self.layers[groups.layer]
        self.count = max(index) + 1

    def collect(self, by_layer: Tensor) -> Tensor:
        """Sum [L] over the layers that share a ρ: [R]."""
        return by_layer.new_zeros(self.count).index_add_(0, self.layers, by_layer)

    def moved(self, threshold: Tensor, shift: Tensor) -> Tensor:
        """[G] the threshold at ρ + shift, shift [R]; differentiable in the shift."""
        return threshold * shift.exp()[self.groups]
