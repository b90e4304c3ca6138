"""The `implicit_cg` hypergradient: the stationary point's answer to λ, solved by conjugate gradients.

At a stationary point ∇L + λ ∂Ω ∋ 0 the implicit function theorem gives, on the groups that live,

    (∇²L + λ ∇²Ω + μ 1) x = ∇J,        dJ/dρ_l = -λ_l Σ_{g in l} sqrt(n_g) <u_g, x_g>,

with λ ∇²Ω = (λ sqrt(n_g)/||θ_g||)(1 - u u^T) on group g and μ a damping; heads and batch norm are in the system
(Pedregosa 2016, arXiv 1602.02355; Rajeswaran et al. 2019, arXiv 1909.04630, section 3). ∇²L, with weight decay,
comes from one training batch. What is assumed is as for :mod:`~ms_automl.meta.hypergradients.implicit_neumann`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.hypergradients.replay import Replay
from ms_automl.meta.hypergradients.shrinkage import Shrinkage, Ties
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups

Product = Callable[[list[Tensor]], list[Tensor]]


class ImplicitCG:
    """Carries nothing along; a slope costs K Hessian-vector products.

    The solve ends early where it has converged or meets negative curvature (Steihaug 1983); K products are
    charged all the same, so that a run's cost is known before it starts.

    Args:
        groups: the groups.
        ties: which λ each layer uses.
        dynamics: the training step as a function.
        iterations: K.
        damping: μ.
    """

    def __init__(
        self, groups: Groups, ties: Ties, dynamics: Dynamics, iterations: int, damping: float = 0.01
    ) -> None:
        self.groups, self.ties, self.dynamics = groups, ties, dynamics
        self.iterations, self.damping = iterations, damping
        self.replay = Replay(groups, dynamics)
        self.parameters = dynamics.parameters

    def advance(self, step: TrainingStep, shrinkage: Shrinkage) -> None:
        """Keep the step for the slope that may follow it."""
        self.step, self.shrinkage = step, shrinkage

    @torch.no_grad()
    def slope(self, cotangent: Sequence[Tensor]) -> Tensor:
        """[R] from one solve for all λ at once."""
        self.dynamics.charge(self.step.batch(), self.iterations)
        solution = conjugate_gradients(self._system(), self._living(cotangent), self.iterations)
        by_layer = self.shrinkage.slope(self.groups, self.groups.weights, self.replay.penalised(solution))
        return self.ties.collect(by_layer / self.step.lr)

    def _living(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        kept = [tensor.clone() for tensor in tensors]
        alive = (self.shrinkage.factors > 0).to(self.shrinkage.factors.dtype)
        torch._foreach_mul_(self.replay.penalised(kept), self.groups.per_weight(alive))
        return kept

    def _system(self) -> Product:
        groups, lengths = self.groups, self.groups.norms().clamp_(min=torch.finfo(self.groups.size.dtype).tiny)
        strength = self.shrinkage.threshold / (self.step.lr * lengths)  # λ sqrt(n) / ||θ||
        bend = torch.where(self.shrinkage.answers, strength, 0.0)

        def product(direction: list[Tensor]) -> list[Tensor]:
            result = self.dynamics.hessian_product(direction, self.step.batch())
            torch._foreach_add_(result, direction, alpha=self.damping)
            curved, moved = self.replay.penalised(result), self.replay.penalised(direction)
            along = groups.inner(moved, groups.weights) / lengths / lengths
            torch._foreach_addcmul_(curved, moved, groups.per_weight(bend))
            torch._foreach_addcmul_(curved, groups.weights, groups.per_weight(-bend * along))
            return self._living(result)

        return product

    def state_dict(self) -> dict[str, Any]:
        """Nothing: each slope stands alone."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def conjugate_gradients(product: Product, target: list[Tensor], iterations: int) -> list[Tensor]:
    """Solve A x = b for a symmetric A by at most ``iterations`` products (Hestenes & Stiefel 1952).

    Where a direction of no or negative curvature is met, the x of before it is returned (b at the first).

    Args:
        product: x ↦ A x on lists of tensors.
        target: b.
        iterations: products at most.
    """
    solution = [torch.zeros_like(tensor) for tensor in target]
    residual = [tensor.clone() for tensor in target]
    direction = [tensor.clone() for tensor in target]
    start = square = _dot(residual, residual)
    for iteration in range(iterations):
        if square <= start * torch.finfo(target[0].dtype).eps ** 2:
            break
        image = product(direction)
        curvature = _dot(direction, image)
        if curvature <= 0:
            return solution if iteration else direction
        length = square / curvature
        torch._foreach_add_(solution, torch._foreach_mul(direction, length))
        torch._foreach_sub_(residual, torch._foreach_mul(image, length))
        before, square = square, _dot(residual, residual)
        direction = list(torch._foreach_add(residual, torch._foreach_mul(direction, square / before)))
    return solution


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum())
