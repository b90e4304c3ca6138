"""The meta-sparsity trainer as a searcher: learn λ once, then try it, and around it, as a fixed λ."""

from __future__ import annotations

import math
import random
from typing import Any

from ray.tune.search import Searcher

from ms_automl.meta import LambdaSchedule
from ms_automl.tuning.experiment import Suggestion
from ms_automl.tuning.sampling import Sampler
from search_spaces import Space

STEP = 0.25
"""Width of the search around the learned λ, in log λ: a factor of 1.28."""


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
        self.random = random.Random(seed)
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
        return {"suggestion": self._render(self.learned, shifts)}

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
        if further and all(set(shifts.values()) != {further} for _, shifts in self.tried):
            return dict.fromkeys(names, further)
        return {name: best[name] + self.random.gauss(0, STEP) for name in names}

    def _render(self, learned: LambdaSchedule, shifts: dict[str, float]) -> Suggestion:
        factor = self.space.lambdas({name: math.exp(shift) for name, shift in shifts.items()})
        low, high = self.space.parameters[0].low, self.space.parameters[0].high
        schedule = learned.scaled([factor[layer] for layer in learned.layers]).clipped(low, high)
        values = {f"shift/{name.removeprefix('lambda/')}": shift for name, shift in shifts.items()}
        return Suggestion("fixed_lambda", {"schedule": schedule.to_dict()}, values)
