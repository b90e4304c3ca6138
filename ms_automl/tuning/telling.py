"""What each stream's sampler may know: the ends of its trials, in the order in which they were suggested."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ms_automl.comparison.run import Start, Status, Stream, Suggestion, Trial
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

    With ``at_a_time`` = k the sampler of a stream is asked for its n-th trial once those to n - k have ended, and
    has been told of these, in their order, and of no later one; what the trials in between may still cost is set
    aside.

    Args:
        comparison: whose streams and ledger it is about.
        samplers: by stream name.
        at_a_time: trials of a stream that may run at a time; of one whose trials build on each other only one may.
    """

    def __init__(self, comparison: Comparison, samplers: Mapping[str, Sampler], at_a_time: int) -> None:
        self.comparison = comparison
        self.samplers = samplers
        self.at_a_time = at_a_time
        self.observations: dict[str, list[Observation]] = defaultdict(list)  # by stream: what its sampler is given
        self.untold: dict[str, list[Untold]] = defaultdict(list)  # by stream
        self.failed: dict[str, int] = defaultdict(int)  # by stream, of those that were told

    def add(self, stream: Stream, trial: Trial, needed: float, *, over: bool = False) -> None:
        """A trial was suggested."""
        self.observations[stream.name].append(Observation(trial.name, suggestion_of(trial), trial.told))
        self.untold[stream.name].append(Untold(trial, needed, over))
        if over:
            self.samplers[stream.name].record(self._observed(trial))

    def over(self, stream: Stream, trial: Trial) -> None:
        """A trial has ended, its model stored."""
        next(one for one in self.untold[stream.name] if one.trial is trial).over = True
        began = time.perf_counter()
        self.samplers[stream.name].record(self._observed(trial))
        self.comparison.searched(stream, trial.name, "record", time.perf_counter() - began)
        self.due(stream)

    def room(self, stream: Stream) -> bool:
        """Whether a stream may run one more trial with what its sampler has been told."""
        most = 1 if self.samplers[stream.name].sequential else self.at_a_time
        return len(self.untold[stream.name]) < most

    def number(self, stream: Stream) -> int:
        """Of how many trials a stream's sampler has been told."""
        return len(stream.trials) - len(self.untold[stream.name])

    def due(self, stream: Stream) -> None:
        """Tell a stream's sampler what it is to know when it is asked next."""
        while not self.room(stream) and self.more(stream):
            pass

    def more(self, stream: Stream) -> bool:
        """Tell a stream's sampler of the first trial that it does not know of; False where that has not ended."""
        untold = self.untold[stream.name]
        if not untold or not untold[0].over:
            return False
        trial = untold.pop(0).trial
        self.failed[stream.name] += trial.status == Status.FAILED
        self.observations[stream.name][trial.index] = self._observed(trial)
        return True

    def affords(self, stream: Stream, amount: float) -> bool:
        """Whether ``amount`` is left, besides what trials may still cost that the sampler has not been told of."""
        ledger, aside = self.comparison.ledger, 0.0
        if ledger.unit.planned:
            untold = self.untold[stream.name]
            aside = sum(max(0.0, one.needed - ledger.spent_on(one.trial.name)) for one in untold)
        return ledger.affords(stream.name, amount + aside)

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
