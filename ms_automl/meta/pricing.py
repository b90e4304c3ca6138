"""The outer gradient as λ is to feel it: loss and density, with what a plain derivative gets wrong corrected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ms_automl.sparsity import Groups


class Pricing:
    """The cotangent of θ for the trade-off J = J_loss + price · density.

    For group g of the penalised weights it is w_g ∇_θg J_loss + price · ∂D/∂θ_g with
    D = Σ_g (n_g/N) ||θ_g||/(||θ_g|| + m_g), m_g held constant; for every other parameter ∇J_loss. Corrections:

    - Shrinkage is not removal: what is shrunk and survives grows back when the pattern is frozen, so each
      group's share counts by its nearness to zero, w_g = m_g/(||θ_g|| + m_g).
    - A fixed width of the smooth density understates the gain, so m_g follows the mean norm of the layer's living
      groups.

    Without them w_g = 1 and m_g stays what it was at the start (docs/architecture.md).

    Args:
        groups: the groups.
        price: of density.
        corrected: whether both corrections are made.
    """

    def __init__(self, groups: Groups, price: float, corrected: bool = True) -> None:
        self.groups, self.price, self.corrected = groups, price, corrected
        self.width = live_width(groups, groups.norms())  # [G] m

    @torch.no_grad()
    def cotangent(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """A tensor for each of ``parameters``.

        Args:
            parameters: P live parameters, the L penalised weights among them.
            gradients: P tensors, ∇J_loss at the present values.
        """
        groups, norms = self.groups, self.groups.norms()
        nearness = torch.ones_like(norms)
        if self.corrected:
            self.width = live_width(groups, norms)
            nearness = self.width / (norms + self.width)
        living = norms > 0
        density = groups.size / groups.total * self.width / (norms + self.width).square()  # dD/d||θ_g||
        density = torch.where(living, density / torch.where(living, norms, 1.0), 0.0)  # times θ_g: dD/dθ_g
        result, place = list(gradients), {id(value): index for index, value in enumerate(parameters)}
        each = zip(
            groups.weights, groups.per_weight(nearness), groups.per_weight(self.price * density), strict=True
        )
        for weight, near, slope in each:
            index = place[id(weight)]
            result[index] = near * gradients[index] + slope * weight
        return result

    def state_dict(self) -> dict[str, Tensor]:
        """The width."""
        return {"width": self.width.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        self.width = state["width"].to(self.width.device, copy=True)


@torch.no_grad()
def live_width(groups: Groups, norms: Tensor) -> Tensor:
    """[G] m: the mean norm of the living groups of each group's layer (1 in a layer without any)."""
    live = groups.layer_sum((norms > 0).to(norms.dtype))
    mean = groups.layer_sum(norms) / live.clamp(min=1)
    return torch.where(live > 0, mean, 1.0)[groups.layer]
