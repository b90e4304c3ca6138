"""A given λ: group lasso by a proximal step after each optimiser step ('Less is More', arXiv 2308.12114)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ms_automl.errors import ConfigError
from ms_automl.meta.rule import Rule
from ms_automl.meta.schedule import LambdaSchedule
from ms_automl.meta.step import TrainingStep
from ms_automl.models.penalised import told
from ms_automl.sparsity import Groups, selective_thresholds, smallest, thresholds


class ScheduledLambda(Rule):
    """Σ_l λ_l(x) Σ_g sqrt(n_g) ||θ_g||, x the progress of the sparsifying phase.

    Args:
        groups: the groups.
        schedule: λ by layer: a constant, or the knots that a learner left behind.
        prox: the proximal step of the groups, given its thresholds [G].
        freezes: whether the zeros stay after the phase; without, λ regularises and nothing more.

    Raises:
        ConfigError: for a schedule of other layers.
    """

    def __init__(
        self,
        groups: Groups,
        schedule: LambdaSchedule,
        prox: Callable[[Tensor], None],
        *,
        freezes: bool = True,
    ) -> None:
        if schedule.layers != groups.names:
            reasons = {name: groups.left_out[name] for name in schedule.layers if name in groups.left_out}
            raise ConfigError(
                f"λ must be given for the layers {', '.join(groups.names)}, in this order, "
                f"but the schedule has {', '.join(schedule.layers)}" + (f": {told(reasons)}" if reasons else "")
            )
        self.groups, self.given, self.prox, self.freezes = groups, schedule, prox, freezes
        self.phase = 0.0

    def lambdas(self) -> Tensor:
        """[L] λ of each layer now."""
        return self.given.lambda_at(self.phase)

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """One prox with λ at the step's progress; the groups that a learner took out go at its end."""
        groups, self.phase = self.groups, now.phase
        lambda_, shares = self.given.lambda_at(now.phase), self.given.shares_at(now.phase)
        if shares is None:
            self.prox(thresholds(groups, lambda_, now.lr))
            return
        norms = groups.norms()
        chosen = smallest(groups, norms, shares)
        self.prox(selective_thresholds(groups, norms, lambda_, now.lr, chosen, self.given.rest_of_layers()))
        if now.phase >= 1:  # as the learner ends: what a bounded λ has not brought to zero by now goes
            gone = chosen & ~groups.strongest(norms)  # one group stays where the signal must pass
            groups.scale_((~gone).to(groups.size.dtype))

    def schedule(self) -> LambdaSchedule:
        """The one that was given."""
        return self.given

    def state_dict(self) -> dict[str, float]:
        """How far the phase has come."""
        return {"phase": self.phase}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore :meth:`state_dict`."""
        self.phase = state.get("phase", self.phase)
