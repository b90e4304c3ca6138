"""One Tuner for a whole comparison: Ray Tune's loop asks for trials, and its hooks say what becomes of them."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray._private import worker
from ray.tune.error import TuneError
from ray.tune.search import Searcher

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Assignment, Report
from ms_automl.config import ResourcesSection
from ms_automl.errors import StartError
from ms_automl.samplers.base import WAIT, Answer
from ms_automl.storage.remote import Storage
from ms_automl.tuning.adapter import TrialAdapter
from ms_automl.tuning.session import Session, capacity

LOST = "the trial's process died"


class _Schedule(Protocol):
    """Says what runs next, and hears of it: a :class:`~ms_automl.driver.scheduler.Scheduler`."""

    def next(self, trial_id: str) -> Assignment | Answer: ...
    def started(self, trial_id: str) -> None: ...
    def report(self, trial_id: str, report: Report) -> bool: ...
    def silence(self, trial_id: str) -> float: ...
    def give_up(self, trial_id: str, why: str) -> None: ...
    def stored(self, trial_id: str, place: str) -> Sequence[str]: ...
    def end(self, trial_id: str, report: Report | None = None, lost: str | None = None) -> None: ...


class StartMonitor:
    """Says where trials wait for a process though there is room for one: Ray would say nothing.

    On this machine it ends a comparison of which none ever has begun.
    """

    def __init__(self, session: Session, resources: ResourcesSection, say: Callable[[str], None]) -> None:
        self.session, self.resources, self.say = session, resources, say
        self.patience = resources.start_timeout
        self.any_started = False
        self._waiting_since: float | None = None
        self._next_message = self.patience

    def trial_started(self) -> None:
        """A trial has a process."""
        self.any_started, self._waiting_since, self._next_message = True, None, self.patience

    def check(self, now: float, pending: int, running: int) -> None:
        """Say where trials that are pending wait for a process for too long; to be called once in a while.

        Raises:
            StartError: where it is not worth waiting for.
        """
        own = self.session.own
        if not pending or (running and running >= (self.session.slots if own else capacity(self.resources))):
            self._waiting_since = None
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        waited = now - self._waiting_since
        if waited < self._next_message:
            return
        self._next_message = 2 * waited
        node = worker._global_node
        folder = "/tmp/ray/session_latest/logs" if node is None else node.get_logs_dir_path()
        logs = f"Ray's logs, {Path(folder) / 'worker-*.err'} and raylet.out,"
        if own and not self.any_started:
            raise StartError(
                f"no trial has begun in {waited:.0f} s: no process for one starts on this machine. {logs} say "
                "why; where it only takes long, --set resources.start_timeout=N waits longer"
            )
        what = "a trial waits for its process" if self.any_started else "no trial has begun"
        self.say(f"{what} for {waited:.0f} s: {self._reason()}. {logs} tell more; waiting")

    def _reason(self) -> str:
        if self.session.own:
            return "there is room for it, and no process starts"
        cpus, gpus = self.resources.cpus_per_trial, self.resources.gpus_per_trial
        asked = f"{cpus} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        if any(host.get("CPU", 0) >= cpus and host.get("GPU", 0) >= gpus for host in hosts):
            return f"others may have the {asked} that it asks for, or an autoscaler is at work (ray status)"
        return f"no host that is up has the {asked} that it asks for: an autoscaler may be at work (ray status)"


class _Unkept:
    """Ray keeps pickled copies to restore a Tuner from. They are never used, and cannot hold open files."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class NextTrial(_Unkept, Searcher):
    """Asks the schedule for trials."""

    def __init__(self, schedule: _Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while nothing can run, FINISHED after the last."""
        answer = self.schedule.next(trial_id)
        if isinstance(answer, Assignment):
            return {"assignment": answer}
        return None if answer is WAIT else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: :class:`Lifecycle` is told as well, and knows more."""


class Lifecycle(_Unkept, tune.Callback, tune.Stopper):
    """Tells the schedule what becomes of trials, and has it judge every report as it comes."""

    def __init__(
        self,
        schedule: _Schedule,
        storage: Storage,
        remove: Callable[[str], None],
        patience: float,
        start_monitor: StartMonitor,
    ) -> None:
        self.schedule, self.storage, self.remove = schedule, storage, remove
        self.patience, self.start_monitor = patience, start_monitor
        self._next_check = 0.0

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
                why = f"no report for {self.patience:g} s: its process was stopped"
                self.schedule.give_up(trial.trial_id, why)
                ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its device."""
        self.start_monitor.trial_started()
        self.schedule.started(trial.trial_id)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial that has made a report is to stop, for its arm or its budget."""
        return self.schedule.report(trial_id, result["report"])

    def stop_all(self) -> bool:
        """Whether all trials are to stop: never, the schedule says when nothing is left."""
        return False

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """A trial's model or state is stored."""
        for place in self.schedule.stored(trial.trial_id, self.storage.place(checkpoint.path)):
            self.remove(place)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process has come to its end."""
        self.schedule.end(trial.trial_id, trial.last_result.get("report"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process is lost."""
        log = ""
        with suppress(OSError, TypeError):  # TypeError: there is no file
            log = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        self.schedule.end(trial.trial_id, lost=_why_lost(log.rpartition("Failure #")[2]))


def _why_lost(text: str) -> str:
    """Why a trial's process is gone, by what Ray has said of it, which may be empty."""
    if "running low on memory" not in text:
        return f"{LOST}; see the log in the tune folder"
    used = re.search(r"was ([\d.]+GB) used / ([\d.]+GB) limit", text)
    state = f" ({used[1]} of {used[2]} in use)" if used else ""
    return (
        f"{LOST}: memory ran out on its host{state}, and Ray stopped it: run fewer at a time (--slots), or "
        "set a smaller training.batch_size"
    )


def run_trials(
    experiment: Experiment,
    schedule: _Schedule,
    session: Session,
    *,
    keep: bool = True,
    remove: Callable[[str], None] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Run every trial of a schedule, in a Ray that is ready for them.

    Their models are kept where ``keep`` says so. ``remove`` has a place deleted that nobody needs any more, and
    ``say`` shows a line to who looks on.

    Raises:
        StartError: where on this machine no trial begins at all.
    """
    resources, storage = experiment.config.resources, session.storage
    remove, start_monitor = remove or storage.remove, StartMonitor(session, resources, say)
    hooks = Lifecycle(schedule, storage, remove, resources.report_timeout, start_monitor)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(TrialAdapter, experiment=experiment, needs=session.needs, keep=keep),
            {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
        ),
        tune_config=tune.TuneConfig(
            search_alg=NextTrial(schedule),
            num_samples=-1,
            reuse_actors=True,
            # Ray's own name spells out what the trial is built from, too long for some stores.
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            # A folder of its own for every start: Ray would take one that is there for its own unfinished run.
            name=f"tune-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
            storage_path=storage.address,
            verbose=0,
            stop=hooks,
            callbacks=[hooks],
            # What is stored, and what of it is needed no more, the schedule knows; and which trials go on.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=keep),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        tuner.fit()
    except TuneError as error:  # Ray's own have pages of tracebacks for a message: what went wrong first
        first: BaseException = error
        while (before := first.__cause__ or first.__context__) is not None:
            first = before
        raise first from None
