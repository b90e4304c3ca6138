"""λ learned as a water level: one removal cost over all layers, below which every group goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.bounds import Bounds
from ms_automl.meta.level import Level
from ms_automl.meta.rule import Learner
from ms_automl.meta.schedule import LambdaSchedule, record
from ms_automl.meta.step import Evaluation, TrainingStep
from ms_automl.sparsity import (
    Groups,
    Importance,
    TaylorImportance,
    cubic_ramp,
    selective_thresholds,
    shrink_factors,
    thresholds,
)


class WaterfillLearner(Learner):
    """λ_l such that the prox takes out the groups whose removal costs least, wherever they lie.

    With c_g the removal cost per weight (:class:`~ms_automl.sparsity.TaylorImportance`) and s(x) a cubic ramp to
    the level that is asked for or learned (:mod:`ms_automl.meta.level`): every ``every`` steps μ is set so that
    the groups with c_g < μ hold the share s(x) of all weights, and

        λ_l = min(λ_max, max_{g in l: c_g < μ} ||θ_g|| / (η sqrt(n_l)))

    acts on these groups until they are zero, for good. All others feel one small λ, ``rest``: shrinking them by
    λ_l is what would cost quality, while a little shrinkage regularises (docs/method.md, 'The rule'). The costs
    come from the gradients of the training step, which cost no extra pass.

    Taking the smallest groups of a layer in the place of its cheapest ones runs away: a long group that is cheap
    would be counted again and again while others went for it.

    Args:
        groups: the groups.
        level: share of the weights to be zero in the end.
        bounds: λ_max, and the λ of the groups that stay.
        every: steps between two updates of μ, and of what the bounds measure.
        begin: progress of the phase at which the ramp begins.
        importance: what ranks the groups; None is by removal costs averaged over about 100 steps.
        by_validation: whether the costs come from a gradient on an outer batch at every step, a pass each, in the
            place of the training step's.
        selective: whether λ_l acts on the chosen groups alone; without, on all groups of the layer.
    """

    def __init__(
        self,
        groups: Groups,
        level: Level,
        *,
        bounds: Bounds,
        every: int = 10,
        begin: float = 0.0,
        importance: Importance | None = None,
        by_validation: bool = False,
        selective: bool = True,
    ) -> None:
        self.groups = groups
        self.level = level
        self.bounds = bounds
        self.every = every
        self.measures_every = every if bounds.measures else 0
        self.begin = begin
        self.importance = TaylorImportance(groups) if importance is None else importance
        self.by_validation, self.selective = by_validation, selective
        self.chosen = torch.zeros_like(groups.layer, dtype=torch.bool)  # [G] c_g < μ
        self.gone = torch.zeros_like(self.chosen)  # [G] those of them that have reached zero
        self.lambda_ = groups.size.new_zeros(len(groups.names))
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
        self.importance.observe(self._gradients(now))
        self.bounds.observe(now.lr, now.moved, (~self.chosen).to(self.groups.size.dtype))
        if now.index % self.every == 0 or last:
            self.chosen = self.importance.lowest(self._share(now.phase), self.gone) | self.gone
        norms = self.groups.norms()
        self.lambda_ = self._lambda_now(norms, now.lr)
        threshold = selective_thresholds(self.groups, norms, self.lambda_, now.lr, self.chosen, self.bounds.rest)
        if not self.selective:
            threshold = torch.maximum(threshold, thresholds(self.groups, self.lambda_, now.lr))
        factors = torch.where(self.gone, 0.0, shrink_factors(self.groups, norms, threshold))
        if last:
            self.forced = float(self.groups.size[self.chosen & (factors > 0)].sum()) / self.groups.total
            factors = torch.where(self.chosen, 0.0, factors)
        self.groups.scale_(factors)
        self.gone = self.chosen & (factors == 0)
        record(self.course, now.phase, self.lambda_)
        record(self.shares, now.phase, self._shares())

    def _gradients(self, now: TrainingStep) -> Sequence[Tensor]:
        if not self.by_validation:
            return now.gradients()
        with torch.enable_grad():
            return now.outer_gradient(self.groups.weights)

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
                f"went at once: {self.bounds.remedy}"
            )
        return lines + self.bounds.warnings(self.groups.names, self.lambda_)

    def _share(self, phase: float) -> float:
        """s(x)."""
        if phase <= self.begin:
            return 0.0
        self.level.check()
        return cubic_ramp(self.level.share, (phase - self.begin) / (1 - self.begin))

    def _lambda_now(self, norms: Tensor, lr: float | Tensor) -> Tensor:
        """[L] what brings the longest of the chosen groups to zero, or back to it where the optimiser moved it."""
        going = torch.where(self.chosen, norms, 0.0)
        zeros = torch.zeros_like(self.lambda_)
        longest = zeros.scatter_reduce(0, self.groups.layer, going, "amax")
        size = zeros.scatter_reduce(0, self.groups.layer, self.groups.size, "amax")
        largest = lr
        if isinstance(lr, Tensor):  # the smallest of a layer, so that it suffices
            largest = lr.max()
            lr = torch.full_like(zeros, torch.inf).scatter_reduce(0, self.groups.layer, lr, "amin")
        # A hair more than the norm, so that rounding leaves no remainder.
        needed = longest * (1 + 1e-5) / (lr * size.sqrt() + torch.finfo(size.dtype).tiny)
        return needed.clamp(max=self.bounds.highest(lr, largest))

    def _shares(self) -> Tensor:
        """[L] share of the layer's groups that λ acts on or has brought to zero."""
        ones = torch.ones_like(self.groups.size)
        return self.groups.layer_sum(self.chosen.to(ones.dtype)) / self.groups.layer_sum(ones)

    def schedule(self) -> LambdaSchedule:
        """The course of λ and of the shares it touched, as knots that ``fixed_lambda`` accepts."""
        values, shares = tuple(map(tuple, self.course)), tuple(map(tuple, self.shares))
        return LambdaSchedule(self.groups.names, values, shares, self.bounds.course_rest())

    def state_dict(self) -> dict[str, Any]:
        """Costs, level, shares, λ and the course so far."""
        return {
            "importance": self.importance.state_dict(),
            "level": self.level.state_dict(),
            "chosen": self.chosen.clone(),
            "gone": self.gone.clone(),
            "lambda": self.lambda_.clone(),
            "forced": self.forced,
            "course": list(self.course),
            "shares": list(self.shares),
            "bounds": self.bounds.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.importance.load_state_dict(state["importance"])
        self.level.load_state_dict(state["level"])
        for tensor, name in ((self.chosen, "chosen"), (self.gone, "gone"), (self.lambda_, "lambda")):
            tensor.copy_(state[name])
        self.bounds.load_state_dict(state.get("bounds", {}))  # older states have none, as those given have nothing
        self.forced = state["forced"]
        self.course, self.shares = list(state["course"]), list(state["shares"])
