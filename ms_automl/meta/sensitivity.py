"""The `forward` hypergradient: how θ answers a change of log λ, carried along training.

With ρ_l = log λ_l, Z_g = dθ_g/dρ_l for the groups g of layer l (terms across layers dropped, so that one Z
serves all λ_l at once). One training step followed by the prox maps θ to (1 - r) z, z the step's result,
r = η λ sqrt(n)/||z||; differentiating it with the Hessian of the loss replaced by a decay γ gives, u = z/||z||,

    Z ← (1 - r) γZ + r u <u, γZ> - (η λ sqrt(n)) u        for living groups,   Z = 0 for zero ones.

γ = 0 differentiates through the last prox only (``one_step``); γ = 1 never forgets. Forward-mode
hypergradients: Franceschi et al. 2017 (arXiv 1703.01785), section 3.2; the decay is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ms_automl.sparsity import Groups


class Sensitivity:
    """Z of every group.

    Args:
        groups: the groups.
        decay: γ per training step, 0 to 1.
    """

    def __init__(self, groups: Groups, decay: float) -> None:
        self.groups = groups
        self.decay = decay
        self.tensors = [torch.zeros_like(weight) for weight in groups.weights]

    @torch.no_grad()
    def advance(self, norms: Tensor, threshold: Tensor, factors: Tensor) -> None:
        """Carry Z through one prox, to be called with the weights still as they were before it.

        Args:
            norms: [G] ||z_g||.
            threshold: [G] η λ sqrt(n_g).
            factors: [G] what the prox multiplies by, 1 - r; 0 where the group dies.
        """
        norms = norms.clamp(min=torch.finfo(norms.dtype).tiny)
        along = self.decay * self.groups.inner(self.tensors, self.groups.weights)  # <z, γZ>
        # r u <u, γZ> - (η λ sqrt n) u = z · (r <z, γZ> / ||z||² - threshold / ||z||)
        pull = (1 - factors) * along / norms.square() - threshold / norms
        moved = (factors > 0) & (factors < 1)  # one kept to pass the signal does not answer λ
        pull = torch.where(moved, pull, 0.0)
        torch._foreach_mul_(self.tensors, self.groups.per_weight(factors * self.decay))
        torch._foreach_addcmul_(self.tensors, self.groups.weights, self.groups.per_weight(pull))

    @torch.no_grad()
    def harm(self, gradients: Sequence[Tensor], norms: Tensor, width: Tensor) -> Tensor:
        """[L] dJ_loss/dρ_l = Σ_g w_g <∇_θg J, Z_g> with w_g = m/(||θ_g|| + m).

        Shrinkage is not removal: what is shrunk and survives grows back when the pattern is frozen, so each
        group's share counts by its nearness to zero (the first correction; docs/architecture.md).

        Args:
            gradients: L tensors, the gradient of the outer losses.
            norms: [G] ||θ_g||.
            width: [G] m, as :func:`live_width` gives it.
        """
        near = width / (norms + width)
        return self.groups.layer_sum(near * self.groups.inner(gradients, self.tensors))

    @torch.no_grad()
    def density_slope(self, norms: Tensor, width: Tensor) -> Tensor:
        """[L] dD/dρ_l of the smooth density D = Σ_g (n_g/N) ||θ_g||/(||θ_g|| + m), m held constant.

        A width that follows the layer's norms (the second correction): a fixed one understates the gain.

        Args:
            norms: [G] ||θ_g||.
            width: [G] m.
        """
        groups = self.groups
        unit = norms.clamp(min=torch.finfo(norms.dtype).tiny)
        norm_slope = groups.inner(groups.weights, self.tensors) / unit  # <u, Z>
        share = groups.size / groups.total
        return groups.layer_sum(share * width / (norms + width).square() * norm_slope)


@torch.no_grad()
def live_width(groups: Groups, norms: Tensor) -> Tensor:
    """[G] m: the mean norm of the living groups of each group's layer (1 in a layer without any)."""
    live = groups.layer_sum((norms > 0).to(norms.dtype))
    mean = groups.layer_sum(norms) / live.clamp(min=1)
    return torch.where(live > 0, mean, 1.0)[groups.layer]
