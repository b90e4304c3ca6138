"""The ways of learning λ while θ trains, by name: the gradient with each estimator, and the rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from ms_automl.errors import ConfigError, unknown_name
from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.gradient import GradientLearner
from ms_automl.meta.hypergradients import ESTIMATORS, Estimator, Ties, updates
from ms_automl.meta.level import AskedLevel, Level, PricedLevel
from ms_automl.meta.objective import Objective
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.reference import Reference
from ms_automl.meta.removal import RemovalLearner
from ms_automl.meta.schedule import LambdaSchedule
from ms_automl.meta.settings import GradientSettings, LearnerSettings, RemovalSettings, WaterfillSettings
from ms_automl.meta.step import Evaluation, TrainingStep
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.sparsity import Groups

Kind = Literal["tradeoff", "target"]


class Learner(Protocol):
    """A rule for λ, called after each optimiser step of the sparsifying phase; it applies the prox itself."""

    def lambdas(self) -> Tensor:
        """[L] λ of each layer now."""
        ...

    def step(self, now: TrainingStep) -> None:
        """Prox, and λ moves where due."""
        ...

    def observe(self, evaluation: Evaluation) -> list[str]:
        """Hear of a report of the sparsifying phase; what it makes the learner do and a user should know."""
        ...

    def warnings(self) -> list[str]:
        """What is wrong with λ once the phase is over, a line each."""
        ...

    def schedule(self) -> LambdaSchedule:
        """The course of λ so far, as knots that ``fixed_lambda`` accepts."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        ...


@dataclass(frozen=True)
class LearnerInputs:
    """What a learner is built from, beside its settings.

    Attributes:
        groups: the groups that λ shrinks.
        ties: which λ each layer uses.
        dynamics: the training step as a function.
        objective: what λ is learned for.
        reference: the dense reference.
        bounds: (low, high) of λ.
    """

    groups: Groups
    ties: Ties
    dynamics: Dynamics
    objective: Objective
    reference: Reference
    bounds: tuple[float, float]

    @property
    def start(self) -> float:
        """λ at the first step of the learners that move it: the geometric middle of the bounds."""
        return math.sqrt(self.bounds[0] * self.bounds[1])


@dataclass(frozen=True)
class LearnerEntry:
    """A row of :data:`LEARNERS`.

    Attributes:
        settings: its class of settings.
        objectives: the kinds of objective it learns for.
        build: makes one of its settings and inputs.
        outer_updates: outer batches that a run of so many sparsifying steps takes a gradient on.
        products: Hessian-vector products of such a run with so many free λ, each on one training batch.
    """

    settings: type[LearnerSettings]
    objectives: tuple[Kind, ...]
    build: Callable[[Any, LearnerInputs], Learner]
    outer_updates: Callable[[Any, int], int] = lambda settings, steps: 0
    products: Callable[[Any, int, int], int] = lambda settings, steps, lambdas: 0


def _by_gradient(estimator: Estimator) -> LearnerEntry:
    def build(settings: GradientSettings, given: LearnerInputs) -> Learner:
        return GradientLearner(
            given.groups,
            given.ties,
            estimator.build(settings, given.groups, given.ties, given.dynamics),
            Pricing(given.groups, given.objective.price, settings.corrected),
            bounds=given.bounds,
            start=given.start,
            reference=given.reference,
            optimizer=settings.lambda_optimizer,
            lr=settings.lambda_lr,
            every=settings.every,
            warmup=settings.warmup,
        )

    return LearnerEntry(
        estimator.settings,
        ("tradeoff",),
        build,
        lambda settings, steps: len(updates(settings, steps)),
        estimator.products,
    )


def _waterfill(settings: WaterfillSettings, given: LearnerInputs) -> Learner:
    level: Level = AskedLevel(given.objective.target)
    if given.objective.kind == "tradeoff":
        price = given.objective.price
        level = PricedLevel(price, given.reference, guess=settings.guess, doubt=settings.doubt)
    (low, high), place = given.bounds, settings.rest
    rest = low ** (1 - place) * high**place if place > 0 else 0.0
    return WaterfillLearner(given.groups, level, bounds=given.bounds, every=10, rest=rest, decay=settings.decay)


def _removal(settings: RemovalSettings, given: LearnerInputs) -> Learner:
    return RemovalLearner(
        given.groups,
        given.ties,
        price=given.objective.price,
        bounds=given.bounds,
        start=given.start,
        lr=settings.lambda_lr,
        every=settings.every,
        warmup=settings.warmup,
        reference=given.reference,
    )


LEARNERS: dict[str, LearnerEntry] = {name: _by_gradient(one) for name, one in ESTIMATORS.items()} | {
    "waterfill": LearnerEntry(WaterfillSettings, ("tradeoff", "target"), _waterfill),
    "removal": LearnerEntry(RemovalSettings, ("tradeoff",), _removal),
}


def choose(name: str, kind: Kind) -> LearnerEntry:
    """The learner of a name, checked against the kind of objective.

    Raises:
        ConfigError: where there is none of that name, or it learns for the other kind of objective.
    """
    if name not in LEARNERS:
        raise unknown_name("learner", name, sorted(LEARNERS))
    entry = LEARNERS[name]
    if kind not in entry.objectives:
        fitting = ", ".join(sorted(other for other, row in LEARNERS.items() if kind in row.objectives))
        raise ConfigError(
            f"learner '{name}' learns for the {entry.objectives[0]} objective, but this one is {kind}: "
            f"take {fitting}"
        )
    return entry
