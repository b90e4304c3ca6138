"""Group-sparse multi-task training with a given λ ('Less is More', arXiv 2308.12114)."""

from __future__ import annotations

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule
from ms_automl.models import MultiTaskNet
from ms_automl.models.penalised import told
from ms_automl.sparsity import selective_thresholds, smallest, thresholds
from ms_automl.training import Metrics, State, TrainingLoop, TrainingSettings


class FixedLambda:
    """Σ_t w_t L_t + Σ_l λ_l Σ_g sqrt(n_g) ||θ_g|| by a proximal step after each optimiser step.

    Args:
        data: what to train on.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order.
        schedule: λ by layer: a constant, or the knots that a meta-learner left behind.
        freeze: whether the zeros stay in the debiasing phase; without, λ regularises and nothing more.
    """

    def __init__(
        self,
        data: MultiTaskData,
        network: MultiTaskNet,
        settings: TrainingSettings,
        seed: int,
        *,
        schedule: LambdaSchedule,
        freeze: bool = True,
    ) -> None:
        self.loop = TrainingLoop(data, network, settings, seed)
        self.cost = self.loop.cost
        self.schedule = schedule
        self.freeze = freeze
        if schedule.layers != self.loop.groups.names:
            raise ConfigError(
                f"λ must be given for the layers {', '.join(self.loop.groups.names)}, in this order, "
                f"but the schedule has {', '.join(schedule.layers)}{self._why(schedule)}"
            )
        self.loop.lambdas = lambda: schedule.lambda_at(self.loop.phase)

    def _why(self, schedule: LambdaSchedule) -> str:
        left_out = self.loop.groups.left_out
        reasons = {name: left_out[name] for name in schedule.layers if name in left_out}
        return f": {told(reasons)}" if reasons else ""

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        return self.loop.interval(self._sparsify, freeze=self.freeze)

    def _sparsify(self) -> None:
        loop = self.loop
        lambda_, shares = self.schedule.lambda_at(loop.phase), self.schedule.shares_at(loop.phase)
        if shares is None:
            loop.prox(thresholds(loop.groups, lambda_, loop.lr))
            return
        norms = loop.groups.norms()
        chosen = smallest(loop.groups, norms, shares)
        loop.prox(selective_thresholds(loop.groups, norms, lambda_, loop.lr, chosen, self.schedule.rest))
        if loop.phase >= 1:  # as the learner ends: what a bounded λ has not brought to zero by now goes
            gone = chosen & ~loop.groups.strongest(norms)  # one group stays where the signal must pass
            loop.groups.scale_((~gone).to(loop.groups.size.dtype))

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {"loop": self.loop.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
