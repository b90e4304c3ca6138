"""A comparison without training: its real runs, samplers, scheduler and ledger, on a virtual clock.

Trials are events on a heap: what one takes and costs is what a real one would, what comes out of it is made up. So
a simulation says in seconds how many trials a comparison has, what they cost, and how long they keep slots busy.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from ms_automl.comparison.events import EventLog, Replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.registry import METHODS
from ms_automl.comparison.run import Report, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.driver.assembly import assemble, planned_passes
from ms_automl.driver.scheduler import Scheduler
from ms_automl.driver.script import Passes, Script
from ms_automl.samplers.base import Answer


class Clock:
    """A clock whose seconds pass only when something happens.

    Attributes:
        now: seconds since the start; what a call returns.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds since the start."""
        return self.now


class Durations(Protocol):
    """How long trials take."""

    def startup(self, trial: Trial) -> float:
        """Seconds from the grant of a device to the first step."""

    def interval(self, trial: Trial, passes: Passes) -> float:
        """Seconds of a report interval that makes these passes."""


class Reports(Protocol):
    """What trials report.

    Attributes:
        reports: how many a whole trial makes.
    """

    @property
    def reports(self) -> int: ...  # noqa: D102 - above

    def passes(self, trial: Trial, interval: int) -> dict[str, float]:
        """Passes by kind of a report interval 0, 1, … of a whole trial."""

    def metrics(self, trial: Trial, interval: int) -> dict[str, float]:
        """The metrics that a trial gives at the end of an interval."""

    def learned(self) -> dict[str, Any]:
        """The λ that a trial that learns it ends with."""


@dataclass
class Share:
    """What a part of a comparison runs and costs.

    Attributes:
        trials: that belong to the search, those that are stopped on the way included.
        stopped: of these, by their arm or their budget.
        retrainings: of selected models.
        passes: of trials and retrainings.
        device_seconds: of trials and retrainings.
        spent: on trials and retrainings, in the budget's unit.
    """

    trials: int = 0
    stopped: int = 0
    retrainings: int = 0
    passes: float = 0.0
    device_seconds: float = 0.0
    spent: float = 0.0

    def add(self, other: Share) -> None:
        """Count another part in."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))


@dataclass
class Outcome:
    """What a simulation came to.

    Attributes:
        arms: by name; trials of an earlier process are not in it.
        seconds: from the first trial's start to the last one's end.
        concurrency: most trials at a time.
        searcher_seconds: that samplers really took.
        stopping: the arms whose samplers stop trials on the way.
    """

    arms: dict[str, Share] = field(default_factory=dict)
    seconds: float = 0.0
    concurrency: int = 0
    searcher_seconds: float = 0.0
    stopping: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Share:
        """All arms together; its device seconds are those that slots were busy for."""
        total = Share()
        for share in self.arms.values():
            total.add(share)
        return total


