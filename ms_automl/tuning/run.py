"""One Tuner for a whole comparison."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune

from ms_automl.config import ResourcesSection
from ms_automl.errors import ConfigError
from ms_automl.tuning.adapter import TrialAdapter
from ms_automl.tuning.experiment import Experiment
from ms_automl.tuning.streams import StreamRouter

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


class _Lifecycle(tune.Callback):
    """Tells the comparison what only Ray knows: when a trial gets its device, where its model lies."""

    def __init__(self, router: StreamRouter, patience: float) -> None:
        self.router = router
        self.comparison = router.comparison
        self.patience = patience

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in StreamRouter

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Kill the process of a trial that has been silent for too long; Ray would wait for ever."""
        now = self.comparison.clock()
        for trial in trials:
            ours = self.comparison.trials.get(trial.trial_id)
            actor = trial.temporary_state.ray_actor
            if ours is None or ours.status != "RUNNING" or ours.heard is None or actor is None:
                continue
            if now - ours.heard > self.patience:
                self.router.gone(ours.id, f"no report for {self.patience:g} s: its process was stopped")
                ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.comparison.trials[trial.trial_id].started is None:
            self.comparison.started(trial.trial_id)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        self.comparison.kept(trial.trial_id, Path(checkpoint.path))


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

    def __init__(self, router: StreamRouter) -> None:
        self.router = router

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in StreamRouter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.router.reported(trial_id, result["report"])

    def stop_all(self) -> bool:
        return False


def run_trials(experiment: Experiment, router: StreamRouter, folder: Path) -> None:
    """Run every stream to its end.

    Args:
        experiment: what trials are built from.
        router: says what runs next, and hears of everything.
        folder: where Ray keeps trial checkpoints; absolute.
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
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True, num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    tuner.fit()
