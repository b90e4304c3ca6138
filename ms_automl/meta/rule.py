"""What zeroes groups while a network trains: the base of every learner of λ, of a given λ and of pruning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from ms_automl.meta.schedule import LambdaSchedule
from ms_automl.meta.step import Evaluation, TrainingStep


class Rule:
    """Acts after each optimiser step of the sparsifying phase; this one zeroes nothing.

    Attributes:
        freezes: whether the zeros that it leaves at the phase's end stay; without, every weight may come back.
        measures_every: it is told how far the optimiser moves the weights once in so many steps; 0 is never.
    """

    freezes: bool = True
    measures_every: int = 0

    def step(self, now: TrainingStep) -> None:
        """The step's prox, or what stands in its place; λ moves where due."""

    def lambdas(self) -> Tensor | None:
        """[L] λ of each layer now; None of a rule without λ."""
        return None

    def observe(self, evaluation: Evaluation) -> list[str]:
        """Hear of a report of the sparsifying phase; what it makes the rule do and a user should know."""
        return []

    def warnings(self) -> list[str]:
        """What is wrong once the phase is over, a line each."""
        return []

    def schedule(self) -> LambdaSchedule | None:
        """The course of λ so far, as knots that ``fixed_lambda`` accepts; None of a rule without λ."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""


class Untouched(Rule):
    """Leaves every group alone, in the phase and after it."""

    freezes = False


class Learner(Rule, ABC):
    """A rule whose λ moves while it acts; it applies the prox itself."""

    @abstractmethod
    def lambdas(self) -> Tensor:
        """[L] λ of each layer now."""

    @abstractmethod
    def schedule(self) -> LambdaSchedule:
        """The course of λ so far, as knots that ``fixed_lambda`` accepts."""
