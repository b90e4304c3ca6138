"""λ learned by its gradient while θ trains, whichever estimator the gradient comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ms_automl.errors import DivergenceError, unknown_name
from ms_automl.meta.hypergradients import Hypergradient, Shrinkage, Ties
from ms_automl.meta.iterative import IterativeLambda
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.reference import Reference
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups, shrink_factors, thresholds

LAMBDA_OPTIMIZERS: dict[str, Callable[[list[Tensor], float], torch.optim.Optimizer]] = {
    "adam": lambda values, lr: torch.optim.Adam(values, lr=lr, betas=(0.9, 0.99)),
    "normalised": lambda values, lr: torch.optim.SGD(values, lr=lr),
}
"""Steps on ρ: Adam, or ρ ← ρ - lr · g/||g||_∞, which keeps the proportions of the layers' slopes."""


class GradientLearner(IterativeLambda):
    """ρ follows dJ/dρ, and λ = exp(ρ) · min(1, x / warmup).

    The rise over the first share of the sparsifying phase keeps λ from deciding before the loss can say what
    a group is worth: an untrained network misses nothing.

    Args:
        groups: the groups that λ shrinks.
        ties: which ρ each layer uses.
        hypergradient: estimates dJ/dρ.
        pricing: the cotangent it is given.
        bounds: (low, high) that λ stays within.
        start: λ at the first step.
        optimizer: a key of :data:`LAMBDA_OPTIMIZERS`.
        lr: its step on ρ.
        every: steps between two updates of ρ.
        warmup: share x of the sparsifying phase over which λ rises from 0.
        reference: what the guard compares with: where a report shows a collapse, λ is halved for good.
    """

    def __init__(
        self,
        groups: Groups,
        ties: Ties,
        hypergradient: Hypergradient,
        pricing: Pricing,
        *,
        bounds: tuple[float, float],
        start: float,
        lr: float,
        every: int,
        warmup: float,
        reference: Reference,
        optimizer: str = "adam",
    ) -> None:
        if optimizer not in LAMBDA_OPTIMIZERS:
            raise unknown_name("lambda_optimizer", optimizer, sorted(LAMBDA_OPTIMIZERS))
        super().__init__(groups, ties, bounds=bounds, start=start, warmup=warmup, reference=reference)
        self.hypergradient, self.pricing, self.every = hypergradient, pricing, every
        self.optimizer = LAMBDA_OPTIMIZERS[optimizer]([self.rho], lr)
        self.normalised = optimizer == "normalised"

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """One prox with the present λ, and where due one step of λ.

        Raises:
            DivergenceError: where the estimate is NaN or infinite. A trial that went on with the λ it has would
                pass for one that learned.
        """
        self.begin(now)
        norms = self.groups.norms()
        threshold = thresholds(self.groups, self.lambdas(), now.lr)
        shrinkage = Shrinkage(norms, threshold, shrink_factors(self.groups, norms, threshold))
        with torch.enable_grad():
            self.hypergradient.advance(now, shrinkage)
        self.groups.scale_(shrinkage.factors)
        if now.index % self.every == 0:
            self._learn(now)
        self.end(now)

    def _learn(self, now: TrainingStep) -> None:
        parameters = self.hypergradient.parameters
        with torch.enable_grad():
            gradients = now.outer_gradient(parameters)
            slope = self.hypergradient.slope(self.pricing.cotangent(parameters, gradients))
        if not bool(torch.isfinite(slope).all()):
            raise DivergenceError(
                f"dJ/d log λ not finite at step {now.index}: {slope.tolist()}; "
                "try a lower training.lr, or an estimator with a shorter memory (meta.learner=forward)"
            )
        if self.normalised:
            slope = slope / slope.abs().max().clamp(min=torch.finfo(slope.dtype).tiny)
        self.rho.grad = slope.to(self.rho.dtype)
        self.optimizer.step()
        self.keep_within()

    def state_dict(self) -> dict[str, Any]:
        """λ, its optimiser, and what the estimator carries along."""
        return super().state_dict() | {
            "optimizer": self.optimizer.state_dict(),
            "hypergradient": self.hypergradient.state_dict(),
            "pricing": self.pricing.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.hypergradient.load_state_dict(state["hypergradient"])
        self.pricing.load_state_dict(state["pricing"])
