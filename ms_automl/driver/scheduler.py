"""What runs next: the next trial of any run that is free and can pay; then the retrainings."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from ms_automl.comparison.events import Entry
from ms_automl.comparison.run import FIXED, Assignment, Report, Run, Start, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.driver.progress import RunProgress, RunQueue, new_trial, suggestion_of
from ms_automl.samplers.base import DONE, WAIT, Answer, Sampler

PlannedPasses = Callable[[Suggestion, int], Mapping[str, float]]
"""Gives the passes of a whole trial, by kind, for what is suggested and a seed."""

FRESH = 1_000_000
"""Training seeds of retrainings begin here: no comparison numbers its own seeds so high."""


class Scheduler:
    """Hands out trials, and hears of them until they have ended: :meth:`next`, :meth:`report`, :meth:`end`.

    What is handed out depends on the order in which trials end only where a run waits for its dense reference.
    Where the unit of the budget is planned, no trial starts that cannot finish. Each arm's selected λ is trained
    ``retrain`` times again, on fresh seeds and charged to nobody; one that loses its process goes on in another up
    to ``retries`` times. Without ``models`` trials store none.
    """

    def __init__(
        self,
        comparison: Comparison,
        make_sampler: Callable[[Run], Sampler],
        planned_passes: PlannedPasses,
        reports: int,
        retrain: int = 0,
        retries: int = 0,
        concurrency: int = 1,
        models: bool = True,
    ) -> None:
        self.comparison, self.planned_passes, self.reports = comparison, planned_passes, reports
        self.retrain, self.retries, self.concurrency, self.models = retrain, retries, concurrency, models
        self.progress = {
            name: RunProgress(run, make_sampler, comparison, concurrency) for name, run in comparison.runs.items()
        }
        self.running: dict[str, Run] = {}  # by trial
        self.interrupted: list[Trial] = []
        self._retrainings: dict[str, Entry] = {}  # by name, of those that were to run: the states they have left

    @cached_property
    def _queue(self) -> RunQueue:  # made when the first trial is asked for: what is restored counts
        return RunQueue(self.comparison.runs.values())

    def next(self, trial_id: str) -> Assignment | Answer:
        """The next trial, under this id; WAIT while every open run is busy, DONE after the last."""
        if self.interrupted:
            trial = self.interrupted.pop(0)
            self.comparison.reassigned(trial, trial_id)
            return self._assignment(trial)  # from its last state where it has left one
        assignment = self._first_free(trial_id) or self._first_retraining(trial_id)
        if assignment is not None:
            return assignment
        # While one runs, its process may be lost: nobody would ask again after DONE.
        return WAIT if self._queue.open or self.running else DONE

    def _first_free(self, trial_id: str) -> Assignment | None:
        assignment, asked = None, []
        while assignment is None and (run := self._queue.pop()) is not None:
            if self._waits_for_reference(run):  # which puts it back when it ends
                continue
            progress = self.progress[run.name]
            assignment = self._next_of(progress, trial_id)
            progress.observe_ended()
            # One that has trials running is asked again when another of them has ended.
            if not progress.pending or (assignment is not None and progress.may_ask):
                asked.append(run)
        for run in asked:
            self._queue.push(run)
        return assignment

    def _first_retraining(self, trial_id: str) -> Assignment | None:
        closed = self._queue.closed
        while closed and not self._retrains(closed[0][1]):
            heapq.heappop(closed)
        return self._retraining(closed[0][1], trial_id) if closed else None

    def _waits_for_reference(self, run: Run) -> bool:
        reference = self.comparison.reference_runs.get(run.seed)
        if reference is None or run.is_reference or run.seed in self.comparison.judge.references:
            return False
        return not reference.closed

    def _next_of(self, progress: RunProgress, trial_id: str) -> Assignment | None:
        """A run's next trial; where its sampler suggests none yet, it observes more of the ended trials."""
        while True:
            assignment = self._ask(progress, trial_id) if progress.may_ask else None
            if assignment is not None or not progress.observe_next():
                return assignment

    def _ask(self, progress: RunProgress, trial_id: str) -> Assignment | None:
        run, begun = progress.run, self.comparison.ledger.spent_on(progress.next_name)
        over = self._over(progress, begun)
        if over is not None:
            progress.close(over)
            return None
        suggestion = progress.ask()
        if suggestion is DONE:
            progress.close()
        if isinstance(suggestion, Answer):
            return None
        needed, origin = self._needed(run, suggestion), _origin(run, suggestion.start)
        affords = progress.affords(needed - begun)
        if not affords:
            progress.close()
        if not affords or (origin is not None and origin.checkpoint is None):  # still being written
            progress.waiting = suggestion
            return None
        return self._assign(self._trial(progress, trial_id, suggestion), needed)

    def _over(self, progress: RunProgress, begun: float) -> str | None:
        """Why a run has no further trial, '' where it cannot pay for one; None where it may have one."""
        run = progress.run
        if not run.is_reference and (trouble := self.comparison.judge.trouble(run.seed)) is not None:
            return trouble
        if progress.failed >= run.planned_trials:
            return "gave up"  # the budget alone would allow endlessly many
        least = progress.sampler.least
        if least:
            least *= self.comparison.ledger.unit.total(self.planned_passes(FIXED, run.seed))
        return None if progress.affords(least - begun) else ""

    def _trial(self, progress: RunProgress, trial_id: str, suggestion: Suggestion) -> Trial:
        trial, start = new_trial(trial_id, progress.run, len(progress.run.trials), suggestion), suggestion.start
        trial.known = progress.known
        trial.rungs = progress.sampler.rungs if suggestion.until is None else (suggestion.until,)
        if (origin := _origin(progress.run, start)) is not None and start is not None and start.what == "state":
            trial.at_rungs = {origin.reports: origin.metrics["val/objective"]}
        return trial

    def _needed(self, run: Run, suggestion: Suggestion) -> float:
        """What a suggested trial costs, in the budget's unit."""
        whole = self.comparison.ledger.unit.total(self.planned_passes(suggestion, run.seed))
        if suggestion.until is not None:
            return whole * suggestion.share
        if suggestion.start is None or suggestion.start.what != "state":
            return whole
        return whole - self.comparison.ledger.spent_on(suggestion.start.trial)

    def _retrains(self, run: Run) -> bool:
        wanted = not run.is_reference and run.best is not None and run.best.status == Status.FINISHED
        return wanted and len(run.retrained) < self.retrain

    def _retraining(self, run: Run, trial_id: str) -> Assignment:
        best, used = run.best, {trial.index for trial in run.retrained}
        assert best is not None
        index = next(number for number in range(self.retrain) if number not in used)
        suggestion = Suggestion(best.method, best.params, best.values)
        trial = new_trial(trial_id, run, index, suggestion)
        trial.training_seed = FRESH + 1000 * run.seed + index
        return self._assign(trial, before=self._retrainings.pop(trial.name, None))

    def _assign(self, trial: Trial, needed: float = 0.0, before: Entry | None = None) -> Assignment:
        """Register a trial; what its process is built from."""
        comparison = self.comparison
        comparison.register(trial)
        if trial.training_seed is None:
            self.progress[trial.run].add(trial, needed)
        trial.attempt = comparison.ledger.attempts(trial.name)
        if trial.attempt > 0:
            comparison.charge_interrupted(trial, self._interval(trial))
        if before is not None and (before.trial.method, before.trial.values) == (trial.method, trial.values):
            comparison.carry_over(trial, before.trial)
        comparison.suggested(trial)
        return self._assignment(trial)

    def _assignment(self, trial: Trial) -> Assignment:
        run, suggestion = self.comparison.runs[trial.run], suggestion_of(trial)
        self.running[trial.id] = run
        start, origin = None, _origin(run, suggestion.start)
        if suggestion.start is not None and origin is not None and origin.checkpoint is not None:
            start = (suggestion.start.what, origin.checkpoint)
        reference = self.comparison.judge.reference(run.seed)
        return Assignment(suggestion, run.seed, reference, trial.training_seed, start, trial.states)

    def started(self, trial_id: str) -> None:
        """A trial has its device; may be called twice."""
        if self.comparison.trials[trial_id].last_seen is None:
            self.comparison.started(trial_id)

    def silence(self, trial_id: str) -> float:
        """Seconds since a trial that has a process gave a sign of life; 0 for any other."""
        last_seen = self.comparison.trials[trial_id].last_seen if trial_id in self.running else None
        return 0.0 if last_seen is None else self.comparison.clock() - last_seen

    def stored(self, trial_id: str, place: str) -> tuple[str, ...]:
        """A trial's model, or the state it goes on from, lies at a place; what nobody needs any more."""
        return self.comparison.stored(trial_id, place)

    def report(self, trial_id: str, report: Report) -> bool:
        """Charge and judge a report; True where the trial is to be stopped. The same one again changes nothing."""
        trial = self.comparison.trials[trial_id]
        if trial.status != Status.RUNNING:
            # What it repeats for the sake of its model leads to where it was stopped.
            self.comparison.repeated(trial, report)
            return trial.status == Status.STOPPED and report.interval >= trial.reports - 1
        news = self.comparison.report(trial_id, report)
        if trial.status != Status.RUNNING or not report.metrics or not news:
            return False
        reason = self._stops(trial)
        if reason:
            self.comparison.stopped(trial_id, reason)
        return bool(reason)

    def _stops(self, trial: Trial) -> str:
        """Why a trial stops at the report that it has just made; '' where it goes on."""
        ledger = self.comparison.ledger
        if trial.training_seed is not None:
            return ""
        if trial.until is not None and trial.reports >= trial.until:
            return f"stopped at report {trial.reports}, where the candidates are compared"
        if not ledger.unit.planned and ledger.totals(trial.run).spent >= ledger.limit(trial.run):
            return f"stopped at report {trial.reports}: the budget is spent"
        if self.progress[trial.run].stops(trial):
            return f"stopped at report {trial.reports}: others were better there"
        return ""

    def end(self, trial_id: str, report: Report | None = None, lost: str | None = None) -> None:
        """A trial's process has come to its end with a last report, or is lost: the trial may go on in another."""
        trial, run = self.comparison.trials[trial_id], self.running.pop(trial_id)
        if lost is not None and trial.interruptions < self.retries and self._needs_process(trial):
            self.interrupted.append(self.comparison.interrupted(trial_id, self._interval(trial)))
            return  # its run goes on with nothing else
        if lost is not None:
            self.give_up(trial_id, lost)
        elif report is not None:
            self.report(trial_id, report)
        if trial.training_seed is not None:
            return
        for other in self.comparison.runs.values() if run.is_reference else (run,):
            if other.seed == run.seed:
                self._queue.push(other)
        self.comparison.set_limits(run)
        self.progress[run.name].end(trial)

    def _needs_process(self, trial: Trial) -> bool:
        """Whether a trial has not ended, or has not stored its model yet."""
        if trial.status == Status.RUNNING:
            return True
        return self.models and trial.status in (Status.FINISHED, Status.STOPPED) and trial.checkpoint is None

    def give_up(self, trial_id: str, why: str) -> None:
        """End a trial whose process is lost or is to be stopped, and charge the interval that it was in."""
        self.comparison.failed(trial_id, why, self._interval(self.comparison.trials[trial_id]))

    def _interval(self, trial: Trial) -> float:
        """Passes between two reports of a trial."""
        seed = self.comparison.runs[trial.run].seed
        return sum(self.planned_passes(suggestion_of(trial), seed).values()) / self.reports

    def resume(self, ended: Sequence[Entry], pending: Mapping[str, Entry]) -> None:
        """Take over what an earlier process did: the next suggestions are those that would have come.

        Trials that were ``pending``, by name, are handed out first, from the states they left.
        """
        ended_entries = {entry.trial.name: entry for entry in ended}
        for progress in self.progress.values():
            while (entry := ended_entries.get(progress.next_name) or pending.get(progress.next_name)) is not None:
                self._resume(progress, entry, entry.trial.name in ended_entries)
        for entry in ended:
            if entry.trial.training_seed is not None:
                self.comparison.restore(entry.trial, entry.elapsed)
        self._retrainings = {
            name: entry for name, entry in pending.items() if entry.trial.training_seed is not None
        }

    def _resume(self, progress: RunProgress, entry: Entry, ended: bool) -> None:
        """Take over a run's next trial."""
        run, trial, suggestion = progress.run, entry.trial, suggestion_of(entry.trial)
        progress.observe_ended()
        while progress.known < trial.known and progress.observe_next():
            pass
        needed = self._needed(run, suggestion)
        if ended:
            self.comparison.restore(trial, entry.elapsed)
            progress.add(trial, needed, ended=True)
            self.comparison.set_limits(run)
            return
        trial = self._trial(progress, f"left/{trial.name}", suggestion)
        self._assign(trial, needed, entry)
        del self.running[trial.id]
        self.interrupted.append(trial)


def _origin(run: Run, start: Start | None) -> Trial | None:
    """The trial that another one begins from."""
    return None if start is None else next(trial for trial in run.trials if trial.name == start.trial)
