"""The one searcher that Ray Tune sees: it hands out the next trial of any stream that is free and can pay."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ray.tune.search import Searcher

from ms_automl.comparison.journal import Entry
from ms_automl.comparison.run import Report, Status, Stream, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.samplers.base import DONE, Answer, Sampler
from ms_automl.tuning.queue import StreamQueue
from ms_automl.tuning.telling import Telling, suggestion_of
from ms_automl.tuning.trouble import LOST

Plan = Callable[[str, int], Mapping[str, float]]
"""From a method and a seed to the passes of a whole trial, by kind."""

FRESH = 1_000_000
"""Training seeds of retrainings begin here: no comparison numbers its own seeds so high."""


class StreamRouter(Searcher):
    """Suggests the next trial of whichever stream is free and can afford it; then the retrainings.

    Args:
        comparison: told of every trial and report.
        samplers: by stream name.
        plan: what a trial of a method and seed costs; where the unit allows it, no trial starts that cannot
            finish.
        reports: of a whole trial.
        retrain: how often each arm's selected λ is trained again, on fresh seeds and charged to nobody.
        retries: how often a trial goes on in another process when the one it runs in is lost.
        at_a_time: trials of a stream that may run at a time (:class:`~ms_automl.tuning.telling.Telling`).
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
        self.running: dict[str, Stream] = {}
        self.interrupted: list[Trial] = []
        self._why: dict[str, str] = {}  # by trial, of a process that is gone
        self._configs: dict[str, dict[str, Any]] = {}  # by name, of the trials that run or are interrupted
        self.waiting: dict[str, Suggestion] = {}  # by stream: for the checkpoint it starts from, or for its costs
        self._queue: StreamQueue | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while every open stream is busy, FINISHED after the last."""
        if self.interrupted:
            return self._goes_on(self.interrupted.pop(0), trial_id)
        if self._queue is None:  # not before: what is restored counts
            self._queue = StreamQueue(self.comparison.streams.values())
        config = self._first_free(self._queue, trial_id) or self._first_again(self._queue, trial_id)
        # While one runs, its process may be lost: Ray would not ask again after FINISHED.
        return config or (None if self._queue.open or self.running else Searcher.FINISHED)

    def _first_free(self, queue: StreamQueue, trial_id: str) -> dict[str, Any] | None:
        config, asked = None, []
        while config is None and (stream := queue.pop()) is not None:
            if self._waits_for_reference(stream):
                queue.park(stream)
                continue
            config = self._next(stream, trial_id)
            self.telling.due(stream)
            # One that has trials running is asked again when another of them has ended.
            if not self.telling.untold[stream.name] or (config is not None and self.telling.room(stream)):
                asked.append(stream)
        for stream in asked:
            queue.push(stream)
        return config

    def _first_again(self, queue: StreamQueue, trial_id: str) -> dict[str, Any] | None:
        while (stream := queue.first_closed()) is not None:
            if self._retrains(stream):
                return self._again(stream, trial_id)
            queue.drop_closed()
        return None

    def _waits_for_reference(self, stream: Stream) -> bool:
        if stream.is_reference or stream.seed in self.comparison.references:
            return False
        return not self.comparison.reference_streams[stream.seed].closed

    def _next(self, stream: Stream, trial_id: str) -> dict[str, Any] | None:
        """A stream's next trial; where there is none with what its sampler knows, with what it then is told."""
        while True:
            config = self._with_what_is_told(stream, trial_id) if self.telling.room(stream) else None
            if config is not None or not self.telling.more(stream):
                return config

    def _with_what_is_told(self, stream: Stream, trial_id: str) -> dict[str, Any] | None:
        if not stream.is_reference and (trouble := self.comparison.trouble(stream.seed)) is not None:
            return self._close(stream, trouble)
        if self.telling.failed[stream.name] >= stream.planned_trials:
            return self._close(stream, "gave up")  # the budget alone would allow endlessly many
        ledger = self.comparison.ledger
        begun = ledger.spent_on(_name(stream))
        least = self.samplers[stream.name].least * ledger.unit.total(self._planned("fixed_lambda", stream.seed))
        if not self.telling.affords(stream, least - begun):
            return self._close(stream)
        suggestion = self._ask(stream)
        if suggestion is None:
            return None
        needed = self._needed(stream, suggestion)
        if not self.telling.affords(stream, needed - begun):
            self.waiting[stream.name] = suggestion
            return self._close(stream)
        origin = self._origin(stream, suggestion)
        if origin is not None and origin.checkpoint is None:  # still being written
            self.waiting[stream.name] = suggestion
            return None
        return self._config(self._trial(stream, trial_id, suggestion, origin), suggestion, origin, needed)

    def _trial(self, stream: Stream, trial_id: str, suggestion: Suggestion, origin: Trial | None) -> Trial:
        trial = _trial(trial_id, stream, len(stream.trials), suggestion)
        trial.told = self.telling.number(stream)
        trial.rungs = self.samplers[stream.name].rungs if suggestion.until is None else (suggestion.until,)
        if origin is not None and suggestion.start is not None and suggestion.start.what == "state":
            trial.at_rungs = {origin.reports: origin.metrics["val/objective"]}
        return trial

    def _close(self, stream: Stream, note: str = "") -> dict[str, Any] | None:
        """Nothing more is to run: for good, unless trials that run turn out cheaper than they may be."""
        if not self.telling.untold[stream.name]:
            stream.closed, stream.note = True, note or stream.note
        return None

    def _ask(self, stream: Stream) -> Suggestion | None:
        """What the stream's sampler says; None where it says nothing yet, or nothing any more."""
        if stream.name in self.waiting:
            return self.waiting.pop(stream.name)
        name = _name(stream)
        began = time.perf_counter()
        answer = self.samplers[stream.name].ask(self.telling.observations[stream.name])
        took = time.perf_counter() - began
        if answer is DONE:
            self._close(stream)
        if isinstance(answer, Answer):
            return None
        self.comparison.searched(stream, name, "suggest", took)
        return answer

    def _needed(self, stream: Stream, suggestion: Suggestion) -> float:
        """What a suggested trial costs, in the budget's unit."""
        whole = self.comparison.ledger.unit.total(self._planned(suggestion.method, stream.seed))
        if suggestion.until is not None:
            return whole * suggestion.share
        origin = self._origin(stream, suggestion)
        if origin is None or suggestion.start is None or suggestion.start.what != "state":
            return whole
        return whole - self.comparison.ledger.spent_on(origin.name)

    def _planned(self, method: str, seed: int) -> Mapping[str, float]:
        if (method, seed) not in self._plans:
            self._plans[method, seed] = self.plan(method, seed)
        return self._plans[method, seed]

    def _origin(self, stream: Stream, suggestion: Suggestion) -> Trial | None:
        if suggestion.start is None:
            return None
        return next(trial for trial in stream.trials if trial.name == suggestion.start.trial)

    def _retrains(self, stream: Stream) -> bool:
        wanted = not stream.is_reference and stream.best is not None and stream.best.status == Status.FINISHED
        return wanted and len(stream.retrained) < self.retrain

    def _again(self, stream: Stream, trial_id: str) -> dict[str, Any]:
        best, there = stream.best, {trial.index for trial in stream.retrained}
        assert best is not None
        index = next(number for number in range(self.retrain) if number not in there)
        suggestion = Suggestion(best.method, best.params, best.values)
        trial = _trial(trial_id, stream, index, suggestion)
        trial.training_seed = FRESH + 1000 * stream.seed + index
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
        stream = self.comparison.streams[trial.stream]
        self.comparison.register(trial)
        self.running[trial.id] = stream
        if trial.training_seed is None:
            self.telling.add(stream, trial, needed)
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
            "seed": stream.seed,
            "reference": self.comparison.reference(stream.seed),
            "start": start,
            "training_seed": trial.training_seed,
            "states": trial.states,
        }
        return self._configs[trial.name]

    def _goes_on(self, trial: Trial, trial_id: str) -> dict[str, Any]:
        """An interrupted trial, from its last state where it has left one."""
        self.comparison.goes_on(trial, trial_id)
        self.running[trial_id] = self.comparison.streams[trial.stream]
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
        if not ledger.unit.planned and ledger.totals(trial.stream).spent >= ledger.limit(trial.stream):
            return f"stopped at report {trial.reports}: the budget is spent"
        sampler = self.samplers[trial.stream]
        trials = self.telling.observations[trial.stream]
        if sampler.stops(trials, trial.index, trial.reports, trial.metrics["val/objective"]):
            return f"stopped at report {trial.reports}: others were better there"
        return ""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing new: :meth:`reported` has had it."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the stream's sampler how its trial ended; one whose process was lost may go on in another."""
        trial, stream = self.comparison.trials[trial_id], self.running.pop(trial_id)
        if error and trial.interruptions < self.retries and _needs_process(trial):
            self.interrupted.append(self.comparison.interrupted(trial_id, self._interval(trial)))
            return  # its stream goes on with nothing else
        if self._queue is not None and trial.training_seed is None:
            self._queue.freed(stream)
        if error:
            self.gone(trial_id, self._why.pop(trial_id, LOST))
        elif result is not None:
            self.reported(trial_id, result["report"])
        del self._configs[trial.name]
        if trial.training_seed is not None:
            return
        self._set_limits(stream)
        self.telling.over(stream, trial)

    def died(self, trial_id: str, why: str) -> None:
        """Why a trial's process is gone; said where it was the last one that the trial may have."""
        self._why[trial_id] = why

    def gone(self, trial_id: str, message: str) -> None:
        """End a trial whose process died or was killed, and charge the interval that it was in."""
        self.comparison.failed(trial_id, message, self._interval(self.comparison.trials[trial_id]))

    def _interval(self, trial: Trial) -> float:
        """Passes of an interval."""
        seed = self.comparison.streams[trial.stream].seed
        return sum(self._planned(trial.method, seed).values()) / self.reports

    def _set_limits(self, dense: Stream) -> None:
        """In a unit that is measured, limits are multiples of what the dense reference took."""
        if not dense.is_reference or self.comparison.ledger.unit.planned:
            return
        unit = self.comparison.ledger.totals(dense.name).spent
        for stream in self.comparison.streams.values():
            if stream.seed == dense.seed and stream is not dense:
                self.comparison.ledger.limits[stream.name] = stream.limit * unit

    def resume(self, known: Sequence[Entry], left: Mapping[str, Entry]) -> None:
        """Take over what an earlier process did: the next suggestions are those that would have come.

        Args:
            known: trials that ended.
            left: by name, those that were to run; they are handed out first, and go on from the states they left.
        """
        ended = {one.trial.name: one for one in known}
        for stream in self.comparison.streams.values():
            while (one := ended.get(_name(stream)) or left.get(_name(stream))) is not None:
                self._resume(stream, one, one.trial.name in ended)
        for one in known:
            if one.trial.training_seed is not None:
                self.comparison.restore(one.trial, one.course, one.elapsed)
        self._left = {name: one for name, one in left.items() if one.trial.training_seed is not None}

    def _resume(self, stream: Stream, one: Entry, ended: bool) -> None:
        """Take over a stream's next trial."""
        trial, suggestion = one.trial, suggestion_of(one.trial)
        self.telling.due(stream)
        while self.telling.number(stream) < trial.told and self.telling.more(stream):
            pass
        needed = self._needed(stream, suggestion)
        if ended:
            self.comparison.restore(trial, one.course, one.elapsed)
            self.telling.add(stream, trial, needed, over=True)
            self._set_limits(stream)
            return
        origin = self._origin(stream, suggestion)
        trial = self._trial(stream, f"left/{trial.name}", suggestion, origin)
        self._config(trial, suggestion, origin, needed, one)
        del self.running[trial.id]
        self.interrupted.append(trial)

    def __getstate__(self) -> dict[str, Any]:
        # Ray keeps a pickled copy to restore a Tuner from. It is never used: it could not hold open files.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger and the records hold what a stream has done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


def _needs_process(trial: Trial) -> bool:
    """Whether a trial has not ended, or has not stored its model yet."""
    return trial.status == Status.RUNNING or (
        trial.status in (Status.FINISHED, Status.STOPPED) and trial.checkpoint is None
    )


def _name(stream: Stream) -> str:
    """Of a stream's next trial."""
    return f"{stream.name}/{len(stream.trials):02d}"


def _trial(trial_id: str, stream: Stream, index: int, one: Suggestion) -> Trial:
    trial = Trial(
        trial_id, stream.name, index, one.method, one.values, one.params, one.until, one.share, one.profile
    )
    trial.start = None if one.start is None else asdict(one.start)
    return trial
