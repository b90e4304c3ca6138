"""Trials that wait for a process though there is room for one: Ray says nothing and waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ray
from ray._private import worker

from ms_automl.config import ResourcesSection
from ms_automl.errors import StartError
from ms_automl.tuning.session import Session, capacity


class StartMonitor:
    """Says that trials do not begin; on this machine it ends a comparison of which none ever has.

    Args:
        session: where they run.
        resources: what each is given.
        say: shows a line.
    """

    def __init__(self, session: Session, resources: ResourcesSection, say: Callable[[str], None]) -> None:
        self.session = session
        self.resources = resources
        self.say = say
        self.patience = resources.start_timeout
        self.any_started = False
        self._waiting_since: float | None = None
        self._next_message = self.patience

    def trial_started(self) -> None:
        """A trial has a process."""
        self.any_started, self._waiting_since, self._next_message = True, None, self.patience

    def check(self, now: float, pending: int, running: int) -> None:
        """Say where trials wait for a process for too long; to be called once in a while.

        Args:
            now: seconds on any clock.
            pending: how many trials have been suggested and have no process.
            running: how many have one.

        Raises:
            StartError: where it is not worth waiting for.
        """
        if not pending or (running and running >= self._slots()):
            self._waiting_since = None
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        waited = now - self._waiting_since
        if waited < self._next_message:
            return
        self._next_message = 2 * waited
        if self.session.own and not self.any_started:
            raise StartError(
                f"no trial has begun in {waited:.0f} s: no process for one starts on this machine. {_logs()} say "
                "why; where it only takes long, --set resources.start_timeout=N waits longer"
            )
        what = "a trial waits for its process" if self.any_started else "no trial has begun"
        self.say(f"{what} for {waited:.0f} s: {self._reason()}. {_logs()} tell more; waiting")

    def _slots(self) -> int:
        return self.session.slots if self.session.own else capacity(self.resources)

    def _reason(self) -> str:
        """What is known of why none begins."""
        if self.session.own:
            return "there is room for it, and no process starts"
        cpus, gpus = self.resources.cpus_per_trial, self.resources.gpus_per_trial
        asked = f"{cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if any(host.get("CPU", 0) >= cpus and host.get("GPU", 0) >= gpus for host in hosts):
            return f"others may have the {asked} that it asks for, or an autoscaler is at work (ray status)"
        return f"no host that is up has the {asked} that it asks for: an autoscaler may be at work (ray status)"


def _logs() -> str:
    """Where Ray's own logs are."""
    node = worker._global_node
    folder = "/tmp/ray/session_latest/logs" if node is None else node.get_logs_dir_path()
    return f"Ray's logs, {Path(folder) / 'worker-*.err'} and raylet.out,"
