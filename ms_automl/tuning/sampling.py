"""Samplers: each proposes the trials of one stream, as Ray Searchers that see ``objective`` and ``violation``.

A sampler's ``suggest`` gives ``{"suggestion": Suggestion}``, or ``Searcher.FINISHED`` when it has nothing more
to try; the budget may end it before. ``on_trial_complete`` is told ``{"objective": J, "violation": v,
"schedule": {...} | None}`` of a finished trial, or ``error=True``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from ms_automl.meta import LambdaSchedule
from ms_automl.tuning.experiment import Suggestion
from search_spaces import Parameter, Space

Render = Callable[[dict[str, float]], Suggestion]


def fixed_lambda(space: Space) -> Render:
    """Values of a λ space as a trial with these constants."""

    def render(values: dict[str, float]) -> Suggestion:
        schedule = LambdaSchedule.constant(space.lambdas(values))
        return Suggestion("fixed_lambda", {"schedule": schedule.to_dict()}, values)

    return render


def pruned(values: dict[str, float]) -> Suggestion:
    """The level of pruning as a trial."""
    return Suggestion("pruned", {"level": values["level"]}, values)


class Sampler(Searcher):
    """What the samplers here share: no state of Ray's is needed."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a stream's state is rebuilt from its trials."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hear how a trial ended."""


class OneTrial(Sampler):
    """A single trial that is known beforehand."""

    def __init__(self, suggestion: Suggestion) -> None:
        super().__init__()
        self.suggestion = suggestion
        self.asked = False

    def suggest(self, trial_id: str) -> Any:
        """The trial, once."""
        if self.asked:
            return Searcher.FINISHED
        self.asked = True
        return {"suggestion": self.suggestion}


class RandomSearch(Sampler):
    """Uniform draws, on a log scale where the parameter has one (Bergstra & Bengio 2012)."""

    def __init__(self, parameters: tuple[Parameter, ...], render: Render, seed: int) -> None:
        super().__init__()
        self.parameters = parameters
        self.render = render
        self.random = random.Random(seed)

    def suggest(self, trial_id: str) -> Any:
        """The next draw; never finished."""
        values = {parameter.name: self._draw(parameter) for parameter in self.parameters}
        return {"suggestion": self.render(values)}

    def _draw(self, parameter: Parameter) -> float:
        if parameter.scale == "linear":
            return self.random.uniform(parameter.low, parameter.high)
        return math.exp(self.random.uniform(math.log(parameter.low), math.log(parameter.high)))
