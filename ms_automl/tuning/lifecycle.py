"""What the driver hears from Ray and does beside its loop: trials begin, report, fall silent, leave states."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ray
from ray import tune

from ms_automl.storage import Storage
from ms_automl.trials import Report


class Router(Protocol):
    """A Ray searcher that is told what happens to the trials that it suggested."""

    def started(self, trial_id: str) -> None:
        """A trial has its device; may be said twice."""

    def reported(self, trial_id: str, report: Report) -> bool:
        """A trial has made a report; True where it is to be stopped. May be said twice."""

    def silence(self, trial_id: str) -> float:
        """Seconds since a running trial gave a sign of life; 0 for any other."""

    def gone(self, trial_id: str, message: str) -> None:
        """A trial's process died or was killed."""

    def kept(self, trial_id: str, checkpoint: str) -> Sequence[str]:
        """A trial's model, or the state it goes on from, lies at a place; what nobody needs any more."""


class Lifecycle(tune.Callback):
    """Tells the router what only Ray knows: when a trial gets its device, where its model lies."""

    def __init__(self, router: Router, storage: Storage, remove: Callable[[str], None], patience: float) -> None:
        self.router = router
        self.storage = storage
        self.remove = remove
        self.patience = patience
        self._next_look = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in StreamRouter

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Kill the process of a trial that has been silent for too long; Ray would wait for ever."""
        now = time.monotonic()
        if now < self._next_look:  # a step is an event, and `trials` are all that there ever were
            return
        self._next_look = now + min(1.0, self.patience / 10)
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if actor is not None and self.router.silence(trial.trial_id) > self.patience:
                self.router.gone(trial.trial_id, f"no report for {self.patience:g} s: its process was stopped")
                ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its device."""
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
        return {}  # as in StreamRouter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial that has made a report is to stop."""
        return self.router.reported(trial_id, result["report"])

    def stop_all(self) -> bool:
        """Never: the router says when there is nothing left."""
        return False
