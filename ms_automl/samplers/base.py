"""Samplers: each proposes the trials of one stream, as Ray Searchers that see ``objective`` and ``violation``.

A sampler's ``suggest`` gives ``{"suggestion": Suggestion}``, None while it waits for a running trial, or
``Searcher.FINISHED`` when it has nothing more to try; the budget may end it before. ``on_trial_complete`` is told
``{"objective": J, "violation": v, "schedule": {...} | None}`` of a finished trial, or ``error=True``; one that was
stopped on the way is told the same with ``"stopped": True``. ``"at_rungs"`` has J by report where it was compared.

The n-th suggestion depends on the seed, on n and on what was told, and on nothing else: a comparison that goes on
after a kill hands back what is known by :meth:`Sampler.resume`, and the next suggestion is the one that would have
come. Several may be asked for before the first of them ends; their ends are told in the order of the suggestions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray.tune.search import Searcher

from ms_automl.comparison.registry import Parameter, Space
from ms_automl.comparison.run import Suggestion
from ms_automl.meta import LambdaSchedule

Render = Callable[[dict[str, float]], Suggestion]


def fixed_lambda(space: Space) -> Render:
    """Values of a λ space as a trial with these constants."""

    def render(values: dict[str, float]) -> Suggestion:
        schedule = LambdaSchedule.constant(space.lambdas(values))
        return Suggestion("fixed_lambda", {"schedule": schedule.to_dict()}, values)

    return render


def pruned(criterion: str) -> Render:
    """The level of pruning as a trial."""

    def render(values: dict[str, float]) -> Suggestion:
        return Suggestion("pruned", {"level": values["level"], "criterion": criterion}, values)

    return render


class Sampler(Searcher):
    """What the samplers here share: no state of Ray's is needed.

    Attributes:
        least: what its cheapest next trial costs, as a share of a fixed-λ trial: with less left the stream ends.
        rungs: reports at which it decides whether a trial goes on.
        in_turn: whether each trial builds on the one before, so that no two can run at a time.
    """

    least = 1.0
    rungs: tuple[int, ...] = ()
    in_turn = False

    def resume(self, trial_id: str, suggestion: Suggestion) -> None:
        """Take over a trial that was suggested before this process began, as if it had been suggested now.

        Args:
            trial_id: as :meth:`suggest` had it.
            suggestion: what was suggested then.
        """
        self.suggest(trial_id)

    def recall(self, trial_id: str, suggestion: Suggestion, result: dict[str, Any] | None) -> None:
        """Take over a trial that ended before this process began, in the order in which trials were suggested.

        Args:
            trial_id: as above.
            suggestion: likewise.
            result: as :meth:`on_trial_complete` would be told; None for a failed trial.
        """
        self.resume(trial_id, suggestion)
        self.on_trial_complete(trial_id, result, error=result is None)

    def on_report(self, trial_id: str, report: int, objective: float) -> bool:
        """Hear of a report of a running trial; True stops it there.

        Args:
            trial_id: of the trial.
            report: 1, 2, … within the trial.
            objective: J at the report.
        """
        return False

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a stream's state is rebuilt from its trials."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hear how a trial ended."""


class ListedTrials(Sampler):
    """Trials that are known beforehand, in their order."""

    def __init__(self, suggestions: Sequence[Suggestion]) -> None:
        super().__init__()
        self.suggestions = list(suggestions)
        self.asked = 0

    def suggest(self, trial_id: str) -> Any:
        """The next one."""
        if self.asked == len(self.suggestions):
            return Searcher.FINISHED
        self.asked += 1
        return {"suggestion": self.suggestions[self.asked - 1]}


class RandomSearch(Sampler):
    """Uniform draws, on a log scale where the parameter has one (Bergstra & Bengio 2012)."""

    def __init__(self, parameters: tuple[Parameter, ...], render: Render, seed: int) -> None:
        super().__init__()
        self.parameters = parameters
        self.render = render
        self.random = random.Random(seed)

    def suggest(self, trial_id: str) -> Any:
        """The next draw; never finished."""
        values = {parameter.name: draw(parameter, self.random) for parameter in self.parameters}
        return {"suggestion": self.render(values)}


def draw(parameter: Parameter, source: random.Random) -> float:
    """One uniform draw, of the logarithm where the parameter has a log scale."""
    if parameter.scale == "linear":
        return source.uniform(parameter.low, parameter.high)
    return math.exp(source.uniform(math.log(parameter.low), math.log(parameter.high)))


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
