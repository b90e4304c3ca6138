"""Estimators of dJ/dρ, ρ = log λ, one file each, and what a run with them costs beyond its outer passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.hypergradients.forward import Forward
from ms_automl.meta.hypergradients.forward_exact import ForwardExact
from ms_automl.meta.hypergradients.implicit_cg import ImplicitCG
from ms_automl.meta.hypergradients.implicit_neumann import ImplicitNeumann
from ms_automl.meta.hypergradients.protocol import Hypergradient
from ms_automl.meta.hypergradients.shrinkage import Shrinkage, Ties
from ms_automl.meta.hypergradients.unrolled import Unrolled
from ms_automl.meta.hypergradients.unrolled_first_order import UnrolledFirstOrder
from ms_automl.sparsity import Groups


@dataclass(frozen=True)
class Ingredients:
    """What an estimator may be built from.

    Attributes:
        groups: the groups.
        ties: which λ each layer uses.
        dynamics: the training step as a function.
        decay: γ of `forward`.
        unroll: K: steps of the unrolled estimators, terms or iterations of the implicit ones.
    """

    groups: Groups
    ties: Ties
    dynamics: Dynamics
    decay: float
    unroll: int

    @property
    def weight_decay(self) -> float:
        """δ of the penalised weights, which share one."""
        decays = dict(zip(map(id, self.dynamics.parameters), self.dynamics.weight_decay, strict=True))
        return decays[id(self.groups.weights[0])]


@dataclass(frozen=True)
class Plan:
    """How long a run is, as far as an estimator's cost depends on it.

    Attributes:
        steps: of the sparsifying phase.
        every: steps between two updates of λ, the first one at the first step.
        unroll: K.
        lambdas: R, free λ.
    """

    steps: int
    every: int
    unroll: int
    lambdas: int

    @property
    def updates(self) -> range:
        """The steps at which λ is updated, counted from 0."""
        return range(0, self.steps, self.every)


@dataclass(frozen=True)
class Estimator:
    """A way of estimating dJ/dρ.

    Attributes:
        build: makes one.
        products: Hessian-vector products of a whole run, each on one training batch.
    """

    build: Callable[[Ingredients], Hypergradient]
    products: Callable[[Plan], int] = lambda plan: 0


ESTIMATORS: dict[str, Estimator] = {
    "one_step": Estimator(lambda given: Forward(given.groups, given.ties, 0.0)),
    "forward": Estimator(lambda given: Forward(given.groups, given.ties, given.decay)),
    "forward_exact": Estimator(
        lambda given: ForwardExact(given.groups, given.ties, given.dynamics),
        lambda plan: (plan.steps - 1) * plan.lambdas,
    ),
    "unrolled_first_order": Estimator(
        lambda given: UnrolledFirstOrder(given.groups, given.ties, given.unroll, given.weight_decay)
    ),
    "unrolled": Estimator(
        lambda given: Unrolled(given.groups, given.ties, given.dynamics, given.unroll),
        lambda plan: sum(min(plan.unroll - 1, index) for index in plan.updates),
    ),
    "implicit_cg": Estimator(
        lambda given: ImplicitCG(given.groups, given.ties, given.dynamics, given.unroll),
        lambda plan: len(plan.updates) * plan.unroll,
    ),
    "implicit_neumann": Estimator(
        lambda given: ImplicitNeumann(given.groups, given.ties, given.dynamics, given.unroll),
        lambda plan: len(plan.updates) * (plan.unroll - 1),
    ),
}

__all__ = ["ESTIMATORS", "Estimator", "Hypergradient", "Ingredients", "Plan", "Shrinkage", "Ties"]
