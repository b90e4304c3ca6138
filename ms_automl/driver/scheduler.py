"""What runs next: the next trial of any run that is free and can pay; then the retrainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ms_automl.comparison.events import Entry
from ms_automl.comparison.run import Assignment, Report, Run, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.driver.progress import RunProgress, new_trial, suggestion_of
from ms_automl.driver.queue import RunQueue
from ms_automl.samplers.base import DONE, WAIT, Answer, Sampler

PlannedPasses = Callable[[Suggestion, int], Mapping[str, float]]
"""Gives the passes of a whole trial, by kind, for what is suggested and a seed."""

FIXED_LAMBDA = Suggestion("fixed_lambda", {}, {})
"""What the cost of any other trial is a share of; every λ costs the same."""

FRESH = 1_000_000
"""Training seeds of retrainings begin here: no comparison numbers its own seeds so high."""


class Scheduler:
    """Hands out trials, and hears of them until they have ended: :meth:`next`, :meth:`report`, :meth:`end`.

    Whoever runs the trials calls ``next`` for a slot that is free, ``started`` when a trial has its device,
    ``report`` for each of its reports, ``stored`` when its model or a state lies somewhere, and ``end`` when its
    process has come to its end or is lost. What is handed out depends on the order in which trials end only where
    a run waits for its dense reference.

    Args:
        comparison: told of every trial and report.
        samplers: by run.
        planned_passes: what a suggested trial costs; where the unit allows it, no trial starts that cannot finish.
        reports: of a whole trial.
        retrain: how often each arm's selected λ is trained again, on fresh seeds and charged to nobody.
        retries: how often a trial goes on in another process when the one it runs in is lost.
        concurrency: trials of a run that may run at a time (:class:`~ms_automl.driver.progress.RunProgress`).
        models: whether trials store their models.
    """

    def __init__(
        self,
        comparison: Comparison,
        samplers: Mapping[str, Sampler],
        planned_passes: PlannedPasses,
        reports: int,
        retrain: int = 0,
        retries: int = 0,
        concurrency: int = 1,
        models: bool = True,
    ) -> None:
        self.comparison = comparison
        self.planned_passes = planned_passes
        self.reports = reports
        self.retrain = retrain
        self.retries = retries
        self.concurrency = concurrency
        self.models = models
        self.progress = {
            name: RunProgress(run, samplers[name], comparison, concurrency)
            for name, run in comparison.runs.items()
        }
        self.running: dict[str, Run] = {}  # by trial
        self.interrupted: list[Trial] = []
        self._assignments: dict[str, Assignment] = {}  # by name, of the trials that run or are interrupted
        self._retrainings: dict[str, Entry] = {}  # by name, of those that were to run: the states they have left
        self._queue: RunQueue | None = None

    def next(self, trial_id: str) -> Assignment | Answer:
        """The next trial; WAIT while every open run is busy, DONE after the last.

        Args:
            trial_id: what the trial is to be called in the calls that follow.
        """
        if self.interrupted:
            return self._goes_on(self.interrupted.pop(0), trial_id)
        if self._queue is None:  # not before: what is restored counts
            self._queue = RunQueue(self.comparison.runs.values())
        assignment = self._first_free(self._queue, trial_id) or self._first_retraining(self._queue, trial_id)
        if assignment is not None:
            return assignment
        # While one runs, its process may be lost: nobody would ask again after DONE.
        return WAIT if self._queue.open or self.running else DONE

    def _first_free(self, queue: RunQueue, trial_id: str) -> Assignment | None:
        assignment, asked = None, []
        while assignment is None and (run := queue.pop()) is not None:
            if self._waits_for_reference(run):
                queue.park(run)
                continue
            progress = self.progress[run.name]
            assignment = self._next_of(progress, trial_id)
            progress.observe_ended()
            # One that has trials running is asked again when another of them has ended.
            if not progress.pending or (assignment is not None and progress.may_ask):
                asked.append(run)
        for run in asked:
            queue.push(run)
        return assignment

    def _first_retraining(self, queue: RunQueue, trial_id: str) -> Assignment | None:
        while (run := queue.first_closed()) is not None:
            if self._retrains(run):
                return self._retraining(run, trial_id)
            queue.drop_closed()
        return None

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
        needed, origin = self._needed(run, suggestion), _origin(run, suggestion)
        affords = progress.affords(needed - begun)
        if not affords:
            progress.close()
        if not affords or (origin is not None and origin.checkpoint is None):  # still being written
            progress.waiting = suggestion
            return None
        return self._assign(self._trial(progress, trial_id, suggestion, origin), suggestion, origin, needed)

    def _over(self, progress: RunProgress, begun: float) -> str | None:
        """Why a run has no further trial, '' where it cannot pay for one; None where it may have one."""
        run = progress.run
        if not run.is_reference and (trouble := self.comparison.judge.trouble(run.seed)) is not None:
            return trouble
        if progress.failed >= run.planned_trials:
            return "gave up"  # the budget alone would allow endlessly many
        least = progress.sampler.least
        if least:
            least *= self.comparison.ledger.unit.total(self.planned_passes(FIXED_LAMBDA, run.seed))
        return None if progress.affords(least - begun) else ""

    def _trial(self, progress: RunProgress, trial_id: str, suggestion: Suggestion, origin: Trial | None) -> Trial:
        run = progress.run
        trial = new_trial(trial_id, run, len(run.trials), suggestion)
        trial.known = progress.known
        trial.rungs = progress.sampler.rungs if suggestion.until is None else (suggestion.until,)
        if origin is not None and suggestion.start is not None and suggestion.start.what == "state":
            trial.at_rungs = {origin.reports: origin.metrics["val/objective"]}
        return trial

    def _needed(self, run: Run, suggestion: Suggestion) -> float:
        """What a suggested trial costs, in the budget's unit."""
        whole = self.comparison.ledger.unit.total(self.planned_passes(suggestion, run.seed))
        if suggestion.until is not None:
            return whole * suggestion.share
        origin = _origin(run, suggestion)
        if origin is None or suggestion.start is None or suggestion.start.what != "state":
            return whole
        return whole - self.comparison.ledger.spent_on(origin.name)

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
        return self._assign(trial, suggestion, before=self._retrainings.pop(trial.name, None))

    def _assign(
        self,
        trial: Trial,
        suggestion: Suggestion,
        origin: Trial | None = None,
        needed: float = 0.0,
        before: Entry | None = None,
    ) -> Assignment:
        """Register a trial; what its process is built from."""
        run = self.comparison.runs[trial.run]
        self.comparison.register(trial)
        self.running[trial.id] = run
        if trial.training_seed is None:
            self.progress[run.name].add(trial, needed)
        trial.attempt = self.comparison.ledger.attempts(trial.name)
        if trial.attempt > 0:
            self.comparison.charge_interrupted(trial, self._interval(trial))
        if before is not None and (before.trial.method, before.trial.values) == (trial.method, trial.values):
            self.comparison.carry_over(trial, before.trial)
        self.comparison.suggested(trial)
        start = None
        if origin is not None and origin.checkpoint is not None and suggestion.start is not None:
            start = (suggestion.start.what, origin.checkpoint)
        self._assignments[trial.name] = Assignment(
            suggestion,
            run.seed,
            self.comparison.judge.reference(run.seed),
            trial.training_seed,
            start,
            trial.states,
        )
        return self._assignments[trial.name]

    def _goes_on(self, trial: Trial, trial_id: str) -> Assignment:
        """An interrupted trial, from its last state where it has left one."""
        self.comparison.reassigned(trial, trial_id)
        self.running[trial_id] = self.comparison.runs[trial.run]
        return replace(self._assignments[trial.name], states=trial.states)

    def started(self, trial_id: str) -> None:
        """A trial has its device."""
        if self.comparison.trials[trial_id].last_seen is None:
            self.comparison.started(trial_id)

    def silence(self, trial_id: str) -> float:
        """Seconds since a trial that has a process gave a sign of life; 0 for any other."""
        if trial_id not in self.running:
            return 0.0
        last_seen = self.comparison.trials[trial_id].last_seen
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
        if trial.training_seed is not None:
            return ""
        if trial.until is not None and trial.reports >= trial.until:
            return f"stopped at report {trial.reports}, where the candidates are compared"
        ledger = self.comparison.ledger
        if not ledger.unit.planned and ledger.totals(trial.run).spent >= ledger.limit(trial.run):
            return f"stopped at report {trial.reports}: the budget is spent"
        if self.progress[trial.run].stops(trial):
            return f"stopped at report {trial.reports}: others were better there"
        return ""

    def end(self, trial_id: str, report: Report | None = None, lost: str | None = None) -> None:
        """A trial's process has come to its end, or is lost; a trial that lost one may go on in another.

        Args:
            trial_id: of the trial.
            report: the last one.
            lost: why the process is gone; None where it came to its end.
        """
        trial, run = self.comparison.trials[trial_id], self.running.pop(trial_id)
        if lost is not None and trial.interruptions < self.retries and self._needs_process(trial):
            self.interrupted.append(self.comparison.interrupted(trial_id, self._interval(trial)))
            return  # its run goes on with nothing else
        if self._queue is not None and trial.training_seed is None:
            self._queue.freed(run)
        if lost is not None:
            self.give_up(trial_id, lost)
        elif report is not None:
            self.report(trial_id, report)
        del self._assignments[trial.name]
        if trial.training_seed is not None:
            return
        self.comparison.set_limits(run)
        self.progress[run.name].end(trial)

    def _needs_process(self, trial: Trial) -> bool:
        """Whether a trial has not ended, or has not stored its model yet."""
        if trial.status == Status.RUNNING:
            return True
        return self.models and trial.status in (Status.FINISHED, Status.STOPPED) and trial.checkpoint is None

    def give_up(self, trial_id: str, why: str) -> None:
        """End a trial whose process is lost or was stopped, and charge the interval that it was in."""
        self.comparison.failed(trial_id, why, self._interval(self.comparison.trials[trial_id]))

    def _interval(self, trial: Trial) -> float:
        """Passes between two reports of a trial."""
        seed = self.comparison.runs[trial.run].seed
        return sum(self.planned_passes(suggestion_of(trial), seed).values()) / self.reports

    def resume(self, ended: Sequence[Entry], pending: Mapping[str, Entry]) -> None:
        """Take over what an earlier process did: the next suggestions are those that would have come.

        Args:
            ended: trials that ended.
            pending: by name, those that were to run; they are handed out first, from the states they left.
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
        origin = _origin(run, suggestion)
        trial = self._trial(progress, f"left/{trial.name}", suggestion, origin)
        self._assign(trial, suggestion, origin, needed, entry)
        del self.running[trial.id]
        self.interrupted.append(trial)


def _origin(run: Run, suggestion: Suggestion) -> Trial | None:
    """The trial that a suggested one begins from."""
    if suggestion.start is None:
        return None
    return next(trial for trial in run.trials if trial.name == suggestion.start.trial)
