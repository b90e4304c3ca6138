"""What a sampler is, from a run's trials so far to the next one, and those that have no model of the results.

A sampler is a function. What :meth:`Sampler.ask` answers depends on seed, space and the trials that it is given,
and on nothing else: going on after a stop, replaying a comparison and several trials at a time follow from that.
"""

from __future__ import annotations

import enum
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ms_automl.comparison.registry import Parameter, Space
from ms_automl.comparison.run import Start, Suggestion
from ms_automl.config import Config
from ms_automl.meta import LambdaSchedule, Objective
from ms_automl.meta.lambda_bounds import LambdaBounds


class Answer(enum.Enum):
    """What a sampler answers where it suggests nothing."""

    WAIT = enum.auto()  # it must know how a trial that runs comes out
    DONE = enum.auto()  # it has nothing more to try


WAIT: Literal[Answer.WAIT] = Answer.WAIT
DONE: Literal[Answer.DONE] = Answer.DONE


@dataclass(frozen=True)
class Result:
    """How a trial ended."""

    objective: float  # J on the validation split
    violation: float = 0.0  # by how much its sparsity misses the target; at most 0 where it may win
    schedule: dict[str, Any] | None = None  # the λ that it has learned
    stopped: bool = False  # on the way
    sparsity: float | None = None  # share of the weights that λ acts on which are zero

    @property
    def rank(self) -> tuple[float, float]:
        """Lower is better: first what misses the target, then J."""
        return max(0.0, self.violation), self.objective


@dataclass(frozen=True)
class Observation:
    """A trial as its sampler may know it; a sampler of another version may have suggested it."""

    name: str
    suggestion: Suggestion
    known: int = 0  # of how many trials before it the end was known when it was suggested
    ended: bool = False  # and its end may be known
    result: Result | None = None  # None where it failed, or where its end may not be known
    at_rungs: dict[int, float] = field(default_factory=dict)  # J by report, where it was compared with others


@dataclass(frozen=True)
class SamplerInputs:
    """What an arm's sampler is built from, for one seed of a comparison."""

    config: Config
    space: Space  # what λ may be
    bounds: LambdaBounds  # of λ
    seed: int
    asked: Objective  # the configuration's, in terms of the penalised weights
    journal: Path | None = None  # file that Optuna's studies are kept in; None keeps none

    @property
    def fixed(self) -> float:
        """The λ that is tried once: the configuration's, where it states one."""
        stated = self.config.lambda_.fixed
        return self.bounds.fixed if stated is None else stated

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is searched: λ, and the training settings that are tuned with it."""
        return (*self.space.parameters, *self.config.tuned)

    def render(self, values: dict[str, float]) -> Suggestion:
        """A trial with a constant λ under these settings."""
        return under(fixed_lambda(self.space)(values), {one.name: values[one.name] for one in self.config.tuned})


def under(trial: Suggestion, settings: Mapping[str, float]) -> Suggestion:
    """A trial under other training settings than the configuration's."""
    return replace(trial, params=trial.params | {"training": dict(settings)}) if settings else trial


class Sampler(ABC):
    """Suggests the trials of one run."""

    least = 1.0  # cost of its cheapest next trial, as a share of a fixed-λ trial: with less left the run ends
    rungs: tuple[int, ...] = ()  # reports at which it decides whether a trial goes on
    sequential = False  # whether each trial builds on the one before, so that no two can run at a time

    @abstractmethod
    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """What is to run next, after all that were suggested so far; of a first part the ends are known."""

    @property
    def stops_trials(self) -> bool:
        """Whether it stops trials on the way, so that results decide how many there are."""
        return bool(self.rungs)

    def stops(self, trials: Sequence[Observation], index: int, report: int, objective: float) -> bool:
        """Whether the trial of an index stops at its report 1, 2, …, where its J is ``objective``."""
        return False

    def record(self, trial: Observation) -> None:  # noqa: B027 - optional: most keep nothing
        """Keep the end of a trial for those who look at it; nothing that is asked depends on that."""


Render = Callable[[dict[str, float]], Suggestion]
"""Makes a trial of values by parameter name."""


def fixed_lambda(space: Space) -> Render:
    """Values of a λ space as a trial with these constants."""

    def render(values: dict[str, float]) -> Suggestion:
        schedule = LambdaSchedule.constant(space.lambdas(values))
        return Suggestion("fixed_lambda", {"schedule": schedule.to_dict()}, values)

    return render


