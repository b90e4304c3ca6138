"""The ways of learning λ while θ trains, by name: the gradient with each estimator, and the rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from ms_automl.errors import ConfigError, unknown_name
from ms_automl.meta.gradient import GradientLearner
from ms_automl.meta.hypergradients import ESTIMATORS, Ingredients, Plan
from ms_automl.meta.level import AskedLevel, Level, PricedLevel
from ms_automl.meta.objective import Objective
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.reference import Reference
from ms_automl.meta.removal import RemovalLearner
from ms_automl.meta.schedule import LambdaSchedule
from ms_automl.meta.settings import LearnerSettings
from ms_automl.meta.step import Evaluation, TrainingStep
from ms_automl.meta.waterfill import WaterfillLearner

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
class Wish:
    """What a learner is asked for.

    Attributes:
        objective: what λ is learned for.
        reference: the dense reference.
        bounds: (low, high) of λ.
        settings: of the learner.
    """

    objective: Objective
    reference: Reference
    bounds: tuple[float, float]
    settings: LearnerSettings

    @property
    def start(self) -> float:
        """λ at the first step of the learners that move it: the geometric middle of the bounds."""
        return math.sqrt(self.bounds[0] * self.bounds[1])

    @property
    def rest(self) -> float:
        """λ of the groups that `waterfill` keeps."""
        low, high = self.bounds
        place = self.settings.rest
        return low ** (1 - place) * high**place if place > 0 else 0.0


@dataclass(frozen=True)
class LearnerEntry:
    """A row of :data:`LEARNERS`.

    Attributes:
        objectives: the kinds of objective it learns for.
        build: makes one.
        outer_updates: outer batches that a whole run takes a gradient on.
        products: Hessian-vector products of a whole run, each on one training batch.
    """

    objectives: tuple[Kind, ...]
    build: Callable[[Wish, Ingredients], Learner]
    outer_updates: Callable[[Plan], int] = lambda plan: 0
    products: Callable[[Plan], int] = lambda plan: 0


def _by_gradient(name: str) -> LearnerEntry:
    def build(wish: Wish, given: Ingredients) -> Learner:
        settings = wish.settings
        return GradientLearner(
            given.groups,
            given.ties,
            ESTIMATORS[name].build(given),
            Pricing(given.groups, wish.objective.price, settings.corrected),
            bounds=wish.bounds,
            start=wish.start,
            reference=wish.reference,
            optimizer=settings.lambda_optimizer,
            lr=settings.lambda_lr,
            every=settings.every,
            warmup=settings.warmup,
        )

    return LearnerEntry(("tradeoff",), build, lambda plan: len(plan.updates), ESTIMATORS[name].products)


def _waterfill(wish: Wish, given: Ingredients) -> Learner:
    level: Level = AskedLevel(wish.objective.target)
    if wish.objective.kind == "tradeoff":
        settings = wish.settings
        level = PricedLevel(wish.objective.price, wish.reference, guess=settings.guess, doubt=settings.doubt)
    return WaterfillLearner(
        given.groups, level, bounds=wish.bounds, every=10, rest=wish.rest, decay=wish.settings.decay
    )


def _removal(wish: Wish, given: Ingredients) -> Learner:
    return RemovalLearner(
        given.groups,
        given.ties,
        price=wish.objective.price,
        bounds=wish.bounds,
        start=wish.start,
        lr=wish.settings.lambda_lr,
        every=wish.settings.every,
        warmup=wish.settings.warmup,
        reference=wish.reference,
    )


LEARNERS: dict[str, LearnerEntry] = {name: _by_gradient(name) for name in ESTIMATORS} | {
    "waterfill": LearnerEntry(("tradeoff", "target"), _waterfill),
    "removal": LearnerEntry(("tradeoff",), _removal),
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
