"""One Tuner for a whole comparison."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray import tune
from ray._private import ray_constants
from ray.exceptions import AuthenticationError
from ray.tune.error import TuneError

from ms_automl.cli import heed_sigterm, renew_sigterm
from ms_automl.config import ResourcesSection
from ms_automl.errors import ConfigError
from ms_automl.storage import Storage, shown
from ms_automl.trials import Report
from ms_automl.tuning.adapter import TrialAdapter
from ms_automl.tuning.experiment import Experiment
from ms_automl.tuning.hosts import Needs, check_hosts, code_for_hosts, needs_of

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has the records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: runs must be closed as KILLED
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
}
OBJECT_STORE_BYTES = 200 * 2**20  # nothing but reports goes through it


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


class _Lifecycle(tune.Callback):
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
        self.router.started(trial.trial_id)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        for place in self.router.kept(trial.trial_id, self.storage.place(checkpoint.path)):
            self.remove(place)


@dataclass(frozen=True)
class Session:
    """A Ray that is ready for trials.

    Attributes:
        slots: trials at a time, of a cluster as it is at the start.
        storage: where trials leave their models.
        needs: what every host must have; None on this machine alone.
    """

    slots: int
    storage: Storage
    needs: Needs | None


@contextmanager
def ray_session(
    address: str | None, slots: int, experiment: Experiment, storage: Storage, remedy: str
) -> Iterator[Session]:
    """A Ray of our own with room for ``slots`` trials, or the cluster at ``address``; ended afterwards.

    Args:
        address: of a running cluster, or None.
        slots: trials at a time, on this machine.
        experiment: what trials are built from; its code goes to every host of the cluster.
        storage: where trials leave their models.
        remedy: what to do where a host does not see that.

    Raises:
        ConfigError: before anything trains, where there is no cluster or a host of it lacks something.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # What it says of a trial whose process was lost, pages of it, the router knows and tells in a line.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    config = experiment.config
    with storage.marked() as marker, ExitStack() as stack:
        needs = None
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            cpus = slots * config.resources.cpus_per_trial
            options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            stack.enter_context(_loopback())
        else:
            stored = f"what this comparison stores in {shown(storage.address)}: {remedy}"
            needs = needs_of(config, experiment.data_dir, marker, stored)
            options["runtime_env"] = stack.enter_context(code_for_hosts(needs.modules))
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, ValueError, AuthenticationError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"no Ray cluster at '{address}': {reason}; start one, or leave --address out"
            ) from error
        stack.callback(renew_sigterm)
        stack.callback(ray.shutdown)
        heed_sigterm()
        if needs is None:
            _check_gpus(config.resources.gpus_per_trial)
        else:
            check_hosts(needs)
            slots = _room(config.resources)
        # On this machine one: a trial suggested early knows less. On a cluster it waits for its host to begin, and
        # those that wait must wait together.
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(1 if needs is None else slots))
        yield Session(slots, storage, needs)


@contextmanager
def _loopback() -> Iterator[None]:
    """Have a Ray of our own listen on 127.0.0.1 alone; it would on every address, and run whatever it is sent.

    Ray's own switch, meant for systems whose firewall asks about every open port. It reads it as it is imported,
    which in this process has happened.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        del os.environ[name]
        ray_constants.ENABLE_RAY_CLUSTER = before


def _check_gpus(wanted: float) -> None:
    gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    if wanted > gpus:  # no trial would ever start
        raise ConfigError(
            f"resources.gpus_per_trial={wanted:g} is more than the {gpus:g} GPUs of this machine: set it to 0, or "
            "use a cluster by --address"
        )


def _room(resources: ResourcesSection) -> int:
    """Trials at a time on the cluster as it is, at least 1: an autoscaler adds hosts when they are asked for."""
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    room = there.get("CPU", 0) / resources.cpus_per_trial
    if resources.gpus_per_trial:
        room = min(room, there.get("GPU", 0) / resources.gpus_per_trial)
    return max(1, int(room))


class _Stopper(tune.Stopper):
    """Has the router judge every report as it comes, and stop a trial where its arm or its budget says so."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in StreamRouter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.router.reported(trial_id, result["report"])

    def stop_all(self) -> bool:
        return False


def run_trials(
    experiment: Experiment,
    router: Any,
    session: Session,
    *,
    keep: bool = True,
    remove: Callable[[str], None] | None = None,
) -> None:
    """Run every trial that a router suggests.

    Args:
        experiment: what trials are built from.
        router: a ``ray.tune.search.Searcher`` and a :class:`Router`: says what runs next, hears of everything.
        session: where they run, and leave their models.
        keep: whether the model of every trial is kept.
        remove: has a place deleted that nobody needs any more; None deletes it at once.
    """
    remove = remove or session.storage.remove
    resources = experiment.config.resources
    trainable = tune.with_resources(
        tune.with_parameters(TrialAdapter, experiment=experiment, needs=session.needs, keep=keep),
        {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=router, num_samples=-1, reuse_actors=True, trial_dirname_creator=_folder_name
        ),
        run_config=tune.RunConfig(
            # A folder of its own for every start: Ray would take one that is there for its own unfinished run.
            name=f"tune-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
            storage_path=session.storage.address,
            verbose=0,
            stop=_Stopper(router),
            callbacks=[_Lifecycle(router, session.storage, remove, resources.report_timeout)],
            # What is stored, and what of it is needed no more, the router knows; and which trials go on.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=keep),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        tuner.fit()
    except TuneError as error:
        raise _first(error) from None


def _first(error: BaseException) -> BaseException:
    """What went wrong first: Ray's own errors have pages of tracebacks for a message."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _folder_name(trial: Any) -> str:
    """Of a trial: Ray's own choice spells out what the trial is built from, too long for some stores."""
    return str(trial.trial_id)
