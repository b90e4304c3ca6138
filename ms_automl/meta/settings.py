"""How λ is learned: a small set of settings for each learner, what it takes and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from ms_automl.errors import STRICT, require

Order = Literal["taylor", "validation", "magnitude", "random"]
Shrinks = Literal["chosen", "layer"]


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """Settings of a learner; the defaults follow from benchmarks/HISTORY.md.

    Attributes:
        learner: a key of :data:`~ms_automl.meta.learners.LEARNERS`.
    """

    learner: str
    __pydantic_config__: ClassVar = STRICT


@dataclass(frozen=True, kw_only=True)
class WaterfillSettings(LearnerSettings):
    """Of :class:`~ms_automl.meta.waterfill.WaterfillLearner`.

    Attributes:
        rest: where λ of the groups that stay lies between the bounds, on a log scale, low^(1 - rest) · high^rest;
            0 leaves them alone.
        guess: a_0 of :class:`~ms_automl.meta.level.PricedLevel`, under a price.
        doubt: κ of the same.
        decay: of the average over removal costs, per step.
        order: what groups are ranked by: ``taylor``, their removal costs by the training gradient; ``validation``,
            the same by a gradient on a validation batch at every step; ``magnitude``, LAMP scores; ``random``, an
            order drawn once. All but the first are there to be compared with.
        shrinks: whether λ_l acts on the ``chosen`` groups of its layer, or on the whole ``layer`` as the learners
            by gradient have it; there to be compared with as well.
    """

    learner: Literal["waterfill"] = "waterfill"
    rest: float = 0.33
    guess: float = 0.05
    doubt: float = 1.0
    decay: float = 0.99
    order: Order = "taylor"
    shrinks: Shrinks = "chosen"

    def __post_init__(self) -> None:
        conditions = {
            "order is taylor, validation, magnitude or random": self.order in get_args(Order),
            "shrinks is chosen or layer": self.shrinks in get_args(Shrinks),
            "0 <= rest <= 1": 0 <= self.rest <= 1,
            "guess > 0": self.guess > 0,
            "doubt > 0": self.doubt > 0,
            "0 <= decay < 1": 0 <= self.decay < 1,  # 1 would be an average that never begins
        }
        require(conditions, self)


@dataclass(frozen=True, kw_only=True)
class IterativeSettings(LearnerSettings):
    """Of the learners that move λ from the middle of its bounds.

    Attributes:
        lambda_lr: step of log λ; of `removal` the largest one.
        every: steps between two updates of λ.
        warmup: share of the sparsifying phase over which λ rises from 0.
    """

    lambda_lr: float = 0.02
    every: int = 2
    warmup: float = 0.3

    def __post_init__(self) -> None:
        conditions = {
            "lambda_lr > 0": self.lambda_lr > 0,
            "every >= 1": self.every >= 1,
            "0 <= warmup <= 1": 0 <= self.warmup <= 1,
        }
        require(conditions, self)


@dataclass(frozen=True, kw_only=True)
class RemovalSettings(IterativeSettings):
    """Of :class:`~ms_automl.meta.removal.RemovalLearner`."""

    learner: Literal["removal"] = "removal"


@dataclass(frozen=True, kw_only=True)
class GradientSettings(IterativeSettings):
    """Of :class:`~ms_automl.meta.gradient.GradientLearner`, whichever estimator its gradient comes from.

    Attributes:
        outer: the split whose batches λ's gradient is taken on; ``training`` is an ablation.
        lambda_optimizer: of log λ, a key of :data:`~ms_automl.meta.gradient.LAMBDA_OPTIMIZERS`.
        corrected: whether the outer gradient is corrected for what the final model feels
            (:class:`~ms_automl.meta.pricing.Pricing`).
    """

    outer: Literal["validation", "training"] = "validation"
    lambda_optimizer: Literal["adam", "normalised"] = "adam"
    corrected: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require({"outer is validation or training": self.outer in ("validation", "training")}, self)


@dataclass(frozen=True, kw_only=True)
class OneStepSettings(GradientSettings):
    """Of the estimator `one_step`: the last prox alone."""

    learner: Literal["one_step"] = "one_step"


@dataclass(frozen=True, kw_only=True)
class ForwardSettings(GradientSettings):
    """Of :class:`~ms_automl.meta.hypergradients.forward.Forward`.

    Attributes:
        decay: γ, per step.
    """

    learner: Literal["forward"] = "forward"
    decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        require({"0 <= decay <= 1": 0 <= self.decay <= 1}, self)


@dataclass(frozen=True, kw_only=True)
class ForwardExactSettings(GradientSettings):
    """Of :class:`~ms_automl.meta.hypergradients.forward_exact.ForwardExact`."""

    learner: Literal["forward_exact"] = "forward_exact"


@dataclass(frozen=True, kw_only=True)
class UnrollingSettings(GradientSettings):
    """Of the estimators that look K steps back, or take K terms or iterations.

    Attributes:
        unroll: K.
    """

    unroll: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require({"unroll >= 1": self.unroll >= 1}, self)


@dataclass(frozen=True, kw_only=True)
class UnrolledFirstOrderSettings(UnrollingSettings):
    """Of :class:`~ms_automl.meta.hypergradients.unrolled_first_order.UnrolledFirstOrder`, K steps."""

    learner: Literal["unrolled_first_order"] = "unrolled_first_order"


@dataclass(frozen=True, kw_only=True)
class UnrolledSettings(UnrollingSettings):
    """Of :class:`~ms_automl.meta.hypergradients.unrolled.Unrolled`, K steps."""

    learner: Literal["unrolled"] = "unrolled"


@dataclass(frozen=True, kw_only=True)
class ImplicitCGSettings(UnrollingSettings):
    """Of :class:`~ms_automl.meta.hypergradients.implicit_cg.ImplicitCG`, K iterations."""

    learner: Literal["implicit_cg"] = "implicit_cg"


@dataclass(frozen=True, kw_only=True)
class ImplicitNeumannSettings(UnrollingSettings):
    """Of :class:`~ms_automl.meta.hypergradients.implicit_neumann.ImplicitNeumann`, K terms."""

    learner: Literal["implicit_neumann"] = "implicit_neumann"


AnySettings = (
    OneStepSettings
    | ForwardSettings
    | ForwardExactSettings
    | UnrolledFirstOrderSettings
    | UnrolledSettings
    | ImplicitCGSettings
    | ImplicitNeumannSettings
    | WaterfillSettings
    | RemovalSettings
)
SETTINGS: dict[str, type[LearnerSettings]] = {settings.learner: settings for settings in get_args(AnySettings)}
"""By learner, a key of :data:`~ms_automl.meta.learners.LEARNERS`."""
