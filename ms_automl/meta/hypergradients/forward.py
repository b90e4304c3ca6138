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
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.hypergradients.shrinkage import Shrinkage, Ties
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups


class Forward:
    """Z of every group; needs no pass of its own.

    Args:
        groups: the groups.
        ties: which λ each layer uses.
        decay: γ per training step, 0 to 1.
    """

    def __init__(self, groups: Groups, ties: Ties, decay: float) -> None:
        self.groups, self.ties, self.decay = groups, ties, decay
        self.parameters = groups.weights
        self.tensors = [torch.zeros_like(weight) for weight in groups.weights]

    def advance(self, step: TrainingStep, shrinkage: Shrinkage) -> None:
        """Carry Z through one step and its prox."""
        shrinkage.carry_(self.groups, self.groups.weights, self.tensors, decay=self.decay, push=True)

    @torch.no_grad()
    def slope(self, cotangent: Sequence[Tensor]) -> Tensor:
        """[R] <cotangent, Z>."""
        return self.ties.collect(self.groups.layer_sum(self.groups.inner(cotangent, self.tensors)))

    def state_dict(self) -> dict[str, Any]:
        """Z."""
        return {"tensors": [tensor.clone() for tensor in self.tensors]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for tensor, saved in zip(self.tensors, state["tensors"], strict=True):
            tensor.copy_(saved)
