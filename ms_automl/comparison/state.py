"""What has happened so far: trials, what they cost, and the rows of the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ms_automl.comparison.judge import Judge
from ms_automl.comparison.ledger import INTERRUPTED, Charge, Ledger
from ms_automl.comparison.run import Callback, Report, Run, Status, Trial

FORMAT = 1
STATES = 2
"""How many states of a running trial are kept: where the last one is damaged, it goes on from the one before."""
CARRIED_OVER = (
    *("metrics", "schedule", "warnings", "reports", "states", "passes", "device_seconds", "busy_seconds"),
    *("evaluation_seconds", "peak_memory", "host", "course"),
)
"""What a trial has reached and cost that goes on where another driver's stopped."""


class Comparison:
    """The state of a comparison: its runs, the dense references included, and what is told of them."""

    def __init__(
        self,
        judge: Judge,
        runs: Sequence[Run],
        ledger: Ledger,
        callbacks: Sequence[Callback] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.judge = judge
        self.runs = {run.name: run for run in runs}
        self.reference_runs = {run.seed: run for run in runs if run.is_reference}
        self.ledger = ledger
        self.callbacks = list(callbacks)
        self.clock = clock
        self.began = clock()
        self.first_start: float | None = None
        self.last_end: float | None = None
        self.busy_seconds = 0.0  # of this process, as the two before
        self.restored = 0
        self.trials: dict[str, Trial] = {}

    def register(self, trial: Trial) -> None:
        """Add a trial that was suggested to its run."""
        self.trials[trial.id] = trial
        run = self.runs[trial.run]
        (run.trials if trial.training_seed is None else run.retrained).append(trial)

    def suggested(self, trial: Trial) -> None:
        """A trial that is registered is complete: with the state that it goes on from, where there is one."""
        for callback in self.callbacks:
            callback.trial_suggested(self.runs[trial.run], trial)

    def started(self, trial_id: str) -> None:
        """A trial has its device; called again where another process goes on with it."""
        trial = self.trials[trial_id]
        trial.last_seen = self.clock()
        if trial.started is not None:
            return
        trial.started = trial.last_seen
        if self.first_start is None:
            self.first_start = trial.started
        for callback in self.callbacks:
            callback.trial_started(self.runs[trial.run], trial)

    def report(self, trial_id: str, report: Report) -> bool:
        """Charge and judge one report; the last one ends the trial.

        Whether it was news: not where it arrives again, which changes nothing, or where a trial that was
        interrupted does again what it had reported before.
        """
        trial = self.trials[trial_id]
        run = self.runs[trial.run]
        news = report.interval >= trial.reports
        if not self._charge(trial, report, news):
            return False
        trial.last_seen = self.clock()
        trial.reports = max(trial.reports, report.interval + 1)
        if report.metrics and news:
            trial.metrics = dict(report.metrics) | self.judge.judge(run, trial, report.metrics)
            trial.schedule, trial.warnings = report.schedule, report.warnings
            trial.metrics |= {
                "cost/passes": trial.passes,
                "cost/device_seconds": trial.device_seconds,
                "cost/training_seconds": trial.busy_seconds - trial.evaluation_seconds,
                "cost/evaluation_seconds": trial.evaluation_seconds,
                "cost/startup_seconds": trial.device_seconds - trial.busy_seconds,
                "cost/wall_seconds": self._running_for(trial),
                "cost/peak_memory_mb": trial.peak_memory,
            }
            if trial.reports in trial.rungs:
                trial.at_rungs[trial.reports] = trial.metrics["val/objective"]
            if trial.at_rungs:
                trial.metrics["rung/objective"] = trial.at_rungs[max(trial.at_rungs)]
            for callback in self.callbacks:
                callback.trial_reported(run, trial, trial.metrics)
        if report.done:
            self._end(trial, Status.FAILED if report.error else Status.FINISHED, report.error)
        return news

    def repeated(self, trial: Trial, report: Report) -> None:
        """Charge, and no more, what a trial does again after its end because its model was lost."""
        self._charge(trial, report, news=False)
        trial.last_seen = self.clock()

    def interrupted(self, trial_id: str, interval: float) -> Trial:
        """A trial's process was lost, and another is to go on; ``interval`` passes lie between two reports."""
        trial = self.trials[trial_id]
        if trial.status == Status.RUNNING:
            self._charge_begun(trial, INTERRUPTED, interval)
        trial.last_seen = None
        trial.interruptions += 1
        trial.attempt += 1
        return trial

    def charge_interrupted(self, trial: Trial, interval: float) -> None:
        """Charge what a trial that begins now had begun when the driver was lost: it is taken for half of one."""
        self.ledger.add(Charge(trial.payer, trial.name, trial.attempt - 1, 0, INTERRUPTED, interval / 2))

    def reassigned(self, trial: Trial, trial_id: str) -> None:
        """Hand an interrupted trial out again, under another id."""
        del self.trials[trial.id]
        trial.id = trial_id
        self.trials[trial_id] = trial

    def carry_over(self, trial: Trial, before: Trial) -> None:
        """Have a trial that was suggested anew go on as it was when it left its last state."""
        for name in CARRIED_OVER:
            setattr(trial, name, getattr(before, name))
        trial.at_rungs |= before.at_rungs

    def failed(self, trial_id: str, message: str, interval: float = 0.0) -> None:
        """A trial's process died; ``interval`` passes lie between two reports."""
        trial = self.trials[trial_id]
        if trial.status != Status.RUNNING:
            return
        for charge in self._charge_begun(trial, "lost", interval):
            trial.passes += charge.passes
            trial.device_seconds += charge.device_seconds
        self._end(trial, Status.FAILED, message)

    def _charge_begun(self, trial: Trial, kind: str, interval: float) -> list[Charge]:
        """Charge what a process that was lost had begun since its last report; nothing where it never came up."""
        if trial.last_seen is None:
            return []
        silence = self.clock() - trial.last_seen
        # As if it had been as fast as in the trial's intervals before; all of the first one.
        share = min(1.0, silence * trial.reports / trial.device_seconds) if trial.device_seconds else 1.0
        begun = trial.payer, trial.name, trial.attempt, trial.reports, kind
        return self.ledger.add(Charge(*begun, share * interval, silence))

    def stored(self, trial_id: str, place: str) -> tuple[str, ...]:
        """A trial's model, or the state it goes on from, lies at a place; the places that nobody needs now."""
        trial = self.trials[trial_id]
        states = trial.states
        if trial.status == Status.RUNNING:
            trial.states = (*states, place)[-STATES:]
        else:
            trial.checkpoint, trial.states = place, ()
        for callback in self.callbacks:
            callback.trial_stored(self.runs[trial.run], trial)
        return tuple(old for old in states if old not in trial.states)

    def stopped(self, trial_id: str, reason: str) -> None:
        """End a trial that its arm or its budget stops on the way: it is scored as it is."""
        trial = self.trials[trial_id]
        if trial.status == Status.RUNNING:
            self._end(trial, Status.STOPPED, reason)

    def charge_sampler(self, run: Run, trial: str, what: str, seconds: float) -> None:
        """Charge the time that a run's sampler took to ``suggest`` or ``record`` the trial of a name."""
        self.ledger.add(Charge(run.name, trial, 0, 0, f"searcher/{what}", 0.0, searcher_seconds=seconds))

    def set_limits(self, run: Run) -> None:
        """Set limits in a unit that is measured: multiples of what the dense reference took."""
        if not run.is_reference or self.ledger.unit.planned:
            return
        unit = self.ledger.totals(run.name).spent
        for other in self.runs.values():
            if other.seed == run.seed and other is not run:
                self.ledger.limits[other.name] = other.limit * unit

    def stop(self, status: Status, message: str) -> None:
        """End whatever still runs; runs that are not at their end say why."""
        for trial in list(self.trials.values()):
            if trial.status == Status.RUNNING:
                self._end(trial, status, message)
        for run in self.runs.values():
            if not run.closed:
                run.note = message

    def _charge(self, trial: Trial, report: Report, news: bool) -> bool:
        interval = trial.payer, trial.name, trial.attempt, report.interval
        charges = (
            Charge(*interval, kind, passes, report.device_seconds if kind == "train" else 0.0)
            for kind, passes in report.passes.items()
            if passes or kind == "train"
        )
        new = self.ledger.add(*charges)
        if new and news:
            trial.passes += sum(charge.passes for charge in new)
            trial.device_seconds += report.device_seconds
            trial.busy_seconds += report.busy_seconds
            self.busy_seconds += report.busy_seconds
            trial.evaluation_seconds += report.evaluation_seconds
            trial.peak_memory, trial.host = report.peak_memory, report.host
        return bool(new)

    def restore(self, trial: Trial, elapsed: float) -> None:
        """Take over a trial that ended before this process began, ``elapsed`` seconds after the comparison did."""
        self.register(trial)
        self.restored += trial.status == Status.FINISHED
        run = self.runs[trial.run]
        self.last_end = max(self.last_end or self.began, self.began + elapsed)
        self._settle(run, elapsed)

    def _end(self, trial: Trial, status: Status, error: str | None) -> None:
        run = self.runs[trial.run]
        if trial.started is None:  # its process never came up, yet it has a record
            self.started(trial.id)
        trial.status, trial.error = status, error
        self.last_end = self.clock()
        trial.seconds = self._running_for(trial)
        self._settle(run, self.last_end - self.began)
        for callback in self.callbacks:
            callback.trial_ended(run, trial)

    def _settle(self, run: Run, seconds: float) -> None:
        """Take in the trials that have ended since, in the order in which they were suggested."""
        while run.settled < len(run.trials) and run.trials[run.settled].status != Status.RUNNING:
            trial = run.trials[run.settled]
            run.settled += 1
            run.passes += trial.passes
            self.judge.select(run, trial, seconds)

    def _running_for(self, trial: Trial) -> float:
        return 0.0 if trial.started is None else self.clock() - trial.started

    @property
    def useful_share(self) -> float:
        """Busy seconds per second of this process's trials: divide by the slots for the useful share."""
        if self.first_start is None or self.last_end is None or self.last_end <= self.first_start:
            return 0.0
        return self.busy_seconds / (self.last_end - self.first_start)

    def row(self, run: Run) -> dict[str, Any]:
        """The run's row of comparison.json."""
        return self.judge.row(run, self.ledger)

    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order of the runs."""
        return [self.row(run) for run in self.runs.values()]
