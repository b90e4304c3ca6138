"""Estimators of dJ/dρ, ρ = log λ, one file each, and what a run with them costs beyond its outer passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ms_automl.meta.hypergradients.forward import Forward
from ms_automl.meta.hypergradients.forward_exact import ForwardExact
from ms_automl.meta.hypergradients.implicit_cg import ImplicitCG
from ms_automl.meta.hypergradients.implicit_neumann import ImplicitNeumann
from ms_automl.meta.hypergradients.protocol import Hypergradient
from ms_automl.meta.hypergradients.shrinkage import Shrinkage, Ties
from ms_automl.meta.hypergradients.unrolled import Unrolled
from ms_automl.meta.hypergradients.unrolled_first_order import UnrolledFirstOrder
from ms_automl.meta.settings import (
    ForwardExactSettings,
    ForwardSettings,
    GradientSettings,
    ImplicitCGSettings,
    ImplicitNeumannSettings,
    OneStepSettings,
    UnrolledFirstOrderSettings,
    UnrolledSettings,
)
from ms_automl.sparsity import Groups


@dataclass(frozen=True)
class Estimator:
    """A way of estimating dJ/dρ.

    Attributes:
        settings: its class of settings.
        build: makes one of its settings, the groups, the λ that each layer uses, and the training step
            (:class:`~ms_automl.meta.dynamics.Dynamics`), where it needs that.
        products: Hessian-vector products of a run of so many sparsifying steps with so many free λ, each on one
            training batch.
    """

    settings: type[GradientSettings]
    build: Callable[[Any, Groups, Ties, Any], Hypergradient]
    products: Callable[[Any, int, int], int] = lambda settings, steps, lambdas: 0


def updates(settings: GradientSettings, steps: int) -> range:
    """The sparsifying steps at which λ is updated, counted from 0."""
    return range(0, steps, settings.every)


ESTIMATORS: dict[str, Estimator] = {
    "one_step": Estimator(OneStepSettings, lambda settings, groups, ties, dynamics: Forward(groups, ties, 0.0)),
    "forward": Estimator(
        ForwardSettings, lambda settings, groups, ties, dynamics: Forward(groups, ties, settings.decay)
    ),
    "forward_exact": Estimator(
        ForwardExactSettings,
        lambda settings, groups, ties, dynamics: ForwardExact(groups, ties, dynamics),
        lambda settings, steps, lambdas: (steps - 1) * lambdas,
    ),
    "unrolled_first_order": Estimator(
        UnrolledFirstOrderSettings,
        lambda settings, groups, ties, dynamics: UnrolledFirstOrder(
            groups, ties, settings.unroll, dynamics.weight_decay_of(groups.weights[0])
        ),
    ),
    "unrolled": Estimator(
        UnrolledSettings,
        lambda settings, groups, ties, dynamics: Unrolled(groups, ties, dynamics, settings.unroll),
        lambda settings, steps, lambdas: sum(min(settings.unroll - 1, step) for step in updates(settings, steps)),
    ),
    "implicit_cg": Estimator(
        ImplicitCGSettings,
        lambda settings, groups, ties, dynamics: ImplicitCG(groups, ties, dynamics, settings.unroll),
        lambda settings, steps, lambdas: len(updates(settings, steps)) * settings.unroll,
    ),
    "implicit_neumann": Estimator(
        ImplicitNeumannSettings,
        lambda settings, groups, ties, dynamics: ImplicitNeumann(groups, ties, dynamics, settings.unroll),
        lambda settings, steps, lambdas: len(updates(settings, steps)) * (settings.unroll - 1),
    ),
}

__all__ = ["ESTIMATORS", "Estimator", "Hypergradient", "Shrinkage", "Ties", "updates"]
