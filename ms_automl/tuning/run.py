"""One Tuner for a whole comparison."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune

from ms_automl.config import ResourcesSection
from ms_automl.errors import ConfigError
from ms_automl.trials import Report
from ms_automl.tuning.adapter import TrialAdapter
from ms_automl.tuning.experiment import Experiment

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has the records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: runs must be closed as KILLED
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",  # a trial suggested early knows less
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

    def kept(self, trial_id: str, checkpoint: Path) -> None:
        """A trial's model, or the state it goes on from, lies in a folder."""


class _Lifecycle(tune.Callback):
    """Tells the router what only Ray knows: when a trial gets its device, where its model lies."""

    def __init__(self, router: Router, patience: float) -> None:
        self.router = router
        self.patience = patience

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in StreamRouter

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Kill the process of a trial that has been silent for too long; Ray would wait for ever."""
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if actor is not None and self.router.silence(trial.trial_id) > self.patience:
                self.router.gone(trial.trial_id, f"no report for {self.patience:g} s: its process was stopped")
                ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.router.started(trial.trial_id)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        self.router.kept(trial.trial_id, Path(checkpoint.path))


@contextmanager
def ray_session(address: str | None, slots: int, resources: ResourcesSection) -> Iterator[None]:
    """A Ray of our own with room for ``slots`` trials, or the cluster at ``address``; ended afterwards."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        cpus = slots * resources.cpus_per_trial
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address or "local", **options)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at '{address}': {error}; start one, or leave --address out") from error
    try:
        gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
        if address is None and resources.gpus_per_trial > gpus:  # no trial would ever start
            raise ConfigError(
                f"resources.gpus_per_trial={resources.gpus_per_trial:g} is more than the {gpus:g} GPUs "
                "of this machine: set it to 0, or use a cluster by --address"
            )
        yield
    finally:
        ray.shutdown()


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


def run_trials(experiment: Experiment, router: Any, folder: Path, *, keep: bool = True) -> None:
    """Run every trial that a router suggests.

    Args:
        experiment: what trials are built from.
        router: a ``ray.tune.search.Searcher`` and a :class:`Router`: says what runs next, hears of everything.
        folder: where Ray keeps trial checkpoints; absolute.
        keep: whether the model of every trial is kept.
    """
    resources = experiment.config.resources
    trainable = tune.with_resources(
        tune.with_parameters(TrialAdapter, experiment=experiment),
        {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=router, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            stop=_Stopper(router),
            callbacks=[_Lifecycle(router, resources.report_timeout)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=keep, num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    tuner.fit()
