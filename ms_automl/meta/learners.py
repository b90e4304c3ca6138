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
from ms_automl.meta.objective import Objective
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.schedule import LambdaSchedule
from ms_automl.meta.step import TrainingStep
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
class LearnerSettings:
    """How λ is learned, in the terms of :class:`~trainables.MetaSparsity`; each learner uses what concerns it."""

    objective: Objective
    bounds: tuple[float, float]
    lambda_lr: float
    lambda_optimizer: str
    every: int
    warmup: float
    corrected: bool


@dataclass(frozen=True)
class LearnerEntry:
    """A row of :data:`LEARNERS`.

    Attributes:
        objective: the kind of objective it learns for.
        build: makes one.
        outer_updates: outer batches that a whole run takes a gradient on.
        products: Hessian-vector products of a whole run, each on one training batch.
    """

    objective: Kind
    build: Callable[[LearnerSettings, Ingredients], Learner]
    outer_updates: Callable[[Plan], int] = lambda plan: 0
    products: Callable[[Plan], int] = lambda plan: 0


def _by_gradient(name: str) -> LearnerEntry:
    def build(settings: LearnerSettings, given: Ingredients) -> Learner:
        return GradientLearner(
            given.groups,
            given.ties,
            ESTIMATORS[name].build(given),
            Pricing(given.groups, settings.objective.price, settings.corrected),
            bounds=settings.bounds,
            start=math.sqrt(settings.bounds[0] * settings.bounds[1]),
            optimizer=settings.lambda_optimizer,
            lr=settings.lambda_lr,
            every=settings.every,
            warmup=settings.warmup,
        )

    return LearnerEntry("tradeoff", build, lambda plan: len(plan.updates), ESTIMATORS[name].products)


def _waterfill(settings: LearnerSettings, given: Ingredients) -> Learner:
    return WaterfillLearner(given.groups, target=settings.objective.target, bounds=settings.bounds, every=10)


LEARNERS: dict[str, LearnerEntry] = {name: _by_gradient(name) for name in ESTIMATORS} | {
    "waterfill": LearnerEntry("target", _waterfill),
}

DEFAULT_LEARNERS: dict[Kind, str] = {"tradeoff": "forward", "target": "waterfill"}


def choose(name: str | None, kind: Kind) -> LearnerEntry:
    """The learner of a name, or the default for a kind of objective where the name is None.

    Raises:
        ConfigError: where there is none of that name, or it learns for the other kind of objective.
    """
    name = name or DEFAULT_LEARNERS[kind]
    if name not in LEARNERS:
        raise unknown_name("learner", name, sorted(LEARNERS))
    entry = LEARNERS[name]
    if entry.objective != kind:
        fitting = ", ".join(sorted(other for other, row in LEARNERS.items() if row.objective == kind))
        raise ConfigError(
            f"learner '{name}' learns for the {entry.objective} objective, but this one is {kind}: take {fitting}"
        )
    return entry
