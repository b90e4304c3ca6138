"""The meta-sparsity trainer as a sampler: learn λ once, then try it, and around it, as a fixed λ."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from ms_automl.comparison.registry import Parameter, Space
from ms_automl.comparison.run import Suggestion
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.base import DONE, WAIT, Answer, Observation, Sampler
from ms_automl.samplers.optuna import OptunaSearch

STEP = 0.25
"""Width of the search around the learned λ, in log λ: a factor of 1.28."""
REACH = math.log(10)
"""How far Optuna may go from the learned λ, in log λ; the bounds of λ hold besides."""


class LearnedFirst(Sampler):
    """First a training that learns λ, then trials with shifts of what it has learned; done where it failed.

    Args:
        space: its parameters say which λ move together, its bounds hold.
    """

    def __init__(self, space: Space) -> None:
        self.space = space

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The training that learns λ; later a fixed-λ trial around that."""
        if not trials:
            return Suggestion("meta_sparsity", {}, {})
        first, *others = trials
        if not first.ended:
            return WAIT
        if first.result is None or first.result.schedule is None:
            return DONE
        learned = LambdaSchedule.from_dict(first.result.schedule)
        return shifted(self.space, learned, self.shifts(others))

    @abstractmethod
    def shifts(self, trials: Sequence[Observation]) -> dict[str, float]:
        """Shift of log λ by parameter of the space.

        Args:
            trials: around the learned λ, so far.
        """


class MetaSparsity(LearnedFirst):
    """The learned course of λ as it is, then courses around it.

    Around it: the whole course a step up, a step down, then further in the better direction while that helps;
    after that Gaussian steps of each parameter of the space around the best. Says whether a learned λ carries
    over to a training that does not learn it.

    Args:
        space: its parameters say which λ move together, its bounds hold.
        seed: of the Gaussian steps.
    """

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(space)
        self.seed = seed

    def shifts(self, trials: Sequence[Observation]) -> dict[str, float]:
        """No shift, a step up, a step down, then steps around the best."""
        names = [parameter.name for parameter in self.space.parameters]
        first = (0.0, STEP, -STEP)
        if len(trials) < len(first):
            return dict.fromkeys(names, first[len(trials)])
        tried = [trial for trial in trials if trial.result is not None]
        best = dict.fromkeys(names, 0.0)
        if tried:
            winner = min(tried, key=lambda trial: trial.result.rank if trial.result is not None else (0.0, 0.0))
            best = self._shifts_of(winner)
        common = set(best.values())
        further = 2 * next(iter(common)) if len(common) == 1 else 0.0
        if further and all(set(self._shifts_of(trial).values()) != {further} for trial in trials):
            return dict.fromkeys(names, further)
        source = random.Random(f"{self.seed}/{len(trials)}")
        return {name: best[name] + source.gauss(0, STEP) for name in names}

    def _shifts_of(self, trial: Observation) -> dict[str, float]:
        return {
            parameter.name: trial.suggestion.values[shift_of(parameter.name)]
            for parameter in self.space.parameters
        }


class MetaOptuna(LearnedFirst):
    """The learned course of λ as it is, then a study of Optuna's over shifts of it.

    Args:
        space: its parameters say which λ move together, its bounds hold.
        seed: of Optuna's sampler.
        trials: how many the budget allows.
        journal: file that keeps the study; None keeps none.
        name: of the study there.
    """

    def __init__(
        self, space: Space, seed: int, trials: int, *, journal: Path | None = None, name: str = "study"
    ) -> None:
        super().__init__(space)
        bounds = tuple(Parameter(shift_of(p.name), -REACH, REACH, "linear") for p in space.parameters)
        first = {parameter.name: 0.0 for parameter in bounds}
        self.search = OptunaSearch(bounds, None, seed, trials, first=first, journal=journal, name=name)

    def shifts(self, trials: Sequence[Observation]) -> dict[str, float]:
        """The shifts that Optuna suggests."""
        values = self.search.values(trials)
        return {parameter.name: values[shift_of(parameter.name)] for parameter in self.space.parameters}

    def record(self, trial: Observation) -> None:
        """Keep the end of a trial around the learned λ in the study's file."""
        if trial.suggestion.values:
            self.search.record(trial)


def shifted(space: Space, learned: LambdaSchedule, shifts: dict[str, float]) -> Suggestion:
    """A learned course with log λ shifted, within the bounds, as a fixed-λ trial.

    Args:
        space: whose parameters the shifts are named after.
        learned: the course.
        shifts: of log λ, by parameter.
    """
    factor = space.lambdas({name: math.exp(shift) for name, shift in shifts.items()})
    low, high = space.parameters[0].low, space.parameters[0].high
    schedule = learned.scaled([factor[layer] for layer in learned.layers]).clipped(low, high)
    values = {shift_of(name): shift for name, shift in shifts.items()}
    return Suggestion("fixed_lambda", {"schedule": schedule.to_dict()}, values)


def shift_of(name: str) -> str:
    """The name of a parameter's shift: ``shift/<layer>`` for ``lambda/<layer>``."""
    return f"shift/{name.removeprefix('lambda').removeprefix('/') or 'lambda'}"
