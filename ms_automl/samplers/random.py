"""Samplers that learn nothing from results: a list, draws, a grid."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from ms_automl.comparison.registry import Parameter
from ms_automl.comparison.run import Suggestion
from ms_automl.samplers.base import DONE, Answer, Observation, Render, Sampler


class ListedTrials(Sampler):
    """Trials that are known beforehand, in their order."""

    def __init__(self, suggestions: Sequence[Suggestion]) -> None:
        self.suggestions = list(suggestions)

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The next trial of the list; DONE after the last."""
        return DONE if len(trials) >= len(self.suggestions) else self.suggestions[len(trials)]


class Draws:
    """Uniform draws of some parameters, on a log scale where a parameter has one.

    Args:
        parameters: what is drawn.
        seed: the n-th draw depends on it and on n alone.
    """

    def __init__(self, parameters: tuple[Parameter, ...], seed: int) -> None:
        self.parameters = parameters
        self._source = random.Random(seed)
        self._drawn: list[dict[str, float]] = []

    def __getitem__(self, number: int) -> dict[str, float]:
        while len(self._drawn) <= number:
            self._drawn.append({parameter.name: _draw(parameter, self._source) for parameter in self.parameters})
        return self._drawn[number]


def _draw(parameter: Parameter, source: random.Random) -> float:
    if parameter.scale == "linear":
        return source.uniform(parameter.low, parameter.high)
    return math.exp(source.uniform(math.log(parameter.low), math.log(parameter.high)))


class RandomSearch(Sampler):
    """Draws without end (Bergstra & Bengio 2012)."""

    def __init__(self, parameters: tuple[Parameter, ...], render: Render, seed: int) -> None:
        self.render = render
        self.draws = Draws(parameters, seed)

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The next draw."""
        return self.render(self.draws[len(trials)])


def grid(parameters: tuple[Parameter, ...], render: Render, count: int) -> ListedTrials:
    """``count`` values of one λ for all layers, from the lower bound to the upper, evenly on the log scale.

    In a space of several parameters all of them take the same value: a full grid of fourteen would never end. Each
    network is compacted and timed: the trials show what λ does.
    """
    low, high = parameters[0].low, parameters[0].high
    steps = [index / max(1, count - 1) for index in range(count)]
    values = [low ** (1 - step) * high**step for step in steps] if count > 1 else [math.sqrt(low * high)]
    trials = [render({parameter.name: value for parameter in parameters}) for value in values]
    return ListedTrials([replace(trial, profile=True) for trial in trials])
