"""The one searcher that Ray Tune sees: it hands out the next trial of any run that is free and can pay."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ray.tune.search import Searcher

from ms_automl.comparison.journal import Entry
from ms_automl.comparison.run import Report, Run, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.samplers.base import DONE, Answer, Sampler
from ms_automl.tuning.queue import RunQueue
from ms_automl.tuning.telling import Telling, suggestion_of
from ms_automl.tuning.trouble import LOST

Plan = Callable[[str, int], Mapping[str, float]]
"""From a method and a seed to the passes of a whole trial, by kind."""

FRESH = 1_000_000
"""Training seeds of retrainings begin here: no comparison numbers its own seeds so high."""


class RunRouter(Searcher):
    """Suggests the next trial of whichever run is free and can afford it; then the retrainings.

    Args:
        comparison: told of every trial and report.
        samplers: by run name.
        plan: what a trial of a method and seed costs; where the unit allows it, no trial starts that cannot
            finish.
        reports: of a whole trial.
        retrain: how often each arm's selected λ is trained again, on fresh seeds and charged to nobody.
        retries: how often a trial goes on in another process when the one it runs in is lost.
        at_a_time: trials of a run that may run at a time (:class:`~ms_automl.tuning.telling.Telling`).
    """

    def __init__(
        self,
        comparison: Comparison,
        samplers: Mapping[str, Sampler],
        plan: Plan,
        reports: int,
        retrain: int = 0,
        retries: int = 0,
        at_a_time: int = 1,
    ) -> None:
        super().__init__()
        self.comparison = comparison
        self.samplers = samplers
        self.plan = plan
        self.reports = reports
        self.retrain = retrain
        self.retries = retries
        self.telling = Telling(comparison, samplers, at_a_time)
        self._left: dict[str, Entry] = {}  # by name, of retrainings: the states they have left
        self._plans: dict[tuple[str, int], Mapping[str, float]] = {}
        self.running: dict[str, Run] = {}
        self.interrupted: list[Trial] = []
        self._why: dict[str, str] = {}  # by trial, of a process that is gone
        self._configs: dict[str, dict[str, Any]] = {}  # by name, of the trials that run or are interrupted
        self.waiting: dict[str, Suggestion] = {}  # by run: for the checkpoint it starts from, or for its costs
        self._queue: RunQueue | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while every open run is busy, FINISHED after the last."""
        if self.interrupted:
            return self._goes_on(self.interrupted.pop(0), trial_id)
        if self._queue is None:  # not before: what is restored counts
            self._queue = RunQueue(self.comparison.runs.values())
        config = self._first_free(self._queue, trial_id) or self._first_again(self._queue, trial_id)
        # While one runs, its process may be lost: Ray would not ask again after FINISHED.
        return config or (None if self._queue.open or self.running else Searcher.FINISHED)

    def _first_free(self, queue: RunQueue, trial_id: str) -> dict[str, Any] | None:
        config, asked = None, []
        while config is None and (run := queue.pop()) is not None:
            if self._waits_for_reference(run):
                queue.park(run)
                continue
            config = self._next(run, trial_id)
            self.telling.due(run)
            # One that has trials running is asked again when another of them has ended.
            if not self.telling.untold[run.name] or (config is not None and self.telling.room(run)):
                asked.append(run)
        for run in asked:
            queue.push(run)
        return config

    def _first_again(self, queue: RunQueue, trial_id: str) -> dict[str, Any] | None:
        while (run := queue.first_closed()) is not None:
            if self._retrains(run):
                return self._again(run, trial_id)
            queue.drop_closed()
        return None

    def _waits_for_reference(self, run: Run) -> bool:
        if run.is_reference or run.seed in self.comparison.references:
            return False
        return not self.comparison.reference_runs[run.seed].closed

    def _next(self, run: Run, trial_id: str) -> dict[str, Any] | None:
        """A run's next trial; where there is none with what its sampler knows, with what it then is told."""
        while True:
            config = self._with_what_is_told(run, trial_id) if self.telling.room(run) else None
            if config is not None or not self.telling.more(run):
                return config

    def _with_what_is_told(self, run: Run, trial_id: str) -> dict[str, Any] | None:
        if not run.is_reference and (trouble := self.comparison.trouble(run.seed)) is not None:
            return self._close(run, trouble)
        if self.telling.failed[run.name] >= run.planned_trials:
            return self._close(run, "gave up")  # the budget alone would allow endlessly many
        ledger = self.comparison.ledger
        begun = ledger.spent_on(_name(run))
        least = self.samplers[run.name].least * ledger.unit.total(self._planned("fixed_lambda", run.seed))
        if not self.telling.affords(run, least - begun):
            return self._close(run)
        suggestion = self._ask(run)
        if suggestion is None:
            return None
        needed = self._needed(run, suggestion)
        if not self.telling.affords(run, needed - begun):
            self.waiting[run.name] = suggestion
            return self._close(run)
        origin = self._origin(run, suggestion)
        if origin is not None and origin.checkpoint is None:  # still being written
            self.waiting[run.name] = suggestion
            return None
        return self._config(self._trial(run, trial_id, suggestion, origin), suggestion, origin, needed)

    def _trial(self, run: Run, trial_id: str, suggestion: Suggestion, origin: Trial | None) -> Trial:
        trial = _trial(trial_id, run, len(run.trials), suggestion)
        trial.told = self.telling.number(run)
        trial.rungs = self.samplers[run.name].rungs if suggestion.until is None else (suggestion.until,)
        if origin is not None and suggestion.start is not None and suggestion.start.what == "state":
            trial.at_rungs = {origin.reports: origin.metrics["val/objective"]}
        return trial

    def _close(self, run: Run, note: str = "") -> dict[str, Any] | None:
        """Nothing more is to run: for good, unless trials that run turn out cheaper than they may be."""
        if not self.telling.untold[run.name]:
            run.closed, run.note = True, note or run.note
        return None

    def _ask(self, run: Run) -> Suggestion | None:
        """What the run's sampler says; None where it says nothing yet, or nothing any more."""
        if run.name in self.waiting:
            return self.waiting.pop(run.name)
        name = _name(run)
        began = time.perf_counter()
        answer = self.samplers[run.name].ask(self.telling.observations[run.name])
        took = time.perf_counter() - began
        if answer is DONE:
            self._close(run)
        if isinstance(answer, Answer):
            return None
        self.comparison.searched(run, name, "suggest", took)
        return answer

    def _needed(self, run: Run, suggestion: Suggestion) -> float:
        """What a suggested trial costs, in the budget's unit."""
        whole = self.comparison.ledger.unit.total(self._planned(suggestion.method, run.seed))
        if suggestion.until is not None:
            return whole * suggestion.share
        origin = self._origin(run, suggestion)
        if origin is None or suggestion.start is None or suggestion.start.what != "state":
            return whole
        return whole - self.comparison.ledger.spent_on(origin.name)

    def _planned(self, method: str, seed: int) -> Mapping[str, float]:
        if (method, seed) not in self._plans:
            self._plans[method, seed] = self.plan(method, seed)
        return self._plans[method, seed]

    def _origin(self, run: Run, suggestion: Suggestion) -> Trial | None:
        if suggestion.start is None:
            return None
        return next(trial for trial in run.trials if trial.name == suggestion.start.trial)

    def _retrains(self, run: Run) -> bool:
        wanted = not run.is_reference and run.best is not None and run.best.status == Status.FINISHED
        return wanted and len(run.retrained) < self.retrain

    def _again(self, run: Run, trial_id: str) -> dict[str, Any]:
        best, there = run.best, {trial.index for trial in run.retrained}
        assert best is not None
        index = next(number for number in range(self.retrain) if number not in there)
        suggestion = Suggestion(best.method, best.params, best.values)
        trial = _trial(trial_id, run, index, suggestion)
        trial.training_seed = FRESH + 1000 * run.seed + index
        return self._config(trial, suggestion, before=self._left.pop(trial.name, None))

    def _config(
        self,
        trial: Trial,
        suggestion: Suggestion,
        origin: Trial | None = None,
        needed: float = 0.0,
        before: Entry | None = None,
    ) -> dict[str, Any]:
        """Register a trial; what its process is built from."""
        run = self.comparison.runs[trial.run]
        self.comparison.register(trial)
        self.running[trial.id] = run
        if trial.training_seed is None:
            self.telling.add(run, trial, needed)
        trial.attempt = self.comparison.ledger.attempts(trial.name)
        if trial.attempt > 0:
            self.comparison.cut_short(trial, self._interval(trial))
        if before is not None and (before.trial.method, before.trial.values) == (trial.method, trial.values):
            self.comparison.takes_over(trial, before.trial, before.course)
        self.comparison.suggested(trial)
        start = None
        if origin is not None and suggestion.start is not None:
            start = (suggestion.start.what, origin.checkpoint)
        self._configs[trial.name] = {
            "suggestion": suggestion,
            "seed": run.seed,
            "reference": self.comparison.reference(run.seed),
            "start": start,
            "training_seed": trial.training_seed,
            "states": trial.states,
        }
        return self._configs[trial.name]

    def _goes_on(self, trial: Trial, trial_id: str) -> dict[str, Any]:
        """An interrupted trial, from its last state where it has left one."""
        self.comparison.goes_on(trial, trial_id)
        self.running[trial_id] = self.comparison.runs[trial.run]
        return self._configs[trial.name] | {"states": trial.states}

    def started(self, trial_id: str) -> None:
        """A trial has its device."""
        if self.comparison.trials[trial_id].heard is None:
            self.comparison.started(trial_id)

    def silence(self, trial_id: str) -> float:
        """Seconds since a trial that has a process gave a sign of life; 0 for any other."""
        if trial_id not in self.running:
            return 0.0
        heard = self.comparison.trials[trial_id].heard
        return 0.0 if heard is None else self.comparison.clock() - heard

    def kept(self, trial_id: str, checkpoint: str) -> tuple[str, ...]:
        """A trial's model, or the state it goes on from, lies at a place; what nobody needs any more."""
        return self.comparison.kept(trial_id, checkpoint)

    def reported(self, trial_id: str, report: Report) -> bool:
        """Charge and judge a report; True where the trial is to be stopped. The same one again changes nothing."""
        trial = self.comparison.trials[trial_id]
        if (
            trial.status != Status.RUNNING
        ):  # what it repeats for the sake of its model leads to where it was stopped
            self.comparison.repeated(trial, report)
            return trial.status == Status.STOPPED and report.interval >= trial.reports - 1
        news = self.comparison.report(trial_id, report)
        if trial.status != Status.RUNNING or not report.metrics or not news:
            return False
        reason = self._stops(trial)
        if reason:
            self.comparison.cut(trial_id, reason)
        return bool(reason)

    def _stops(self, trial: Trial) -> str:
        if trial.training_seed is not None:
            return ""
        if trial.until is not None and trial.reports >= trial.until:
            return f"stopped at report {trial.reports}, where the candidates are compared"
        ledger = self.comparison.ledger
        if not ledger.unit.planned and ledger.totals(trial.run).spent >= ledger.limit(trial.run):
            return f"stopped at report {trial.reports}: the budget is spent"
        sampler = self.samplers[trial.run]
        trials = self.telling.observations[trial.run]
        if sampler.stops(trials, trial.index, trial.reports, trial.metrics["val/objective"]):
            return f"stopped at report {trial.reports}: others were better there"
        return ""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing new: :meth:`reported` has had it."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the run's sampler how its trial ended; one whose process was lost may go on in another."""
        trial, run = self.comparison.trials[trial_id], self.running.pop(trial_id)
        if error and trial.interruptions < self.retries and _needs_process(trial):
            self.interrupted.append(self.comparison.interrupted(trial_id, self._interval(trial)))
            return  # its run goes on with nothing else
        if self._queue is not None and trial.training_seed is None:
            self._queue.freed(run)
        if error:
            self.gone(trial_id, self._why.pop(trial_id, LOST))
        elif result is not None:
            self.reported(trial_id, result["report"])
        del self._configs[trial.name]
        if trial.training_seed is not None:
            return
        self._set_limits(run)
        self.telling.over(run, trial)

    def died(self, trial_id: str, why: str) -> None:
        """Why a trial's process is gone; said where it was the last one that the trial may have."""
        self._why[trial_id] = why

    def gone(self, trial_id: str, message: str) -> None:
        """End a trial whose process died or was killed, and charge the interval that it was in."""
        self.comparison.failed(trial_id, message, self._interval(self.comparison.trials[trial_id]))

    def _interval(self, trial: Trial) -> float:
        """Passes of an interval."""
        seed = self.comparison.runs[trial.run].seed
        return sum(self._planned(trial.method, seed).values()) / self.reports

    def _set_limits(self, dense: Run) -> None:
        """In a unit that is measured, limits are multiples of what the dense reference took."""
        if not dense.is_reference or self.comparison.ledger.unit.planned:
            return
        unit = self.comparison.ledger.totals(dense.name).spent
        for run in self.comparison.runs.values():
            if run.seed == dense.seed and run is not dense:
                self.comparison.ledger.limits[run.name] = run.limit * unit

    def resume(self, known: Sequence[Entry], left: Mapping[str, Entry]) -> None:
        """Take over what an earlier process did: the next suggestions are those that would have come.

        Args:
            known: trials that ended.
            left: by name, those that were to run; they are handed out first, and go on from the states they left.
        """
        ended = {one.trial.name: one for one in known}
        for run in self.comparison.runs.values():
            while (one := ended.get(_name(run)) or left.get(_name(run))) is not None:
                self._resume(run, one, one.trial.name in ended)
        for one in known:
            if one.trial.training_seed is not None:
                self.comparison.restore(one.trial, one.course, one.elapsed)
        self._left = {name: one for name, one in left.items() if one.trial.training_seed is not None}

    def _resume(self, run: Run, one: Entry, ended: bool) -> None:
        """Take over a run's next trial."""
        trial, suggestion = one.trial, suggestion_of(one.trial)
        self.telling.due(run)
        while self.telling.number(run) < trial.told and self.telling.more(run):
            pass
        needed = self._needed(run, suggestion)
        if ended:
            self.comparison.restore(trial, one.course, one.elapsed)
            self.telling.add(run, trial, needed, over=True)
            self._set_limits(run)
            return
        origin = self._origin(run, suggestion)
        trial = self._trial(run, f"left/{trial.name}", suggestion, origin)
        self._config(trial, suggestion, origin, needed, one)
        del self.running[trial.id]
        self.interrupted.append(trial)

    def __getstate__(self) -> dict[str, Any]:
        # Ray keeps a pickled copy to restore a Tuner from. It is never used: it could not hold open files.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger and the records hold what a run has done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


def _needs_process(trial: Trial) -> bool:
    """Whether a trial has not ended, or has not stored its model yet."""
    return trial.status == Status.RUNNING or (
        trial.status in (Status.FINISHED, Status.STOPPED) and trial.checkpoint is None
    )


def _name(run: Run) -> str:
    """Of a run's next trial."""
    return f"{run.name}/{len(run.trials):02d}"


def _trial(trial_id: str, run: Run, index: int, one: Suggestion) -> Trial:
    trial = Trial(trial_id, run.name, index, one.method, one.values, one.params, one.until, one.share, one.profile)
    trial.start = None if one.start is None else asdict(one.start)
    return trial
