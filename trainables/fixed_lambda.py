"""Group-sparse multi-task training with a given λ ('Less is More', arXiv 2308.12114)."""

from __future__ import annotations

from ms_automl.data import MultiTaskData
from ms_automl.meta import LambdaSchedule
from ms_automl.meta.scheduled import ScheduledLambda
from ms_automl.models import MultiTaskNet
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
        sparsifier = self.loop.sparsifier
        sparsifier.rule = ScheduledLambda(sparsifier.groups, schedule, sparsifier.prox, freezes=freeze)

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        return self.loop.interval()

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {"loop": self.loop.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
