"""Group-sparse multi-task training with λ learned meanwhile ('Meta-Sparsity', arXiv 2501.12115)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule, LearnerSettings, Objective, Reference, WaterfillSettings, diagnostics
from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.hypergradients import ESTIMATORS, Ties
from ms_automl.meta.learners import LearnerInputs, choose, of_penalised
from ms_automl.meta.outer import episode, outer_gradient
from ms_automl.meta.settings import GradientSettings
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.training import BatchOrder, Metrics, State, TrainingLoop, TrainingSettings
from ms_automl.training.weighting import AGGREGATORS

DEFAULTS = WaterfillSettings()


class MetaSparsity:
    """As :class:`~trainables.fixed_lambda.FixedLambda`, with λ_l learned for the objective.

    Args:
        data: train feeds θ, val feeds λ.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order, the outer batches and the episodes.
        objective: what λ is learned for.
        reference: the dense reference of the same seed: final validation losses, and those on the way.
        bounds: (low, high) of λ.
        ties: [L] index of the λ that each layer uses; None gives each layer its own. The `waterfill` rule has a
            λ for each layer whatever they say.
        learning: how λ is learned.

    Raises:
        ConfigError: for a grouping or a metric that the learners' rules do not cover.
    """

    def __init__(
        self,
        data: MultiTaskData,
        network: MultiTaskNet,
        settings: TrainingSettings,
        seed: int,
        *,
        objective: Objective,
        reference: Reference,
        bounds: tuple[float, float],
        ties: Sequence[int] | None = None,
        learning: LearnerSettings = DEFAULTS,
    ) -> None:
        self.check(settings, learning)
        self.loop = loop = TrainingLoop(data, network, settings, seed)
        self.cost = loop.cost
        self.reference = reference
        self.warnings: list[str] = []
        ablation = isinstance(learning, GradientSettings) and learning.outer == "training"
        self.outer_split = data.train if ablation else data.val
        self.outer_order = BatchOrder(len(self.outer_split), settings.batch_size, seed + 1)
        sparsifier, groups = loop.sparsifier, loop.sparsifier.groups
        asked = of_penalised(objective, groups)
        own = Ties(groups, ties if ties is not None else range(len(groups.names)))
        dynamics = Dynamics(network, loop.optimizer, loop.loss, loop.cost)
        given = LearnerInputs(groups, own, dynamics, asked, reference, bounds, seed)
        sparsifier.rule = self.learner = choose(learning.learner, objective.kind).build(learning, given)
        sparsifier.batch, sparsifier.outer_gradient = lambda: loop.batch, self._outer_gradient

    @staticmethod
    def check(settings: TrainingSettings, learning: LearnerSettings) -> None:
        """Raise where λ cannot be learned: every learner takes the step of the euclidean metric.

        A slope is that of groups that do not overlap; `waterfill` has none and learns for coupled channels too.
        """
        if settings.prox_metric != "euclidean":
            raise ConfigError(
                f"λ is learned in the euclidean metric, but got training.prox_metric={settings.prox_metric}: "
                "set training.prox_metric=euclidean, or leave the arms that learn λ out"
            )
        if settings.grouping == "coupled" and learning.learner != "waterfill":
            raise ConfigError(
                f"learner '{learning.learner}' learns for groups that do not overlap, but got "
                "training.grouping=coupled: set meta.learner=waterfill or training.grouping=input_channel"
            )
        estimator = ESTIMATORS.get(learning.learner)
        replays = estimator is not None and estimator.products(learning, settings.prox_steps, 1) > 0
        if replays and settings.weighting in AGGREGATORS:
            raise ConfigError(
                f"learner '{learning.learner}' replays training steps along one loss, but got "
                f"training.weighting={settings.weighting}: set meta.learner=waterfill or training.weighting=equal"
            )

    @staticmethod
    def planned_cost(
        data: MultiTaskData,
        settings: TrainingSettings,
        objective: Objective,
        *,
        lambdas: int,
        learning: LearnerSettings = DEFAULTS,
    ) -> Cost:
        """What a whole run costs; arguments as of the constructor, ``lambdas`` the number of free λ."""
        MetaSparsity.check(settings, learning)  # before anything trains
        entry = choose(learning.learner, objective.kind)
        steps, probes = settings.prox_steps, settings.sparsifying_reports
        products = entry.products(learning, steps, lambdas)
        return settings.cost(data, entry.outer_updates(learning, steps), products, probes)

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    @property
    def schedule(self) -> LambdaSchedule:
        """The learned λ over the sparsifying phase."""
        return self.learner.schedule()

    def step(self) -> Metrics:
        """Train one report interval and evaluate; λ's learner hears how that came out."""
        metrics = self.loop.interval()
        density = 1 - metrics["sparsity/param"]  # of what λ acts on
        if self.loop.sparsifier.pattern is None:
            probe = self.loop.probe()
            losses = {task.name: probe[f"probe/{task.name}/loss"] for task in self.loop.data.tasks}
            self.warnings += self.loop.sparsifier.hear(losses, density)
            metrics |= probe
        if self.done:
            losses = {task.name: metrics[f"val/{task.name}/loss"] for task in self.loop.data.tasks}
            self.warnings += self.learner.warnings() + diagnostics.end(losses, density, self.reference)
        return metrics

    def _outer_gradient(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        loop = self.loop
        batch = self.outer_split.batch(self.outer_order.next())
        chosen = episode(len(loop.data.tasks), self.outer_order.generator)
        tasks = [loop.data.tasks[index] for index in chosen]
        self.cost.outer += len(batch.images)
        network = loop.network
        return loop.within_memory(
            batch, lambda parts: outer_gradient(network, parameters, batch, tasks, self.reference, parts)
        )

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {
            "loop": self.loop.state_dict(),
            "outer_order": self.outer_order.state_dict(),
            "warnings": list(self.warnings),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"], rule=state.get("learner"))
        self.outer_order.load_state_dict(state["outer_order"])
        self.warnings = list(state["warnings"])
