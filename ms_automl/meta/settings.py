"""How λ is learned: one object that every learner takes what concerns it from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ms_automl.errors import ConfigError


@dataclass(frozen=True)
class LearnerSettings:
    """Settings of the meta-learner; the defaults follow from benchmarks/RESULTS.md.

    Attributes:
        learner: a key of :data:`~ms_automl.meta.learners.LEARNERS` that fits the objective.
        rest: where λ of the groups that `waterfill` keeps lies between the bounds, on a log scale,
            low^(1 - rest) · high^rest; 0 leaves them alone.
        guess: a_0 of :class:`~ms_automl.meta.level.PricedLevel` (`waterfill` under a price).
        doubt: κ of the same.
        outer: the split whose batches λ's gradient is taken on; ``training`` is an ablation.
        decay: γ of the `forward` estimator, and of the average over `waterfill`'s removal costs, per step.
        unroll: K: steps of the unrolled estimators, terms or iterations of the implicit ones.
        lambda_optimizer: of log λ, a key of :data:`~ms_automl.meta.gradient.LAMBDA_OPTIMIZERS`.
        lambda_lr: its step; the largest step of `removal`.
        every: steps between two updates of λ (gradient learners, `removal`).
        warmup: share of the sparsifying phase over which λ rises from 0 (gradient learners, `removal`).
        corrected: whether the outer gradient is corrected for what the final model feels
            (:class:`~ms_automl.meta.pricing.Pricing`).
    """

    learner: str = "waterfill"
    rest: float = 0.33
    guess: float = 0.05
    doubt: float = 1.0
    outer: Literal["validation", "training"] = "validation"
    decay: float = 0.99
    unroll: int = 5
    lambda_optimizer: str = "adam"
    lambda_lr: float = 0.02
    every: int = 2
    warmup: float = 0.3
    corrected: bool = True

    def __post_init__(self) -> None:
        checks = {
            "0 <= rest <= 1": 0 <= self.rest <= 1,
            "guess > 0": self.guess > 0,
            "doubt > 0": self.doubt > 0,
            "outer is validation or training": self.outer in ("validation", "training"),
            "0 <= decay <= 1": 0 <= self.decay <= 1,
            "unroll >= 1": self.unroll >= 1,
            "lambda_lr > 0": self.lambda_lr > 0,
            "every >= 1": self.every >= 1,
            "0 <= warmup <= 1": 0 <= self.warmup <= 1,
        }
        for condition, holds in checks.items():
            if not holds:
                raise ConfigError(f"meta: `{condition}` must hold, but got {self}")
