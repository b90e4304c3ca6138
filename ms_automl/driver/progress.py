"""One run on its way: what its sampler may know, and what its trials may still cost."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass

from ms_automl.comparison.run import Run, Start, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.samplers.base import Answer, Observation, Result, Sampler


@dataclass
class Pending:
    """A trial whose end its sampler does not know yet.

    Attributes:
        trial: the trial.
        needed: what was set aside for it, in the budget's unit.
        ended: whether it has ended, its model stored.
    """

    trial: Trial
    needed: float
    ended: bool = False


class RunProgress:
    """A run's trials as its sampler knows them, so that it does not matter which of several at a time ends first.

    With ``concurrency`` = k the sampler is asked for its n-th trial once those to n - k have ended, and knows of
    these, in their order, and of no later one; what the trials in between may still cost is set aside.

    Args:
        run: the run.
        sampler: of its arm.
        comparison: whose ledger and objective it is about.
        concurrency: trials that may run at a time; of a sampler whose trials build on each other only one may.

    Attributes:
        observations: what the sampler is given.
        pending: the trials whose ends it does not know, a last part of them.
        failed: how many of those that it knows have failed.
        waiting: what was suggested, but waits for the checkpoint it starts from, or for what others cost.
    """

    def __init__(self, run: Run, sampler: Sampler, comparison: Comparison, concurrency: int) -> None:
        self.run = run
        self.sampler = sampler
        self.comparison = comparison
        self.concurrency = 1 if sampler.sequential else concurrency
        self.observations: list[Observation] = []
        self.pending: deque[Pending] = deque()
        self.failed = 0
        self.waiting: Suggestion | None = None

    @property
    def next_name(self) -> str:
        """Name of the next trial."""
        return f"{self.run.name}/{len(self.run.trials):02d}"

    @property
    def known(self) -> int:
        """How many ends the sampler knows."""
        return len(self.run.trials) - len(self.pending)

    @property
    def may_ask(self) -> bool:
        """Whether one more trial may run with what the sampler knows."""
        return len(self.pending) < self.concurrency

    def ask(self) -> Suggestion | Answer:
        """The next trial to run, or why there is none."""
        if self.waiting is not None:
            suggestion, self.waiting = self.waiting, None
            return suggestion
        began = time.perf_counter()
        answer = self.sampler.ask(self.observations)
        if not isinstance(answer, Answer):
            self.comparison.charge_sampler(self.run, self.next_name, "suggest", time.perf_counter() - began)
        return answer

    def stops(self, trial: Trial) -> bool:
        """Whether the sampler stops a trial at the report that it has just made."""
        if not self.sampler.stops_trials:
            return False
        return self.sampler.stops(self.observations, trial.index, trial.reports, trial.metrics["val/objective"])

    def add(self, trial: Trial, needed: float, *, ended: bool = False) -> None:
        """Take in a trial that was suggested; one that had ended before this process began is written down."""
        self.observations.append(Observation(trial.name, suggestion_of(trial), trial.known))
        self.pending.append(Pending(trial, needed, ended))
        if ended:
            self.sampler.record(self._observed(trial))

    def end(self, trial: Trial) -> None:
        """Take in that a trial has ended, its model stored."""
        next(pending for pending in self.pending if pending.trial is trial).ended = True
        began = time.perf_counter()
        self.sampler.record(self._observed(trial))
        self.comparison.charge_sampler(self.run, trial.name, "record", time.perf_counter() - began)
        self.observe_ended()

    def observe_ended(self) -> None:
        """Have the sampler observe ended trials until one more may run, or none is left that has ended."""
        while not self.may_ask and self.observe_next():
            pass

    def observe_next(self) -> bool:
        """Have the sampler observe the end of the first trial that it has not; False where it has not ended."""
        if not self.pending or not self.pending[0].ended:
            return False
        trial = self.pending.popleft().trial
        self.failed += trial.status == Status.FAILED
        self.observations[trial.index] = self._observed(trial)
        return True

    def affords(self, amount: float) -> bool:
        """Whether ``amount`` is left, besides what trials may still cost whose ends are not known."""
        ledger, aside = self.comparison.ledger, 0.0
        if ledger.unit.planned:
            aside = sum(max(0.0, pending.needed - ledger.spent_on(pending.trial.name)) for pending in self.pending)
        return ledger.affords(self.run.name, amount + aside)

    def close(self, note: str = "") -> None:
        """Close the run, unless trials are pending: they may turn out cheaper than was set aside."""
        if not self.pending:
            self.run.closed, self.run.note = True, note or self.run.note

    def _observed(self, trial: Trial) -> Observation:
        """The observation of a trial that has ended."""
        result = None
        if trial.status in (Status.FINISHED, Status.STOPPED) and "val/objective" in trial.metrics:
            violation = self.comparison.judge.objective.violation(trial.metrics["density"])
            stopped = trial.status == Status.STOPPED
            result = Result(trial.metrics["val/objective"], violation, trial.schedule, stopped)
        at_rungs = dict(trial.at_rungs)
        return Observation(trial.name, suggestion_of(trial), trial.known, True, result, at_rungs)


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
        title=trial.title,
        about=trial.about,
    )


def new_trial(trial_id: str, run: Run, index: int, suggestion: Suggestion) -> Trial:
    """The trial of a suggestion."""
    trial = Trial(trial_id, run.name, index, suggestion.method, suggestion.values, suggestion.params)
    trial.until, trial.share, trial.profile = suggestion.until, suggestion.share, suggestion.profile
    trial.title, trial.about = suggestion.title, suggestion.about
    trial.start = None if suggestion.start is None else asdict(suggestion.start)
    return trial
