"""The meta-sparsity trainer as a searcher: learn λ once, then try it, and around it, as a fixed λ."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from ms_automl.comparison.registry import Parameter, Space
from ms_automl.comparison.run import Suggestion
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.base import Sampler
from ms_automl.samplers.optuna import OptunaSearch

STEP = 0.25
"""Width of the search around the learned λ, in log λ: a factor of 1.28."""
REACH = math.log(10)
"""How far Optuna may go from the learned λ, in log λ; the bounds of λ hold besides."""


class MetaSparsitySearcher(Sampler):
    """First a meta-training trial, then the learned course of λ as it is, then courses around it.

    Around it: the whole course a step up, a step down, then further in the better direction while that helps;
    after that Gaussian steps of each parameter of the space around the best. Says whether a learned λ carries
    over to a training that does not learn it.

    Args:
        space: its parameters say which λ move together, its bounds hold.
        seed: of the Gaussian steps.
    """

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__()
        self.space = space
        self.seed = seed
        self.learning: str | None = None
        self.learned: LambdaSchedule | None = None
        self.failed = False
        self.proposed: dict[str, dict[str, float]] = {}
        self.tried: list[tuple[tuple[float, float], dict[str, float]]] = []
        self.asked = 0

    def suggest(self, trial_id: str) -> Any:
        """The meta-training trial, then fixed-λ trials; finished where the first one failed."""
        if self.learning is None:
            self.learning = trial_id
            return {"suggestion": Suggestion("meta_sparsity", {}, {})}
        if self.failed:
            return Searcher.FINISHED
        if self.learned is None:  # still learning
            return None
        shifts = self._next_shifts()
        self.asked += 1
        self.proposed[trial_id] = shifts
        return {"suggestion": shifted(self.space, self.learned, shifts)}

    def resume(self, trial_id: str, suggestion: Suggestion) -> None:
        """Take over the meta-training trial, or one around it."""
        if self.learning is None:
            self.learning = trial_id
            return
        self.asked += 1
        names = [parameter.name for parameter in self.space.parameters]
        self.proposed[trial_id] = {name: suggestion.values[shift_of(name)] for name in names}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take over the learned λ, or a tried one's result."""
        if trial_id == self.learning:
            schedule = None if error or result is None else result["schedule"]
            self.failed = schedule is None
            if schedule is not None:
                self.learned = LambdaSchedule.from_dict(schedule)
        elif not error and result is not None:
            rank = (max(0.0, result["violation"]), result["objective"])
            self.tried.append((rank, self.proposed[trial_id]))

    def _next_shifts(self) -> dict[str, float]:
        """Shift of log λ by parameter."""
        names = [parameter.name for parameter in self.space.parameters]
        first = (0.0, STEP, -STEP)
        if self.asked < len(first):
            return dict.fromkeys(names, first[self.asked])
        best = min(self.tried, key=lambda entry: entry[0])[1] if self.tried else dict.fromkeys(names, 0.0)
        common = set(best.values())
        further = 2 * next(iter(common)) if len(common) == 1 else 0.0
        if further and all(set(shifts.values()) != {further} for shifts in self.proposed.values()):
            return dict.fromkeys(names, further)
        source = random.Random(f"{self.seed}/{self.asked}")
        return {name: best[name] + source.gauss(0, STEP) for name in names}


class MetaOptunaSearch(Sampler):
    """First a meta-training trial, then a study of Optuna's over shifts of the learned course of λ.

    Its first suggestion is no shift at all: the learned λ itself.

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
        super().__init__()
        self.space = space
        self.learning: str | None = None
        self.learned: LambdaSchedule | None = None
        self.failed = False
        shifts = tuple(Parameter(shift_of(p.name), -REACH, REACH, "linear") for p in space.parameters)
        first = {parameter.name: 0.0 for parameter in shifts}
        self.search = OptunaSearch(shifts, self._render, seed, trials, first=first, journal=journal, name=name)

    def suggest(self, trial_id: str) -> Any:
        """The meta-training trial, then what Optuna says; finished where the first one failed."""
        if self.learning is None:
            self.learning = trial_id
            return {"suggestion": Suggestion("meta_sparsity", {}, {})}
        if self.failed:
            return Searcher.FINISHED
        return None if self.learned is None else self.search.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take over the learned λ, or hand a tried one on to the study."""
        if trial_id != self.learning:
            self.search.on_trial_complete(trial_id, result, error)
            return
        schedule = None if error or result is None else result["schedule"]
        self.failed = schedule is None
        self.learned = None if schedule is None else LambdaSchedule.from_dict(schedule)

    def resume(self, trial_id: str, suggestion: Suggestion) -> None:
        """Take over the meta-training trial, or have the study take over another."""
        if self.learning is None:
            self.learning = trial_id
        else:
            self.search.resume(trial_id, suggestion)

    def _render(self, shifts: dict[str, float]) -> Suggestion:
        assert self.learned is not None
        by_parameter = {parameter.name: shifts[shift_of(parameter.name)] for parameter in self.space.parameters}
        return shifted(self.space, self.learned, by_parameter)


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
    """``lambda/<layer>`` as ``shift/<layer>``."""
    return f"shift/{name.removeprefix('lambda').removeprefix('/') or 'lambda'}"
