"""λ that moves while θ trains: ρ = log λ within bounds, a warm-up, a guard, and the course it took."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.diagnostics import at_bounds, ceiling
from ms_automl.meta.hypergradients.shrinkage import Ties
from ms_automl.meta.reference import Reference
from ms_automl.meta.rule import Learner
from ms_automl.meta.schedule import LambdaSchedule, record
from ms_automl.meta.step import Evaluation, TrainingStep
from ms_automl.sparsity import Groups


class IterativeLambda(Learner):
    """What the learners that take steps on ρ have in common: λ_l = exp(ρ_l) · min(1, x / warmup).

    Args:
        groups: the groups that λ shrinks.
        ties: which of the R free ρ each layer uses.
        bounds: (low, high) that λ stays within.
        start: λ at the first step.
        warmup: share x of the sparsifying phase over which λ rises from 0.
        reference: what the guard compares with: where a report shows a collapse, λ is halved for good.

    Attributes:
        rho: [R] log λ, before the warm-up's factor.
    """

    def __init__(
        self,
        groups: Groups,
        ties: Ties,
        *,
        bounds: tuple[float, float],
        start: float,
        warmup: float,
        reference: Reference,
    ) -> None:
        self.groups, self.ties = groups, ties
        self.bounds, self.warmup, self.reference = bounds, warmup, reference
        self.ceiling = math.log(bounds[1])  # of ρ; the guard lowers it
        self.rise = 0.0 if warmup > 0 else 1.0
        self.rho = torch.full_like(groups.size[:1], math.log(start)).repeat(ties.count)
        self.course: list[list[float]] = []

    def lambdas(self) -> Tensor:
        """[L] λ of each layer now."""
        return self.rise * self.rho.exp()[self.ties.layers]

    def begin(self, now: TrainingStep) -> None:
        """Set the warm-up's factor of a step."""
        self.rise = min(1.0, now.phase / self.warmup) if self.warmup > 0 else 1.0

    def end(self, now: TrainingStep) -> None:
        """Record λ where the phase has passed the next knot."""
        record(self.course, now.phase, self.lambdas())

    def keep_within(self) -> None:
        """Put ρ back within its bounds, after a step of it."""
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
        """ρ, what bounds it, and the course so far."""
        state = {"rho": self.rho.clone(), "rise": self.rise, "ceiling": self.ceiling}
        return state | {"course": list(self.course)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.rho.copy_(state["rho"])
        self.rise, self.ceiling = state["rise"], state["ceiling"]
        self.course = list(state["course"])
