"""Group-sparse multi-task training with λ learned meanwhile ('Meta-Sparsity', arXiv 2501.12115)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule, Objective
from ms_automl.meta.forward import ForwardLearner, outer_updates
from ms_automl.meta.outer import episode, outer_gradient
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.models import MultiTaskNet
from ms_automl.training import BatchOrder, Metrics, State, TrainingLoop, TrainingSettings


class MetaSparsity:
    """As :class:`~trainables.fixed_lambda.FixedLambda`, with λ_l learned for the objective.

    The ``tradeoff`` objective uses the `forward` estimator on validation batches, the ``target`` objective the
    `waterfill` rule on training gradients.

    Args:
        data: train feeds θ, val feeds λ.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order, the outer batches and the episodes.
        objective: what λ is learned for.
        references: validation losses L_t^ref of the dense reference, by task.
        ties: [L] index of the λ that each layer uses; None gives each layer its own.
        bounds: (low, high) of λ; it starts at their geometric middle.
        decay: γ of the `forward` estimator, per step.
        lambda_lr: Adam's step on log λ.
        every: steps between two updates of λ (`forward`).
        warmup: share of the sparsifying phase over which λ rises from 0 (`forward`).

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
        references: Mapping[str, float],
        bounds: tuple[float, float],
        ties: Sequence[int] | None = None,
        decay: float = 0.99,
        lambda_lr: float = 0.02,
        every: int = 2,
        warmup: float = 0.3,
    ) -> None:
        self.check(settings)
        self.loop = TrainingLoop(data, network, settings, seed)
        self.cost = self.loop.cost
        self.references = references
        self.outer_order = BatchOrder(len(data.val), settings.batch_size, seed + 1)
        self.learner: ForwardLearner | WaterfillLearner
        if objective.kind == "target":
            self.learner = WaterfillLearner(self.loop.groups, target=objective.target, bounds=bounds, every=10)
        else:
            self.learner = ForwardLearner(
                self.loop.groups,
                ties if ties is not None else range(len(self.loop.groups.names)),
                price=objective.price,
                bounds=bounds,
                start=math.sqrt(bounds[0] * bounds[1]),
                decay=decay,
                lr=lambda_lr,
                every=every,
                warmup=warmup,
            )
        self.loop.lambdas = self.learner.lambdas

    @staticmethod
    def check(settings: TrainingSettings) -> None:
        """Raise where λ cannot be learned: the rules are those of groups that do not overlap, with d = 1."""
        if settings.metric != "euclidean":
            raise ConfigError(
                f"λ is learned in the euclidean metric alone, but got training.metric={settings.metric}: "
                "set training.metric=euclidean, or leave the arms that learn λ out"
            )
        if settings.grouping == "coupled":
            raise ConfigError(
                "λ is learned for groups that do not overlap, but got training.grouping=coupled: "
                "set training.grouping=input_channel, or leave the arms that learn λ out"
            )

    @staticmethod
    def outer_updates(settings: TrainingSettings, objective: Objective, every: int = 2) -> int:
        """Validation batches that a whole run takes a gradient on."""
        return 0 if objective.kind == "target" else outer_updates(settings.prox_steps, every)

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    @property
    def schedule(self) -> LambdaSchedule:
        """The learned λ over the sparsifying phase."""
        return self.learner.schedule()

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        return self.loop.interval(self._sparsify)

    def _sparsify(self) -> None:
        loop = self.loop
        if isinstance(self.learner, WaterfillLearner):
            self.learner.step(loop.steps_done, loop.phase, loop.lr, loop.groups.gradients())
        else:
            self.learner.step(loop.steps_done, loop.phase, loop.lr, self._outer_gradient)

    def _outer_gradient(self) -> list[Tensor]:
        loop = self.loop
        batch = loop.data.val.batch(self.outer_order.next())
        chosen = episode(len(loop.data.tasks), self.outer_order.generator)
        tasks = [loop.data.tasks[index] for index in chosen]
        self.cost.outer += len(batch.images)
        return outer_gradient(loop.network, loop.groups.weights, batch, tasks, self.references)

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {
            "loop": self.loop.state_dict(),
            "outer_order": self.outer_order.state_dict(),
            "learner": self.learner.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
        self.outer_order.load_state_dict(state["outer_order"])
        self.learner.load_state_dict(state["learner"])
