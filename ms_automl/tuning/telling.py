"""What each run's sampler may know: the ends of its trials, in the order in which they were suggested."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ms_automl.comparison.run import Run, Start, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.samplers.base import Observation, Result, Sampler


@dataclass
class Untold:
    """A trial whose end its sampler has not been told yet.

    Attributes:
        needed: what was set aside for it, in the budget's unit.
        over: whether it has ended, its model stored.
    """

    trial: Trial
    needed: float
    over: bool = False


class Telling:
    """Lets samplers know how trials ended, so that it does not matter which of several at a time ends first.

    With ``at_a_time`` = k the sampler of a run is asked for its n-th trial once those to n - k have ended, and
    has been told of these, in their order, and of no later one; what the trials in between may still cost is set
    aside.

    Args:
        comparison: whose runs and ledger it is about.
        samplers: by run name.
        at_a_time: trials of a run that may run at a time; of one whose trials build on each other only one may.
    """

    def __init__(self, comparison: Comparison, samplers: Mapping[str, Sampler], at_a_time: int) -> None:
        self.comparison = comparison
        self.samplers = samplers
        self.at_a_time = at_a_time
        self.observations: dict[str, list[Observation]] = defaultdict(list)  # by run: what its sampler is given
        self.untold: dict[str, list[Untold]] = defaultdict(list)  # by run
        self.failed: dict[str, int] = defaultdict(int)  # by run, of those that were told

    def add(self, run: Run, trial: Trial, needed: float, *, over: bool = False) -> None:
        """A trial was suggested."""
        self.observations[run.name].append(Observation(trial.name, suggestion_of(trial), trial.told))
        self.untold[run.name].append(Untold(trial, needed, over))
        if over:
            self.samplers[run.name].record(self._observed(trial))

    def over(self, run: Run, trial: Trial) -> None:
        """A trial has ended, its model stored."""
        next(one for one in self.untold[run.name] if one.trial is trial).over = True
        began = time.perf_counter()
        self.samplers[run.name].record(self._observed(trial))
        self.comparison.searched(run, trial.name, "record", time.perf_counter() - began)
        self.due(run)

    def room(self, run: Run) -> bool:
        """Whether a run may run one more trial with what its sampler has been told."""
        most = 1 if self.samplers[run.name].sequential else self.at_a_time
        return len(self.untold[run.name]) < most

    def number(self, run: Run) -> int:
        """Of how many trials a run's sampler has been told."""
        return len(run.trials) - len(self.untold[run.name])

    def due(self, run: Run) -> None:
        """Tell a run's sampler what it is to know when it is asked next."""
        while not self.room(run) and self.more(run):
            pass

    def more(self, run: Run) -> bool:
        """Tell a run's sampler of the first trial that it does not know of; False where that has not ended."""
        untold = self.untold[run.name]
        if not untold or not untold[0].over:
            return False
        trial = untold.pop(0).trial
        self.failed[run.name] += trial.status == Status.FAILED
        self.observations[run.name][trial.index] = self._observed(trial)
        return True

    def affords(self, run: Run, amount: float) -> bool:
        """Whether ``amount`` is left, besides what trials may still cost that the sampler has not been told of."""
        ledger, aside = self.comparison.ledger, 0.0
        if ledger.unit.planned:
            untold = self.untold[run.name]
            aside = sum(max(0.0, one.needed - ledger.spent_on(one.trial.name)) for one in untold)
        return ledger.affords(run.name, amount + aside)

    def _observed(self, trial: Trial) -> Observation:
        """A trial that has ended, as its sampler may know it."""
        result = None
        if trial.status in (Status.FINISHED, Status.STOPPED) and "val/objective" in trial.metrics:
            violation = self.comparison.objective.violation(trial.metrics["density"])
            stopped = trial.status == Status.STOPPED
            result = Result(trial.metrics["val/objective"], violation, trial.schedule, stopped)
        at_rungs = dict(trial.at_rungs)
        return Observation(trial.name, suggestion_of(trial), trial.told, True, result, at_rungs)


def suggestion_of(trial: Trial) -> Suggestion:
    """What a trial was suggested as."""
    start = None if trial.start is None else Start(**trial.start)  # type: ignore[arg-type]
    return Suggestion(
        trial.method,
        trial.params,
        trial.values,
        trial.until,
        share=trial.share,
        start=start,
        profile=trial.profile,
    )
