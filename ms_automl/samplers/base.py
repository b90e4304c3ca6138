"""What a sampler is: from a run's trials so far to the next one.

A sampler is a function. What :meth:`Sampler.ask` answers depends on seed, space and the trials that it is given,
and on nothing else: going on after a stop, replaying a comparison and several trials at a time follow from that.
What it keeps between two calls only saves it from working the same out again.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ms_automl.comparison.registry import Space
from ms_automl.comparison.run import Suggestion
from ms_automl.config import Config
from ms_automl.meta import LambdaSchedule


class Answer(enum.Enum):
    """What a sampler answers where it suggests nothing."""

    WAIT = enum.auto()
    """The sampler must know how a trial that runs comes out."""
    DONE = enum.auto()
    """The sampler has nothing more to try."""


WAIT: Literal[Answer.WAIT] = Answer.WAIT
DONE: Literal[Answer.DONE] = Answer.DONE


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    Attributes:
        objective: J on the validation split.
        violation: by how much its sparsity misses the target; at most 0 where it may win.
        schedule: the λ that it has learned, or None.
        stopped: whether it was stopped on the way.
    """

    objective: float
    violation: float = 0.0
    schedule: dict[str, Any] | None = None
    stopped: bool = False

    @property
    def rank(self) -> tuple[float, float]:
        """Lower is better: first what misses the target, then J."""
        return max(0.0, self.violation), self.objective


@dataclass(frozen=True)
class Observation:
    """A trial as its sampler may know it.

    Attributes:
        name: of the trial.
        suggestion: what was suggested; that a sampler of another version would suggest something else does not
            matter.
        known: of how many trials before it the end was known when it was suggested.
        ended: whether its end may be known.
        result: how it ended; None where it failed, or where its end may not be known.
        at_rungs: J by report, where it was compared with others.
    """

    name: str
    suggestion: Suggestion
    known: int = 0
    ended: bool = False
    result: Result | None = None
    at_rungs: dict[int, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it ended without a result."""
        return self.ended and self.result is None


@dataclass(frozen=True)
class SamplerInputs:
    """What an arm's sampler is built from, for one seed of a comparison.

    Attributes:
        config: the whole configuration.
        space: what λ may be.
        seed: of the run.
        journal: file that Optuna's studies are kept in; None keeps none.
    """

    config: Config
    space: Space
    seed: int
    journal: Path | None = None

    @property
    def trials(self) -> int:
        """How many trials the budget allows."""
        return self.config.budget.trials

    @property
    def reports(self) -> int:
        """How many reports a whole trial makes."""
        return self.config.training.reports


class Sampler(ABC):
    """Suggests the trials of one run.

    Attributes:
        least: what its cheapest next trial costs, as a share of a fixed-λ trial: with less left the run ends.
        rungs: reports at which it decides whether a trial goes on.
        sequential: whether each trial builds on the one before, so that no two can run at a time.
    """

    least = 1.0
    rungs: tuple[int, ...] = ()
    sequential = False

    @abstractmethod
    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """What is to run next.

        Args:
            trials: all that were suggested so far, in their order; the ends of a first part of them are known.
        """

    @property
    def stops_trials(self) -> bool:
        """Whether it stops trials on the way, so that results decide how many there are."""
        return bool(self.rungs)

    def stops(self, trials: Sequence[Observation], index: int, report: int, objective: float) -> bool:
        """Whether a trial that runs is to stop at a report.

        Args:
            trials: all that were suggested so far, in their order.
            index: of the trial among them.
            report: 1, 2, … within the trial.
            objective: J at the report.
        """
        return False

    def record(self, trial: Observation) -> None:  # noqa: B027 - optional: most keep nothing
        """Keep the end of a trial for those who look at it; nothing that is asked depends on that."""


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
