"""λ learned as a water level: one removal cost over all layers, below which every group goes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.level import Level
from ms_automl.meta.schedule import LambdaSchedule, record
from ms_automl.meta.step import Evaluation, TrainingStep
from ms_automl.meta.watch import at_bounds
from ms_automl.sparsity import (
    Groups,
    TaylorImportance,
    cubic_ramp,
    selective_thresholds,
    shrink_factors,
    smallest,
)


class WaterfillLearner:
    """λ_l such that the prox takes out the groups whose removal costs least, wherever they lie.

    With c_g the removal cost per weight (:class:`~ms_automl.sparsity.TaylorImportance`) and s(x) a cubic ramp to
    the level that is asked for or learned (:mod:`ms_automl.meta.level`): every ``every`` steps μ is set so that
    the groups with c_g < μ hold the share s(x) of all weights, q_l is how many of them layer l has, and

        λ_l = min(λ_max, (q_l-th smallest ||θ_g|| in l) / (η sqrt(n_l)))

    acts on the q_l groups of smallest norm. All others feel one small λ, ``rest``: shrinking them by λ_l is what
    would cost quality, while a little shrinkage regularises (docs/method.md, 'The rule'). The costs come from the
    gradients of the training step, which cost no extra pass.

    Args:
        groups: the groups.
        level: share of the weights to be zero in the end.
        bounds: (λ_min, λ_max), of which the upper one alone binds λ: it is 0 in a layer that nothing is taken
            from.
        every: steps between two updates of μ.
        rest: λ of the groups that stay.
    """

    def __init__(
        self, groups: Groups, level: Level, *, bounds: tuple[float, float], every: int, rest: float
    ) -> None:
        self.groups = groups
        self.level = level
        self.bounds = bounds
        self.every = every
        self.rest = rest
        self.importance = TaylorImportance(groups)
        self.taken = torch.zeros(len(groups.names))  # [L] share of the layer's groups, q_l / G_l
        self.lambda_ = torch.zeros(len(groups.names))
        self.forced = 0.0  # share of the weights that only the last step brought to zero
        self.course: list[list[float]] = []
        self.shares: list[list[float]] = []

    def lambdas(self) -> Tensor:
        """[L] λ of each layer now."""
        return self.lambda_

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Update the level where due, then one prox; in the phase's last step the level's groups go for good."""
        last = now.phase >= 1
        self.importance.observe(now.gradients())
        if now.index % self.every == 0 or last:
            self._fill(cubic_ramp(self.level.share, now.phase))
        norms = self.groups.norms()
        chosen = smallest(self.groups, norms, self.taken)
        self.lambda_ = self._lambda_for(norms, chosen, now.lr)
        threshold = selective_thresholds(self.groups, norms, self.lambda_, now.lr, chosen, self.rest)
        factors = shrink_factors(self.groups, norms, threshold)
        if last:
            self.forced = float(self.groups.size[chosen & (factors > 0)].sum()) / self.groups.total
            factors = torch.where(chosen, 0.0, factors)
        self.groups.scale_(factors)
        record(self.course, now.phase, self.lambda_)
        record(self.shares, now.phase, self.taken)

    def observe(self, evaluation: Evaluation) -> list[str]:
        """Let the level learn from a report."""
        self.level.observe(evaluation)
        return []

    def warnings(self) -> list[str]:
        """Whether λ_max held the prox back, once the phase is over."""
        lines = []
        if self.forced > 0.05:
            lines.append(
                f"{100 * self.forced:.0f} % of the weights were not at zero when the sparsifying phase ended and "
                f"went at once: raise lambda.high (now {self.bounds[1]:g}) or training.steps"
            )
        return lines + at_bounds(self.groups.names, self.lambda_, (0.0, self.bounds[1]))

    def _fill(self, share: float) -> None:
        cheapest = self.importance.lowest(share)
        ones = torch.ones_like(self.groups.size)
        self.taken = self.groups.layer_sum(cheapest.to(ones.dtype)) / self.groups.layer_sum(ones)

    def _lambda_for(self, norms: Tensor, chosen: Tensor, lr: float) -> Tensor:
        longest = torch.zeros(len(self.groups.names)).scatter_reduce_(
            0, self.groups.layer, torch.where(chosen, norms, 0.0), "amax"
        )
        size = torch.zeros_like(longest).scatter_reduce_(0, self.groups.layer, self.groups.size, "amax")
        # A hair more than the norm, so that rounding leaves no remainder.
        return (longest * (1 + 1e-5) / (lr * size.sqrt())).clamp(max=self.bounds[1])

    def schedule(self) -> LambdaSchedule:
        """The course of λ and of the shares it touched, as knots that ``fixed_lambda`` accepts."""
        values, shares = tuple(map(tuple, self.course)), tuple(map(tuple, self.shares))
        return LambdaSchedule(self.groups.names, values, shares, self.rest)

    def state_dict(self) -> dict[str, Any]:
        """Costs, level, shares, λ and the course so far."""
        return {
            "importance": self.importance.state_dict(),
            "level": self.level.state_dict(),
            "taken": self.taken,
            "lambda": self.lambda_,
            "forced": self.forced,
            "course": list(self.course),
            "shares": list(self.shares),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.importance.load_state_dict(state["importance"])
        self.level.load_state_dict(state["level"])
        self.taken, self.lambda_, self.forced = state["taken"], state["lambda"], state["forced"]
        self.course, self.shares = list(state["course"]), list(state["shares"])
