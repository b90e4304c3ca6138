"""Between which values λ is searched for and learned: given, or read off the dense reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ms_automl.errors import require

DECADES = 2.0
"""From the lower bound to the upper one."""
BELOW = 0.05
"""The lower bound, in units of the λ whose proximal step is as long as the optimiser's."""
FIXED = 0.35
"""Where the λ that is tried once lies, where nobody states it: from bound to bound, on a log scale."""


@dataclass(frozen=True)
class LambdaBounds:
    """The smallest and the largest λ.

    Attributes:
        low: > 0.
        high: > low.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        require({"0 < low < high < inf": 0 < self.low < self.high < math.inf}, self)

    @property
    def fixed(self) -> float:
        """The λ of the arm `fixed` where nobody states one: a quarter of the unit of :meth:`measured`."""
        return math.exp((1 - FIXED) * math.log(self.low) + FIXED * math.log(self.high))

    @classmethod
    def measured(cls, step: float, shrink: float) -> LambdaBounds:
        """Two decades around where groups begin to go: from 0.05 v to 5 v with v = max(step, shrink).

        A proximal step shortens a group of n weights by η λ sqrt(n); what the optimiser adds to it meanwhile is
        about u sqrt(n) long, u the root mean square over its weights. So λ = u / η is where a group that is not
        needed cannot grow against λ, whatever the learning rate, the width and the length of the training are; and
        where all groups shrink without being made up for, λ Σ_t η_t has to be as long as the weights are, r.

        Args:
            step: u / η, as :class:`~ms_automl.meta.meter.Meter` measures it in a dense training; of SGD, which
                resists more the more a group is shortened, ten times that.
            shrink: r / Σ_t η_t, as well.
        """
        unit = max(step, shrink)
        return cls(BELOW * unit, BELOW * 10**DECADES * unit)

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> LambdaBounds | None:
        """Those of a dense reference; None of one that has not measured them."""
        if "bounds/step" not in metrics:
            return None
        return cls.measured(metrics["bounds/step"], metrics["bounds/shrink"])
