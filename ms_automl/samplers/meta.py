"""The meta-sparsity trainer as a sampler: learn λ once, then try it, and around it, as a fixed λ."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from ms_automl.comparison.registry import Parameter, Space
from ms_automl.comparison.run import Suggestion
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.base import DONE, WAIT, Answer, Observation, Result, Sampler, under
from ms_automl.samplers.optuna import OptunaSearch

STEP = 0.25
"""Width of the search around the learned λ, in log λ: a factor of 1.28."""
REACH = math.log(10)
"""How far Optuna may go from the learned λ, in log λ; the bounds of λ hold besides."""


class MetaFirst(Sampler):
    """First ``meta`` as the configuration has it, then trials that follow from it; done where it failed."""

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The training that learns λ; later what follows."""
        if not trials:
            return Suggestion("meta_sparsity", {}, {})
        first, *others = trials
        if not first.ended:
            return WAIT
        return DONE if first.result is None else self.then(first.result, others)

    @abstractmethod
    def then(self, learned: Result, trials: Sequence[Observation]) -> Suggestion | Answer:
        """What is to run after the first training has ended so, and these trials after it."""


class LearnedFirst(MetaFirst):
    """First a training that learns λ, then trials with shifts of what it has learned; done where it failed.

    The parameters of the space say which λ move together, its bounds hold.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = {p.name: f"shift/{p.name.removeprefix('lambda/')}" for p in space.parameters}

    def then(self, learned: Result, trials: Sequence[Observation]) -> Suggestion | Answer:
        """A fixed-λ trial around what was learned."""
        if learned.schedule is None:
            return DONE
        course = LambdaSchedule.from_dict(learned.schedule)
        shifts = self.shifts(trials)
        factor = self.space.lambdas({name: math.exp(shifts[shift]) for name, shift in self.names.items()})
        low, high = self.space.parameters[0].low, self.space.parameters[0].high
        schedule = course.scaled([factor[layer] for layer in course.layers]).clipped(low, high)
        return Suggestion("fixed_lambda", {"schedule": schedule.to_dict()}, shifts)

    @abstractmethod
    def shifts(self, trials: Sequence[Observation]) -> dict[str, float]:
        """Shifts of log λ, ``shift/<layer>`` of ``lambda/<layer>``, after these trials around the learned λ."""


class MetaSparsity(LearnedFirst):
    """The learned course of λ as it is, then courses around it.

    Around it: the whole course a step up, a step down, then further in the better direction while that helps;
    after that Gaussian steps of each parameter of the space around the best, drawn by ``seed``. Says whether a
    learned λ carries over to a training that does not learn it.
    """

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(space)
        self.seed = seed

    def shifts(self, trials: Sequence[Observation]) -> dict[str, float]:
        """No shift, a step up, a step down, then steps around the best."""
        names = self.names.values()
        first = (0.0, STEP, -STEP)
        if len(trials) < len(first):
            return dict.fromkeys(names, first[len(trials)])
        ranked = [(trial.result.rank, n) for n, trial in enumerate(trials) if trial.result is not None]
        best = trials[min(ranked)[1]].suggestion.values if ranked else dict.fromkeys(names, 0.0)
        common = set(best.values())
        further = 2 * next(iter(common)) if len(common) == 1 else 0.0
        if further and all(set(trial.suggestion.values.values()) != {further} for trial in trials):
            return dict.fromkeys(names, further)
        source = random.Random(f"{self.seed}/{len(trials)}")
        return {name: best[name] + source.gauss(0, STEP) for name in names}


class MetaOptuna(LearnedFirst):
    """The learned course of λ as it is, then a study of Optuna's over shifts of it (:class:`OptunaSearch`)."""

    def __init__(
        self, space: Space, seed: int, trials: int, *, journal: Path | None = None, name: str = "study"
    ) -> None:
        super().__init__(space)
        bounds = tuple(Parameter(shift, -REACH, REACH, "linear") for shift in self.names.values())
        self.search = OptunaSearch(bounds, _as_values, seed, trials, journal=journal, name=name)

    def shifts(self, trials: Sequence[Observation]) -> dict[str, float]:
        """No shift, then those that Optuna suggests."""
        return self.search.ask(trials).values if trials else dict.fromkeys(self.names.values(), 0.0)

    def record(self, trial: Observation) -> None:
        """Keep the end of a trial around the learned λ in the study's file."""
        if trial.suggestion.values:
            self.search.record(trial)


class MetaInOptuna(MetaFirst):
    """Training settings are searched, λ is learned inside every trial.

    The first trial is ``meta`` as the configuration has it, and learns how sparse to become. Under other settings
    the dense reference's losses on the way are no measure of what zeros cost: a slower training is behind them at
    first, and not for its zeros. So the others are asked for the level that the first has found, and learn which
    groups of which layers that are, and their λ.

    Args:
        parameters: the training settings.
        told: the level, where a target is asked for; then there is nothing to find first.
    """

    def __init__(
        self,
        parameters: tuple[Parameter, ...],
        seed: int,
        trials: int,
        *,
        told: Mapping[str, float],
        journal: Path | None = None,
        name: str = "study",
    ) -> None:
        self.told = told
        self.search = OptunaSearch(parameters, _as_values, seed, trials, journal=journal, name=name)

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The training that learns the level, where none is told, then those under other settings."""
        return self._under(trials, self.told) if self.told else super().ask(trials)

    def then(self, learned: Result, trials: Sequence[Observation]) -> Suggestion | Answer:
        """A training to the level that was learned under the settings that Optuna suggests."""
        return DONE if learned.sparsity is None else self._under(trials, {"level": learned.sparsity})

    def _under(self, trials: Sequence[Observation], level: Mapping[str, float]) -> Suggestion:
        settings = self.search.ask(trials).values
        return under(Suggestion("meta_sparsity", dict(level), settings), settings)

    def record(self, trial: Observation) -> None:
        """Keep the end of a trial under other settings in the study's file."""
        if trial.suggestion.values:
            self.search.record(trial)


def _as_values(values: dict[str, float]) -> Suggestion:
    return Suggestion("fixed_lambda", {}, values)