class ListedTrials(Sampler):
    """Trials that are known beforehand, in their order."""

    def __init__(self, suggestions: Sequence[Suggestion]) -> None:
        self.suggestions = list(suggestions)

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The next trial of the list; DONE after the last."""
        return DONE if len(trials) >= len(self.suggestions) else self.suggestions[len(trials)]


def grid(parameters: tuple[Parameter, ...], render: Render, count: int) -> list[Suggestion]:
    """``count`` values of one λ for all layers, from the lower bound to the upper, evenly on the log scale.

    In a space of several parameters all of them take the same value: a full grid of fourteen would never end. Each
    network is compacted and timed: the trials show what λ does.
    """
    low, high = parameters[0].low, parameters[0].high
    steps = [index / (count - 1) for index in range(count)] if count > 1 else []
    values = [low ** (1 - step) * high**step for step in steps] or [math.sqrt(low * high)]
    trials = [render({parameter.name: value for parameter in parameters}) for value in values]
    return [replace(trial, profile=True) for trial in trials]


class WarmPath(ListedTrials):
    """One sweep of λ upward, each trial from the weights of the one before, as glmnet fits a lasso path.

    Every trial has both of its phases in full, so each point of the path is debiased.
    """

    sequential = True

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The next λ, from the weights of the last trial that came to its end."""
        answer = super().ask(trials)
        last = next((trial.name for trial in reversed(trials) if trial.result is not None), None)
        if isinstance(answer, Answer) or last is None:
            return answer
        return replace(answer, start=Start("weights", last))


class RandomSearch(Sampler):
    """Uniform draws without end, on a log scale where a parameter has one (Bergstra & Bengio 2012)."""

    def __init__(self, parameters: tuple[Parameter, ...], render: Render, seed: int) -> None:
        self.parameters = parameters
        self.render = render
        self._source = random.Random(seed)
        self._drawn: list[dict[str, float]] = []

    def ask(self, trials: Sequence[Observation]) -> Suggestion:
        """The next draw; the n-th depends on the seed and on n alone."""
        while len(self._drawn) <= len(trials):
            self._drawn.append({parameter.name: self._draw(parameter) for parameter in self.parameters})
        return self.render(self._drawn[len(trials)])

    def _draw(self, parameter: Parameter) -> float:
        if parameter.choices:
            return self._source.choice(parameter.choices)
        if parameter.scale == "linear":
            return self._source.uniform(parameter.low, parameter.high)
        return math.exp(self._source.uniform(math.log(parameter.low), math.log(parameter.high)))


class TopK(Sampler):
    """All candidates for one short rung, the best k from there to the end (arXiv 2307.15422).

    With b trials' worth of budget, a rung (a report) at the share r of a trial and k = max(1, b // 4) that go on,
    there are n = (b - k (1 - r)) / r candidates, drawn at random. A trial that goes on is a new one, which starts
    from the state in which the candidate was stopped.
    """

    stops_trials = True

    def __init__(self, draws: RandomSearch, trials: int, rung: int, share: float) -> None:
        self.draws = draws
        self.rung = rung
        # Where a trial makes one report alone, its end is the rung, and every candidate has come to it.
        self.kept = max(1, trials // 4) if share < 1 else 0
        self.short: dict[str, Any] = {"until": rung, "share": share} if share < 1 else {}
        self.least = min(share, 1 - share or 1.0) * 0.9  # the test split is passed at the end alone
        self.candidates = max(self.kept, int((trials - self.kept * (1 - share)) / share + 1e-9))

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """A candidate; once all have ended, the best of them again, to the end."""
        candidates = [trial for trial in trials if trial.suggestion.start is None]
        if len(candidates) < self.candidates:
            return replace(self.draws.ask(candidates), **self.short)
        if not all(trial.ended for trial in candidates):
            return WAIT
        ranked = sorted((trial.result.rank, trial.name, trial) for trial in candidates if trial.result is not None)
        gone_on = len(trials) - len(candidates)
        if gone_on >= min(self.kept, len(ranked)):
            return DONE
        _, name, best = ranked[gone_on]
        return replace(best.suggestion, until=None, share=1.0, start=Start("state", name))
