"""λ learned to a target sparsity: one price level over all layers, filled from the cheapest groups up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.schedule import LambdaSchedule, record
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups, TaylorImportance, cubic_ramp, shrink_factors, smallest, thresholds


class WaterfillLearner:
    """λ_l such that the prox takes out the groups whose removal costs least, wherever they lie.

    Every ``every`` steps, with c_g the removal cost per weight (:class:`TaylorImportance`) and s(x) a cubic
    ramp to the target: μ is the level at which the groups with c_g < μ hold the share s(x) of all weights, q_l
    is how many of them layer l has, and

        λ_l = min(λ_max, (q_l-th smallest ||θ_g|| in l) / (η sqrt(n_l))),

    applied only to the q_l groups of smallest norm: shrinking the survivors is what costs quality. The costs
    come from gradients of the training batch, which cost no extra pass.

    Args:
        groups: the groups.
        target: share of weights to be zero at the end.
        bounds: (λ_min, λ_max); λ is 0 in a layer that nothing is taken from.
        every: steps between two updates.
    """

    def __init__(self, groups: Groups, *, target: float, bounds: tuple[float, float], every: int) -> None:
        self.groups = groups
        self.target = target
        self.bounds = bounds
        self.every = every
        self.importance = TaylorImportance(groups)
        self.taken = torch.zeros(len(groups.names))  # [L] share of the layer's groups, q_l / G_l
        self.lambda_ = torch.zeros(len(groups.names))
        self.course: list[list[float]] = []
        self.shares: list[list[float]] = []

    def lambdas(self) -> Tensor:
        """[L] λ of each layer now."""
        return self.lambda_

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Update the level where due, then one prox; in the phase's last step the level's groups go for good."""
        last = now.phase >= 1
        if now.index % self.every == 0 or last:
            self.importance.observe(now.gradients())
            self._fill(cubic_ramp(self.target, now.phase))
        norms = self.groups.norms()
        chosen = smallest(self.groups, norms, self.taken)
        self.lambda_ = self._level(norms, chosen, now.lr)
        factors = shrink_factors(self.groups, norms, thresholds(self.groups, self.lambda_, now.lr))
        if last:
            factors = torch.where(chosen, 0.0, factors)
        self.groups.scale_(torch.where(chosen, factors, 1.0))
        record(self.course, now.phase, self.lambda_)
        record(self.shares, now.phase, self.taken)

    def _fill(self, share: float) -> None:
        cheapest = self.importance.lowest(share)
        ones = torch.ones_like(self.groups.size)
        self.taken = self.groups.layer_sum(cheapest.to(ones.dtype)) / self.groups.layer_sum(ones)

    def _level(self, norms: Tensor, chosen: Tensor, lr: float) -> Tensor:
        longest = torch.zeros(len(self.groups.names)).scatter_reduce_(
            0, self.groups.layer, torch.where(chosen, norms, 0.0), "amax"
        )
        size = torch.zeros_like(longest).scatter_reduce_(0, self.groups.layer, self.groups.size, "amax")
        # A hair more than the norm, so that rounding leaves no remainder.
        return (longest * (1 + 1e-5) / (lr * size.sqrt())).clamp(max=self.bounds[1])

    def schedule(self) -> LambdaSchedule:
        """The course of λ and of the shares it touched, as knots that ``fixed_lambda`` accepts."""
        return LambdaSchedule(self.groups.names, tuple(map(tuple, self.course)), tuple(map(tuple, self.shares)))

    def state_dict(self) -> dict[str, Any]:
        """Costs, shares, λ and the course so far."""
        return {
            "importance": self.importance.state_dict(),
            "taken": self.taken,
            "lambda": self.lambda_,
            "course": list(self.course),
            "shares": list(self.shares),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.importance.load_state_dict(state["importance"])
        self.taken, self.lambda_ = state["taken"], state["lambda"]
        self.course, self.shares = list(state["course"]), list(state["shares"])