class Simulation:
    """Runs what a scheduler hands out, without Ray and without training.

    Args:
        comparison: told of every trial and report; its clock is ``clock``.
        scheduler: of its runs.
        script: what trials report.
        durations: how long they take.
        clock: is set forward.
        slots: trials at a time; None for as many as there are.
    """

    def __init__(
        self,
        comparison: Comparison,
        scheduler: Scheduler,
        script: Reports,
        durations: Durations,
        clock: Clock,
        slots: int | None,
    ) -> None:
        self.comparison = comparison
        self.scheduler = scheduler
        self.script = script
        self.durations = durations
        self.clock = clock
        self.slots = math.inf if slots is None else slots
        self.outcome = Outcome({run.arm: Share() for run in comparison.runs.values()})
        self._events: list[tuple[float, int, str, Report]] = []
        self._numbers = itertools.count()

    def run(self) -> Outcome:
        """Run everything that is suggested, to its end."""
        began, searched = self.clock.now, self._searched()
        self._fill()
        while self._events:
            self.clock.now, _, trial_id, report = heapq.heappop(self._events)
            if self.scheduler.report(trial_id, report) or report.done:
                self._end(trial_id, report)
            else:
                self._go_on(trial_id)
            self._fill()  # after every event, as Tune asks
        assert all(run.closed for run in self.comparison.runs.values())
        self.outcome.seconds = self.clock.now - began
        self.outcome.searcher_seconds = self._searched() - searched
        return self.outcome

    def _searched(self) -> float:
        ledger = self.comparison.ledger
        return sum(ledger.totals(name).searcher_seconds for name in self.comparison.runs)

    def _fill(self) -> None:
        while len(self._events) < self.slots:
            trial_id = f"simulated-{next(self._numbers)}"
            if isinstance(self.scheduler.next(trial_id), Answer):
                return
            self.comparison.started(trial_id)
            self._go_on(trial_id)
            self.outcome.concurrency = max(self.outcome.concurrency, len(self._events))

    def _go_on(self, trial_id: str) -> None:
        """Schedule the next report of a trial."""
        report = self.report_of(trial_id, self.comparison.trials[trial_id].reports)
        time = self.clock.now + report.device_seconds
        heapq.heappush(self._events, (time, next(self._numbers), trial_id, report))

    def report_of(self, trial_id: str, number: int) -> Report:
        """The report 0, 1, … that a trial makes."""
        trial = self.comparison.trials[trial_id]
        interval = self.begins(trial) + number
        passes = self.script.passes(trial, interval)
        busy = self.durations.interval(trial, passes)
        done = interval == self.script.reports - 1
        return Report(
            interval=number,
            metrics=self.script.metrics(trial, interval),
            passes=passes,
            device_seconds=busy + (self.durations.startup(trial) if number == 0 else 0.0),
            busy_seconds=busy,
            evaluation_seconds=busy * passes["forward"] / sum(passes.values()),
            done=done,
            schedule=self.script.learned() if done and METHODS[trial.method].learns_lambda else None,
        )

    def begins(self, trial: Trial) -> int:
        """The interval that a trial begins with: not the first where it goes on from another's state."""
        if trial.start is None or trial.start["what"] != "state":
            return 0
        others = self.comparison.runs[trial.run].trials
        return next(other.reports for other in others if other.name == trial.start["trial"])

    def _end(self, trial_id: str, report: Report) -> None:
        self.scheduler.end(trial_id, report)
        trial = self.comparison.trials[trial_id]
        retraining = trial.training_seed is not None
        self.comparison.stored(trial_id, trial_id)
        self.outcome.arms[self.comparison.runs[trial.run].arm].add(
            Share(
                trials=int(not retraining),
                stopped=int(trial.status == Status.STOPPED),
                retrainings=int(retraining),
                passes=trial.passes,
                device_seconds=trial.device_seconds,
                spent=self.comparison.ledger.spent_on(trial.name),
            )
        )


def simulate(
    experiment: Experiment,
    durations: Durations,
    slots: int | None,
    folder: Path,
    replayed: Replay | None = None,
) -> tuple[Comparison, Outcome]:
    """Simulate a comparison; every seed is taken to have as many samples as the first.

    Args:
        experiment: what trials would be built from.
        durations: how long they take.
        slots: trials at a time; None for as many as there are.
        folder: of the log.
        replayed: what an earlier process has done; None of a comparison that begins.
    """
    config, clock = experiment.config, Clock()
    planned = planned_passes(experiment)
    comparison, scheduler = assemble(
        experiment,
        EventLog(folder),
        replayed,
        clock=clock,
        planned=lambda suggestion, _: planned(suggestion, config.first_seed),
    )
    script = Script(
        config.training,
        experiment.data(config.first_seed),
        experiment.layers(experiment.network(config.first_seed)),
        (config.lambda_.low, config.lambda_.high),
        lambda method: planned(Suggestion(method, {}, {}), config.first_seed),
    )
    outcome = Simulation(comparison, scheduler, script, durations, clock, slots).run()
    arms = (progress.run.arm for progress in scheduler.progress.values() if progress.sampler.stops_trials)
    outcome.stopping = list(dict.fromkeys(arms))
    return comparison, outcome
