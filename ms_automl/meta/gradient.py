"""λ learned by its gradient while θ trains, whichever estimator the gradient comes from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ms_automl.errors import DivergenceError, unknown_name
from ms_automl.meta.hypergradients import Hypergradient, Shrinkage, Ties
from ms_automl.meta.objective import Reference
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.schedule import LambdaSchedule, record
from ms_automl.meta.step import Evaluation, TrainingStep
from ms_automl.meta.watch import at_bounds, ceiling
from ms_automl.sparsity import Groups, shrink_factors, thresholds

LAMBDA_OPTIMIZERS: dict[str, Callable[[list[Tensor], float], torch.optim.Optimizer]] = {
    "adam": lambda values, lr: torch.optim.Adam(values, lr=lr, betas=(0.9, 0.99)),
    "normalised": lambda values, lr: torch.optim.SGD(values, lr=lr),
}
"""Steps on ρ: Adam, or ρ ← ρ - lr · g/||g||_∞, which keeps the proportions of the layers' slopes."""


class GradientLearner:
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
        self.groups, self.ties = groups, ties
        self.hypergradient, self.pricing = hypergradient, pricing
        self.bounds, self.every, self.warmup = bounds, every, warmup
        self.reference = reference
        self.ceiling = math.log(bounds[1])  # of ρ; the guard lowers it
        self.rise = 0.0 if warmup > 0 else 1.0
        self.rho = torch.full_like(groups.size[:1], math.log(start)).repeat(ties.count)
        self.optimizer = LAMBDA_OPTIMIZERS[optimizer]([self.rho], lr)
        self.normalised = optimizer == "normalised"
        self.course: list[list[float]] = []

    def lambdas(self) -> Tensor:
        """[L] λ of each layer now."""
        return self.rise * self.rho.exp()[self.ties.layers]

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """One prox with the present λ, and where due one step of λ.

        Raises:
            DivergenceError: where the estimate is NaN or infinite. A trial that went on with the λ it has would
                pass for one that learned.
        """
        self.rise = min(1.0, now.phase / self.warmup) if self.warmup > 0 else 1.0
        norms = self.groups.norms()
        threshold = thresholds(self.groups, self.lambdas(), now.lr)
        shrinkage = Shrinkage(norms, threshold, shrink_factors(self.groups, norms, threshold))
        with torch.enable_grad():
            self.hypergradient.advance(now, shrinkage)
        self.groups.scale_(shrinkage.factors)
        if now.index % self.every == 0:
            self._learn(now)
        record(self.course, now.phase, self.lambdas())

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
        self.rho.clamp_(math.log(self.bounds[0]), self.ceiling)

    @torch.no_grad()
    def observe(self, evaluation: Evaluation) -> list[str]:
        """Halve the largest λ, and never go back, where the network has collapsed."""
        found = ceiling(evaluation, self.reference, self.lambdas(), self.bounds[0])
        if found is None:
            return []
        self.ceiling, line = found
        self.rho.clamp_(max=self.ceiling)
        return [line]

    def warnings(self) -> list[str]:
        """λ at its bounds, once the phase is over."""
        return at_bounds(self.groups.names, self.lambdas(), self.bounds)

    def schedule(self) -> LambdaSchedule:
        """The course of λ so far, as knots that ``fixed_lambda`` accepts."""
        return LambdaSchedule(self.groups.names, tuple(map(tuple, self.course)))

    def state_dict(self) -> dict[str, Any]:
        """ρ, its optimiser, what the estimator carries along, and the course so far."""
        return {
            "rho": self.rho.clone(),
            "rise": self.rise,
            "ceiling": self.ceiling,
            "optimizer": self.optimizer.state_dict(),
            "hypergradient": self.hypergradient.state_dict(),
            "pricing": self.pricing.state_dict(),
            "course": list(self.course),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.rho.copy_(state["rho"])
        self.rise, self.ceiling = state["rise"], state["ceiling"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.hypergradient.load_state_dict(state["hypergradient"])
        self.pricing.load_state_dict(state["pricing"])
        self.course = list(state["course"])
