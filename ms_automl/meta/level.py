"""How sparse to become: a level that is asked for, or the one at which a weight costs what its removal saves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ms_automl.errors import ConfigError
from ms_automl.meta.objective import REFERENCE_FLOOR

Losses = Mapping[str, float]


@dataclass(frozen=True)
class Reference:
    """The dense reference of a seed, on the validation split.

    Attributes:
        losses: L_t^ref by task, after its last step.
        course: (step, L_t by task) at each of its reports: what a network without zeros reaches by then.
    """

    losses: Losses
    course: Sequence[tuple[int, Losses]] = ()

    def rise(self, step: int, losses: Losses) -> float:
        """y = (1/T) Σ_t L_t / L_t^dense(step) - 1, against the dense reference at the same step.

        How far training has come falls out of the ratio, so that what is left is the cost of the zeros.

        Raises:
            ConfigError: where the reference made no report at ``step``.
        """
        for when, dense in self.course:
            if when == step:
                ratios = [loss / max(dense[task], REFERENCE_FLOOR) for task, loss in losses.items()]
                return sum(ratios) / len(ratios) - 1
        steps = ", ".join(str(when) for when, _ in self.course) or "none"
        raise ConfigError(
            f"the dense reference has no validation losses at step {step} (it has {steps}): "
            "train it with the same steps and report_every"
        )


class Level(Protocol):
    """The share of weights to be zero when the ramp ends."""

    @property
    def share(self) -> float:
        """As far as is known now, 0 to 1."""
        ...

    def observe(self, step: int, losses: Losses, density: float) -> None:
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

    def observe(self, step: int, losses: Losses, density: float) -> None:
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
    is the price: a/d² = price, d* = sqrt(a / price). The rise y against the dense reference *at the same step* is
    already that of the end (docs/method.md, 'What a weight costs'), so each report of the sparsifying phase is
    a measurement of a; with x = 1/d - 1,

        â = (Σ_j x_j y_j + κ a_0) / (Σ_j x_j² + κ),

    least squares with a prior of κ measurements at half density.

    Args:
        price: of density.
        reference: the dense reference.
        guess: a_0.
        doubt: κ.
    """

    LEAST = 1e-3

    def __init__(self, price: float, reference: Reference, *, guess: float = 0.05, doubt: float = 1.0) -> None:
        self.price = price
        self.reference = reference
        self.guess = guess
        self.doubt = doubt
        self.measured: list[tuple[float, float]] = []

    @property
    def cost(self) -> float:
        """â, at least 0.001: a sparse network that happens to be better than the dense one is no licence."""
        squares = sum(x * x for x, _ in self.measured)
        products = sum(x * y for x, y in self.measured)
        return max(self.LEAST, (products + self.doubt * self.guess) / (squares + self.doubt))

    @property
    def share(self) -> float:
        """1 - d*, or 0 where even the first weight costs more than the price."""
        return max(0.0, 1 - math.sqrt(self.cost / self.price)) if self.price > 0 else 0.0

    def observe(self, step: int, losses: Losses, density: float) -> None:
        """One more measurement of a."""
        self.measured.append((1 / density - 1, self.reference.rise(step, losses)))

    def state_dict(self) -> dict[str, Any]:
        """The measurements."""
        return {"measured": [list(pair) for pair in self.measured]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.measured = [(x, y) for x, y in state["measured"]]
