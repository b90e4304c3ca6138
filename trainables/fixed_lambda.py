"""Group-sparse multi-task training with a given λ ('Less is More', arXiv 2308.12114)."""

from __future__ import annotations

from dataclasses import replace

from ms_automl.data import MultiTaskData
from ms_automl.meta import LambdaSchedule
from ms_automl.meta.scheduled import ScheduledLambda
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.training import Metrics, State, TrainingLoop, TrainingSettings
from ms_automl.training.settings import ProxMetric


class FixedLambda:
    """Σ_t w_t L_t + Σ_l λ_l Σ_g sqrt(n_g) ||θ_g|| by a proximal step after each optimiser step.

    Args:
        data: what to train on.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order.
        schedule: λ by layer: a constant, or the knots that a meta-learner left behind.
        freeze: whether the zeros stay in the debiasing phase; without, λ regularises and nothing more.
        prox_metric: in the place of the settings'.

    Raises:
        ConfigError: for a metric that the optimiser does not have.
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
        prox_metric: ProxMetric | None = None,
    ) -> None:
        settings = _in_metric(settings, prox_metric)
        self.loop = TrainingLoop(data, network, settings, seed)
        self.cost = self.loop.cost
        self.schedule = schedule
        sparsifier = self.loop.sparsifier
        sparsifier.rule = ScheduledLambda(sparsifier.groups, schedule, sparsifier.prox, freezes=freeze)

    @staticmethod
    def planned_cost(
        data: MultiTaskData, settings: TrainingSettings, *, prox_metric: ProxMetric | None = None
    ) -> Cost:
        """What a whole run costs; arguments as of the constructor.

        Raises:
            ConfigError: for a metric that the optimiser does not have.
        """
        return _in_metric(settings, prox_metric).cost(data)

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


def _in_metric(settings: TrainingSettings, prox_metric: ProxMetric | None) -> TrainingSettings:
    return settings if prox_metric is None else replace(settings, prox_metric=prox_metric)
