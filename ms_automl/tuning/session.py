"""A Ray to run trials on: one of our own for as long as it is needed, or a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError

from ms_automl.cli import heed_sigterm, renew_sigterm
from ms_automl.config import ResourcesSection
from ms_automl.errors import ConfigError
from ms_automl.storage import Storage, shown
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
