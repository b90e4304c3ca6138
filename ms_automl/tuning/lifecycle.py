"""What the driver hears from Ray and does beside its loop: trials begin, report, fall silent, leave states."""

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

from ms_automl.comparison.run import Report
from ms_automl.storage.remote import Storage
from ms_automl.tuning.starting import StartWatch
from ms_automl.tuning.trouble import why_lost


class Router(Protocol):
    """A Ray searcher that is told what happens to the trials that it suggested."""

    def started(self, trial_id: str) -> None:
        """A trial has its device; may be said twice."""

    def reported(self, trial_id: str, report: Report) -> bool:
        """A trial has made a report; True where it is to be stopped. May be said twice."""

    def silence(self, trial_id: str) -> float:
        """Seconds since a running trial gave a sign of life; 0 for any other."""

    def died(self, trial_id: str, why: str) -> None:
        """A trial's process is gone, as :meth:`gone` or a new one will tell; why."""

    def gone(self, trial_id: str, message: str) -> None:
        """A trial's process died or was killed."""

    def kept(self, trial_id: str, checkpoint: str) -> Sequence[str]:
        """A trial's model, or the state it goes on from, lies at a place; what nobody needs any more."""


class Lifecycle(tune.Callback):
    """Tells the router what only Ray knows: when a trial gets its device, where its model lies."""

    def __init__(
        self,
        router: Router,
        storage: Storage,
        remove: Callable[[str], None],
        patience: float,
        starting: StartWatch,
    ) -> None:
        self.router = router
        self.storage = storage
        self.remove = remove
        self.patience = patience
        self.starting = starting
        self._next_look = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in RunRouter

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Kill the process of a trial that has been silent for too long, and say where one does not begin.

        Ray would wait for ever. It calls this ten times a second, also where nothing happens.
        """
        now = time.monotonic()
        if now < self._next_look:  # a step is an event, and `trials` are all that there ever were
            return
        self._next_look = now + min(1.0, self.patience / 10, self.starting.patience / 10)
        status = Counter(trial.status for trial in trials)
        self.starting.look(now, status["PENDING"], status["RUNNING"])
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if actor is not None and self.router.silence(trial.trial_id) > self.patience:
                self.router.gone(trial.trial_id, f"no report for {self.patience:g} s: its process was stopped")
                ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its device."""
        self.starting.begun()
        self.router.started(trial.trial_id)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """A trial's model or state is stored."""
        for place in self.router.kept(trial.trial_id, self.storage.place(checkpoint.path)):
            self.remove(place)


class Stopper(tune.Stopper):
    """Has the router judge every report as it comes, and stop a trial where its arm or its budget says so."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in RunRouter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial that has made a report is to stop."""
        return self.router.reported(trial_id, result["report"])

    def stop_all(self) -> bool:
        """Never: the router says when there is nothing left."""
        return False


class Order(FIFOScheduler):
    """Trials in the order in which they are suggested; of one whose process is lost it hears first, and why."""

    def __init__(self, router: Router) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.router = router

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in RunRouter

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial's process is gone."""
        said = ""
        with suppress(OSError, TypeError):  # TypeError: there is no file
            said = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        self.router.died(trial.trial_id, why_lost(said.rpartition("Failure #")[2]))
