"""Runs on their way: which is asked next, what its sampler may know, and what its trials may still cost."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ms_automl.comparison.run import Run, Start, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.samplers.base import Answer, Observation, Result, Sampler


class RunQueue:
    """Runs in the order of being asked for one trial more; what a call costs hardly grows with them.

    The dense references come first, then whoever is furthest from what its budget allows; ties go by order of
    definition, as do closed runs, which stand in line for their retrainings.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._numbers: dict[str, int] = {}
        self._free: list[tuple[bool, int, int, Run]] = []
        self._queued: set[str] = set()
        self.closed: list[tuple[int, Run]] = []  # a heap
        self.open = 0
        for number, run in enumerate(runs):
            self._numbers[run.name] = number
            self.open += 1
            self.push(run)

    def push(self, run: Run) -> None:
        """Put in a run that may run a trial more, or that is closed; one that is in it stays where it is."""
        if run.name in self._queued:
            return
        self._queued.add(run.name)
        number = self._numbers[run.name]
        if run.closed:
            self.open -= 1
            heapq.heappush(self.closed, (number, run))
        else:
            done = len(run.trials) - run.planned_trials
            heapq.heappush(self._free, (not run.is_reference, done, number, run))

    def pop(self) -> Run | None:
        """Take out the one that is asked next; None where there is none."""
        if not self._free:
            return None
        run = heapq.heappop(self._free)[-1]
        self._queued.remove(run.name)
        return run


@dataclass
class Pending:
    """A trial whose end its sampler does not know yet, and what was set aside for it, in the budget's unit."""

    trial: Trial
    needed: float
    ended: bool = False


class RunProgress:
    """A run's trials as its sampler knows them, so that it does not matter which of several at a time ends first.

    With ``concurrency`` = k the sampler is asked for its n-th trial once those to n - k have ended, and knows of
    these, in their order, and of no later one; what the trials in between may still cost is set aside. Of trials
    that build on each other only one runs at a time.
    """

    def __init__(
        self, run: Run, make_sampler: Callable[[Run], Sampler], comparison: Comparison, concurrency: int
    ) -> None:
        self.run, self.make_sampler, self.comparison = run, make_sampler, comparison
        self.trials_at_a_time = concurrency
        self.observations: list[Observation] = []  # what the sampler is given
        self.pending: deque[Pending] = deque()  # a last part of the trials
        self.failed = 0  # of those whose ends the sampler knows
        self.waiting: Suggestion | None = None  # for the checkpoint that it starts from, or for what others cost

    @cached_property
    def sampler(self) -> Sampler:
        """Made when it is first needed: by then the dense reference of its seed has ended."""
        return self.make_sampler(self.run)

    @property
    def concurrency(self) -> int:
        """How many of its trials run at a time."""
        return 1 if self.sampler.sequential else self.trials_at_a_time

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
        result = None
        if trial.status in (Status.FINISHED, Status.STOPPED) and "val/objective" in trial.metrics:
            violation = self.comparison.judge.objective.violation(trial.metrics["density"])
            stopped = trial.status == Status.STOPPED
            sparsity = trial.metrics.get("sparsity/param")
            result = Result(trial.metrics["val/objective"], violation, trial.schedule, stopped, sparsity)
        return Observation(trial.name, suggestion_of(trial), trial.known, True, result, dict(trial.at_rungs))


_SUGGESTED = ("method", "params", "values", "until", "share", "profile", "title", "about")


def suggestion_of(trial: Trial) -> Suggestion:
    """What a trial was suggested as."""
    parts: dict[str, Any] = {name: getattr(trial, name) for name in _SUGGESTED}
    start: Any = trial.start
    return Suggestion(**parts, start=None if start is None else Start(**start))


def new_trial(trial_id: str, run: Run, index: int, suggestion: Suggestion) -> Trial:
    """The trial of a suggestion."""
    parts: dict[str, Any] = {name: getattr(suggestion, name) for name in _SUGGESTED}
    start = None if suggestion.start is None else asdict(suggestion.start)
    return Trial(trial_id, run.name, index, **parts, start=start)
