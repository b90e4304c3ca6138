"""How sparse to become: a level that is asked for, or the one at which a weight costs what its removal saves."""

from __future__ import annotations

import math
from typing import Any, Protocol

from ms_automl.meta.early import EarlyReference
from ms_automl.meta.reference import Losses
from ms_automl.meta.step import Evaluation


class DenseCourse(Protocol):
    """What a dense network's losses would be on the way."""

    def rise(self, step: int, losses: Losses) -> float:
        """The relative loss less 1, against a dense network at the same step."""
        ...

    def check(self) -> None:
        """Raise where it cannot tell."""
        ...


class Level(Protocol):
    """The share of weights to be zero when the ramp ends."""

    @property
    def share(self) -> float:
        """As far as is known now, 0 to 1."""
        ...

    def check(self) -> None:
        """Raise where it cannot be known; when the ramp begins."""
        ...

    def observe(self, evaluation: Evaluation) -> None:
        """Hear how an evaluation on the validation split came out."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What has been learned."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        ...


class AskedLevel:
    """The sparsity of a ``target`` objective."""

    def __init__(self, target: float) -> None:
        self.share = target

    def check(self) -> None:
        """It is given."""

    def observe(self, evaluation: Evaluation) -> None:
        """The level does not depend on it."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing is learned."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class PricedLevel:
    """The sparsity of a ``tradeoff`` objective, learned from the rise of the validation loss along the ramp.

    The relative loss of a network pruned to density d and trained to the end is modelled as

        (1/T) Σ_t L_t(d) / L_t^ref = 1 + a (1/d - 1),

    one number for how much a task set suffers from a smaller trunk, so that J is least where the marginal loss
    is the price: a/d² = price, d* = sqrt(a / price). Two thirds of the rise against the dense reference *at the
    same step* remain at the end, after debiasing (docs/method.md, 'What a weight costs'), so each report of the
    sparsifying phase is a measurement of a. With y two thirds of the rise, x = 1/d - 1 and p the phase's progress,

        â = (Σ_j p_j x_j y_j + κ a_0) / (Σ_j p_j x_j² + κ),

    least squares in which the noise of early training counts less, with a prior worth κ measurements at half
    density.

    Args:
        price: of density.
        reference: the dense reference, or what foretells one.
        guess: a_0.
        doubt: κ.
        least: of â. A sparse network that happens to be better than the dense one is no licence.
    """

    REMAINS = 2 / 3

    def __init__(
        self, price: float, reference: DenseCourse, *, guess: float = 0.05, doubt: float = 1.0, least: float = 1e-3
    ) -> None:
        self.price = price
        self.reference = reference
        self.guess = guess
        self.doubt = doubt
        self.least = least
        self.measured: list[tuple[float, float, float]] = []

    @property
    def cost(self) -> float:
        """â."""
        squares = sum(p * x * x for p, x, _ in self.measured)
        products = sum(p * x * y for p, x, y in self.measured)
        return max(self.least, (products + self.doubt * self.guess) / (squares + self.doubt))

    @property
    def share(self) -> float:
        """1 - d*, or 0 where even the first weight costs more than the price."""
        return max(0.0, 1 - math.sqrt(self.cost / self.price)) if self.price > 0 else 0.0

    def check(self) -> None:
        """Raise where there is no reference to measure by."""
        self.reference.check()

    def observe(self, evaluation: Evaluation) -> None:
        """One more measurement of a."""
        rise = self.reference.rise(evaluation.step, evaluation.losses)
        self.measured.append((evaluation.phase, 1 / evaluation.density - 1, self.REMAINS * rise))

    def state_dict(self) -> dict[str, Any]:
        """The measurements, and what a reference has foretold from."""
        course = {"course": self.reference.state_dict()} if isinstance(self.reference, EarlyReference) else {}
        return {"measured": [list(triple) for triple in self.measured]} | course

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.measured = [(p, x, y) for p, x, y in state["measured"]]
        if isinstance(self.reference, EarlyReference):
            self.reference.load_state_dict(state["course"])
