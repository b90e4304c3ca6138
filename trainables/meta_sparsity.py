"""Group-sparse multi-task training with λ learned meanwhile ('Meta-Sparsity', arXiv 2501.12115)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from ms_automl.budget import Cost
from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule, Objective
from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.hypergradients import Ingredients, Plan, Ties
from ms_automl.meta.learners import LearnerSettings, choose
from ms_automl.meta.outer import episode, outer_gradient
from ms_automl.meta.step import TrainingStep
from ms_automl.models import MultiTaskNet
from ms_automl.training import BatchOrder, Metrics, State, TrainingLoop, TrainingSettings


class MetaSparsity:
    """As :class:`~trainables.fixed_lambda.FixedLambda`, with λ_l learned for the objective.

    Args:
        data: train feeds θ, val feeds λ.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order, the outer batches and the episodes.
        objective: what λ is learned for.
        references: validation losses L_t^ref of the dense reference, by task.
        ties: [L] index of the λ that each layer uses; None gives each layer its own.
        bounds: (low, high) of λ; it starts at their geometric middle.
        learner: a key of :data:`~ms_automl.meta.learners.LEARNERS` that fits the objective; None takes `forward`
            for the trade-off and `waterfill` for a target.
        outer: the split whose batches λ's gradient is taken on; ``training`` is an ablation.
        decay: γ of the `forward` estimator, per step.
        unroll: K: steps of the unrolled estimators, terms or iterations of the implicit ones.
        lambda_optimizer: of log λ, a key of :data:`~ms_automl.meta.gradient.LAMBDA_OPTIMIZERS`.
        lambda_lr: its step.
        every: steps between two updates of λ (gradient learners).
        warmup: share of the sparsifying phase over which λ rises from 0 (gradient learners).
        corrected: whether the outer gradient is corrected for what the final model feels
            (:class:`~ms_automl.meta.pricing.Pricing`).
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
        learner: str | None = None,
        outer: Literal["validation", "training"] = "validation",
        decay: float = 0.99,
        unroll: int = 5,
        lambda_optimizer: str = "adam",
        lambda_lr: float = 0.02,
        every: int = 2,
        warmup: float = 0.3,
        corrected: bool = True,
    ) -> None:
        if unroll < 1:
            raise ConfigError(f"`unroll >= 1` must hold, but got unroll={unroll}")
        if outer not in ("validation", "training"):
            raise ConfigError(f"outer must be validation or training, but got '{outer}'")
        self.loop = loop = TrainingLoop(data, network, settings, seed)
        self.cost = loop.cost
        self.references = references
        self.outer_split = {"validation": data.val, "training": data.train}[outer]
        self.outer_order = BatchOrder(len(self.outer_split), settings.batch_size, seed + 1)
        learning = LearnerSettings(objective, bounds, lambda_lr, lambda_optimizer, every, warmup, corrected)
        own = Ties(loop.groups, ties if ties is not None else range(len(loop.groups.names)))
        dynamics = Dynamics(network, loop.optimizer, loop.loss, loop.cost)
        given = Ingredients(loop.groups, own, dynamics, decay, unroll)
        self.learner = choose(learner, objective.kind).build(learning, given)
        loop.lambdas = self.learner.lambdas

    @staticmethod
    def planned_cost(
        data: MultiTaskData,
        settings: TrainingSettings,
        objective: Objective,
        *,
        lambdas: int,
        learner: str | None = None,
        every: int = 2,
        unroll: int = 5,
    ) -> Cost:
        """What a whole run costs; arguments as of the constructor, ``lambdas`` the number of free λ."""
        entry, plan = choose(learner, objective.kind), Plan(settings.prox_steps, every, unroll, lambdas)
        return settings.cost(data, entry.outer_updates(plan), entry.products(plan))

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
        self.learner.step(
            TrainingStep(
                loop.steps_done, loop.phase, loop.lr, loop.batch, loop.groups.gradients, self._outer_gradient
            )
        )

    def _outer_gradient(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        loop = self.loop
        batch = self.outer_split.batch(self.outer_order.next())
        chosen = episode(len(loop.data.tasks), self.outer_order.generator)
        tasks = [loop.data.tasks[index] for index in chosen]
        self.cost.outer += len(batch.images)
        return outer_gradient(loop.network, parameters, batch, tasks, self.references)

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
