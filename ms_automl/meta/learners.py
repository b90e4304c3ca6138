"""The ways of learning λ while θ trains, by name: the gradient with each estimator, and the rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ms_automl.errors import ConfigError, unknown_name
from ms_automl.meta.bounds import GivenBounds
from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.gradient import GradientLearner
from ms_automl.meta.hypergradients import ESTIMATORS, Estimator, Ties, updates
from ms_automl.meta.level import AskedLevel, Level, PricedLevel
from ms_automl.meta.objective import Kind, Objective
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.reference import Reference
from ms_automl.meta.removal import RemovalLearner
from ms_automl.meta.rule import Learner
from ms_automl.meta.settings import GradientSettings, LearnerSettings, RemovalSettings, WaterfillSettings
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.models.penalised import told
from ms_automl.sparsity import Groups, Importance, MagnitudeImportance, RandomImportance, TaylorImportance


@dataclass(frozen=True)
class LearnerInputs:
    """What a learner is built from, beside its settings.

    Attributes:
        groups: the groups that λ shrinks.
        ties: which λ each layer uses.
        dynamics: the training step as a function; None where it is not to be had.
        objective: what λ is learned for, in terms of the penalised weights.
        reference: the dense reference.
        bounds: (low, high) of λ.
        seed: of what a learner draws.
    """

    groups: Groups
    ties: Ties
    dynamics: Dynamics | None
    objective: Objective
    reference: Reference
    bounds: tuple[float, float]
    seed: int = 0

    @property
    def start(self) -> float:
        """λ at the first step of the learners that move it: the geometric middle of the bounds."""
        return math.sqrt(self.bounds[0] * self.bounds[1])


def of_penalised(objective: Objective, groups: Groups) -> Objective:
    """An objective in terms of the penalised weights alone, as those who learn λ need it.

    With s the share of the parameters that is penalised and d the density among them, all of the trunk has density
    1 - s + s d: its price is a price s times as high of d, and a target of it one 1/s times as high.

    Args:
        objective: of a trunk, or of a whole model.
        groups: of the same.

    Raises:
        ConfigError: for a target that cannot be reached.
    """
    share = groups.share if objective.cost == "weights" else 1.0
    if objective.kind == "tradeoff":
        return replace(objective, price=objective.price * share, cost="penalised_weights")
    most = share * groups.most
    if objective.target > most:
        why = f"λ can act on {100 * share:.3g} % of the weights, and " if share < 1 else ""
        left_out = f"; left out: {told(groups.left_out)}" if groups.left_out else ""
        raise ConfigError(
            f"`target <= {math.floor(1000 * most) / 1000:g}` must hold, but got target={objective.target:g}: "
            f"{why}a group of each layer stays{left_out}"
        )
    return replace(objective, target=objective.target / share, cost="penalised_weights")


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
    bounds = GivenBounds.between(*given.bounds, settings.rest)
    importance: Importance = TaylorImportance(given.groups, settings.decay)
    if settings.order == "magnitude":
        importance = MagnitudeImportance(given.groups)
    if settings.order == "random":
        importance = RandomImportance(given.groups, given.seed)
    return WaterfillLearner(
        given.groups,
        level,
        bounds=bounds,
        importance=importance,
        by_validation=settings.order == "validation",
        selective=settings.shrinks == "chosen",
    )


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
    "waterfill": LearnerEntry(
        WaterfillSettings,
        ("tradeoff", "target"),
        _waterfill,
        lambda settings, steps: steps if settings.order == "validation" else 0,
    ),
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
