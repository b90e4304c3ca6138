"""Between Ray Tune's loop and a schedule: trials are asked for, begin, report, fall silent, store, end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from ms_automl.comparison.run import Assignment, Report
from ms_automl.samplers.base import WAIT, Answer
from ms_automl.storage.remote import Storage
from ms_automl.tuning.starting import StartMonitor
from ms_automl.tuning.trouble import LOST, why_lost


class Schedule(Protocol):
    """Says what runs next, and hears of it (:class:`~ms_automl.driver.scheduler.Scheduler`)."""

    def next(self, trial_id: str) -> Assignment | Answer:
        """The next trial, WAIT or DONE."""

    def started(self, trial_id: str) -> None:
        """A trial has its device; may be called twice."""

    def report(self, trial_id: str, report: Report) -> bool:
        """A trial has made a report; True where it is to be stopped. May be called twice."""

    def silence(self, trial_id: str) -> float:
        """Seconds since a running trial gave a sign of life; 0 for any other."""

    def give_up(self, trial_id: str, why: str) -> None:
        """A trial's process is to be killed; its end follows."""

    def stored(self, trial_id: str, place: str) -> Sequence[str]:
        """A trial's model, or the state it goes on from, lies at a place; what nobody needs any more."""

    def end(self, trial_id: str, report: Report | None = None, lost: str | None = None) -> None:
        """A trial's process has come to its end, or is lost, and why."""


class NextTrial(Searcher):
    """Asks the schedule for trials, and tells it of their ends."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.lost: dict[str, str] = {}  # by trial: why its process is gone

    def __getstate__(self) -> dict[str, Any]:
        # Ray keeps a pickled copy to restore a Tuner from. It is never used: it could not hold open files.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while nothing can run, FINISHED after the last."""
        answer = self.schedule.next(trial_id)
        if isinstance(answer, Assignment):
            return {"assignment": answer}
        return None if answer is WAIT else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial's process has come to its end, or is lost."""
        report = None if error or result is None else result["report"]
        self.schedule.end(trial_id, report, self.lost.pop(trial_id, LOST) if error else None)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: :class:`Stopper` has had the report."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the records hold what has been done."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a comparison goes on from its records."""


class Lifecycle(tune.Callback):
    """Tells the schedule what only Ray knows: when a trial gets its device, where its model lies."""

    def __init__(
        self,
        schedule: Schedule,
        storage: Storage,
        remove: Callable[[str], None],
        patience: float,
        start_monitor: StartMonitor,
    ) -> None:
        self.schedule = schedule
        self.storage = storage
        self.remove = remove
        self.patience = patience
        self.start_monitor = start_monitor
        self._next_check = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in NextTrial

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Kill the process of a trial that has been silent for too long, and say where one does not begin.

        Ray would wait for ever. It calls this ten times a second, also where nothing happens.
        """
        now = time.monotonic()
        if now < self._next_check:  # a step is an event, and `trials` are all that there ever were
            return
        self._next_check = now + min(1.0, self.patience / 10, self.start_monitor.patience / 10)
        status = Counter(trial.status for trial in trials)
        self.start_monitor.check(now, status["PENDING"], status["RUNNING"])
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if actor is not None and self.schedule.silence(trial.trial_id) > self.patience:
                self.schedule.give_up(
                    trial.trial_id, f"no report for {self.patience:g} s: its process was stopped"
                )
                ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its device."""
        self.start_monitor.trial_started()
        self.schedule.started(trial.trial_id)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """A trial's model or state is stored."""
        for place in self.schedule.stored(trial.trial_id, self.storage.place(checkpoint.path)):
            self.remove(place)


class Stopper(tune.Stopper):
    """Has the schedule judge every report as it comes, and stop a trial where its arm or its budget says so."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in NextTrial

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial that has made a report is to stop."""
        return self.schedule.report(trial_id, result["report"])

    def stop_all(self) -> bool:
        """Whether all trials are to stop: never, the schedule says when nothing is left."""
        return False


class Order(FIFOScheduler):
    """Trials in the order in which they are suggested; of one whose process is lost it hears first, and why."""

    def __init__(self, searcher: NextTrial) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in NextTrial

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial's process is gone."""
        log = ""
        with suppress(OSError, TypeError):  # TypeError: there is no file
            log = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        self.searcher.lost[trial.trial_id] = why_lost(log.rpartition("Failure #")[2])
