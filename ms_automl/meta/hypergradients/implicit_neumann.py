"""The `implicit_neumann` hypergradient: K terms of the proximal fixed point's inverse.

At a fixed point of Φ(θ) = prox(θ - η ∇L(θ)), dθ/dρ = (1 - ∂Φ/∂θ)^{-1} ∂Φ/∂ρ. The truncated Neumann series gives

    dJ/dρ = Σ_{j<K} <((∂Φ/∂θ)^T)^j ∇J, ∂Φ/∂ρ>,        (∂Φ/∂θ)^T p = (1 - η H) J_prox p,

on the groups that live (J_prox is 0 on the others), heads and batch norm included. It is ``unrolled`` with all K
steps at the present point (Lorraine et al. 2020, arXiv 1911.02590; for proximal maps Bertrand et al. 2020, arXiv
2002.08943). H, the Hessian with weight decay, comes from one training batch; θ is assumed to be near a stationary
point of plain proximal gradient descent, which momentum shares and Adam's scaled steps do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.hypergradients.replay import Replay
from ms_automl.meta.hypergradients.shrinkage import Shrinkage, Ties
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups


class ImplicitNeumann:
    """Carries nothing along; a slope costs K - 1 Hessian-vector products.

    Args:
        groups: the groups.
        ties: which λ each layer uses.
        dynamics: the training step as a function.
        terms: K.
    """

    def __init__(self, groups: Groups, ties: Ties, dynamics: Dynamics, terms: int) -> None:
        self.groups, self.ties, self.dynamics, self.terms = groups, ties, dynamics, terms
        self.replay = Replay(groups, dynamics)
        self.parameters = dynamics.parameters

    def advance(self, step: TrainingStep, shrinkage: Shrinkage) -> None:
        """Keep the step for the slope that may follow it."""
        self.step, self.shrinkage = step, shrinkage

    @torch.no_grad()
    def slope(self, cotangent: Sequence[Tensor]) -> Tensor:
        """[R] by K - 1 products with the transposed Jacobian."""
        groups, lr = self.groups, self.step.lr
        carried = [tensor.clone() for tensor in cotangent]
        total = self.shrinkage.slope(groups, groups.weights, self.replay.penalised(carried))
        self.dynamics.charge(self.step.batch(), self.terms - 1)
        for _ in range(self.terms - 1):
            self.shrinkage.carry_(groups, groups.weights, self.replay.penalised(carried))
            curved = self.dynamics.hessian_product(carried, self.step.batch())
            torch._foreach_sub_(carried, torch._foreach_mul(curved, lr))
            total += self.shrinkage.slope(groups, groups.weights, self.replay.penalised(carried))
        return self.ties.collect(total)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: each slope stands alone."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
