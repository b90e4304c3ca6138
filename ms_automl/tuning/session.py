"""A Ray to run trials on: one of our own for as long as it is needed, a cluster, or one that is there already."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError
from ray.util.client import ray as client

from ms_automl.comparison.experiment import Experiment
from ms_automl.config import ResourcesSection
from ms_automl.environment.process import heed_sigterm, renew_sigterm, unless_set
from ms_automl.errors import ConfigError
from ms_automl.storage.remote import Storage, shown
from ms_automl.tuning.hosts import Needs, check_hosts, code_for_hosts, needs_of

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_prestart_worker_first_driver": "0",  # it would wait for ever where none comes up: StartMonitor does not
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has the records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: runs must be closed as KILLED
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
}
OBJECT_STORE_BYTES = 200 * 2**20  # nothing but reports goes through it
UV = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
_INIT_ERRORS = (OSError, ValueError, RuntimeError, AuthenticationError)


@dataclass(frozen=True)
class Session:
    """A Ray that is ready for trials."""

    slots: int  # trials at a time, of a cluster as it is at the start
    storage: Storage  # where trials leave their models
    needs: Needs | None  # what every host must have; None on this machine alone
    own: bool = True  # whether it was begun for these trials alone, on this machine


@contextmanager
def ray_session(
    address: str | None, slots: int, experiment: Experiment, storage: Storage, remedy: str
) -> Iterator[Session]:
    """A Ray of our own with room for ``slots`` trials, or the cluster at ``address``; ended afterwards.

    Where the process has a Ray already, as inside of a Ray task, that one is used with the room that it has, and
    left up. The experiment's code goes to every host of a cluster; ``remedy`` is what to do where one does not see
    the storage.

    Raises:
        ConfigError: where Ray does not start, there is no cluster, or a host of it lacks something.
    """
    resources = experiment.config.resources
    with storage.marked() as marker, unless_set(_QUIET), ExitStack() as stack:
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # What it says of a trial whose process was lost, pages of it, the schedule is told in a line.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        stored = f"what this comparison stores in {shown(storage.address)}: {remedy}"
        cluster = needs_of(experiment.config, experiment.data_dir, marker, stored)
        needs: Needs | None = None
        if initialized := ray.is_initialized():
            if _hosts_of_this_ray(address) > 1:
                needs = cluster
        elif address is None:
            _start(stack, slots * resources.cpus_per_trial)
        else:
            needs = cluster
            _join(stack, address, needs)
        heed_sigterm()
        if address is None:
            _check_gpus(resources.gpus_per_trial)
        if needs is not None:
            check_hosts(needs)
        if initialized or needs is not None:
            slots = capacity(resources)
        # On this machine one: a trial suggested early knows less. On a cluster it waits for its host to begin, and
        # those that wait must wait together.
        stack.enter_context(unless_set({"TUNE_MAX_PENDING_TRIALS_PG": str(1 if needs is None else slots)}))
        yield Session(slots, storage, needs, own=not initialized and address is None)


def _hosts_of_this_ray(address: str | None) -> int:
    if address is not None:
        raise ConfigError(
            f"--address {address}: this process has a Ray already, which is used: leave the address out, or call "
            "ray.shutdown() first"
        )
    if client.is_connected():  # type: ignore[no-untyped-call]
        raise ConfigError(
            "this process is a client of a Ray cluster (ray://): start the comparison on a host of the cluster, "
            "by --address auto"
        )
    return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]


def _start(stack: ExitStack, cpus: int) -> None:
    """Start a Ray on this machine that listens on 127.0.0.1 alone, for as long as the stack lasts.

    It would listen on every address, and run whatever it is sent. The switch is Ray's own, meant for systems whose
    firewall asks about every open port.
    """
    _switch_off(stack, "ENABLE_RAY_CLUSTER")
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    stack.callback(os.environ.pop, ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR)
    try:
        _init(stack, "local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES)
    except _INIT_ERRORS as error:
        raise ConfigError(f"Ray does not start on this machine: {_why_not_started(error)}") from error


def _why_not_started(error: Exception) -> str:
    """Why Ray does not start on this machine, and the variable to set."""
    reason, place = " ".join(str(error).split()), getattr(error, "filename", None)
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "the temporary folder")
    folder = os.environ.get(name, tempfile.gettempdir())
    if "AF_UNIX" in reason:
        return (
            f"{name} {folder} is too long a path for the sockets that it makes there: set RAY_TMPDIR or TMPDIR to "
            "a short one, such as /tmp"
        )
    if place is not None and Path(str(place)).is_relative_to(folder):
        return f"{reason}: set RAY_TMPDIR or TMPDIR, here {folder}, to a folder that can be written"
    if place is not None:
        return f"{reason}: set HOME, here {os.environ.get('HOME', 'missing')}, to a folder that can be written"
    if "home directory" in reason:
        return "this user has no home folder: set HOME to a folder that can be written"
    return reason


def _join(stack: ExitStack, address: str, needs: Needs) -> None:
    """Join the cluster at an address, with our code on its hosts, for as long as the stack lasts."""
    _check_listens(address)
    environment = stack.enter_context(code_for_hosts(needs.modules))
    try:
        _init(stack, address, runtime_env=environment)
    except _INIT_ERRORS as error:
        raise _no_cluster(address, " ".join(str(error).split())) from error


def _check_listens(address: str) -> None:
    """Refuse host:port where nobody listens: Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> ConfigError:
    return ConfigError(f"no Ray cluster at '{address}': {reason}; start one, or leave --address out")


def _init(stack: ExitStack, address: str, **options: Any) -> None:
    # Under `uv run` it would copy the working folder, and have uv make an empty environment for every process.
    if UV not in os.environ:
        _switch_off(stack, UV)
    stack.callback(renew_sigterm)
    stack.callback(ray.shutdown)
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)


def _switch_off(stack: ExitStack, name: str) -> None:
    """Turn a switch of Ray's off for as long as the stack lasts; it reads them when it is imported, too early."""
    stack.callback(setattr, ray_constants, name, getattr(ray_constants, name))
    setattr(ray_constants, name, False)


def _check_gpus(wanted: float) -> None:
    gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    if wanted > gpus:  # no trial would ever start
        raise ConfigError(
            f"resources.gpus_per_trial={wanted:g} is more than the {gpus:g} GPUs of this machine: set it to 0, or "
            "use a cluster by --address"
        )


def capacity(resources: ResourcesSection) -> int:
    """Trials at a time on the cluster as it is, at least 1: an autoscaler adds hosts when they are asked for."""
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    found = total.get("CPU", 0) / resources.cpus_per_trial
    if resources.gpus_per_trial:
        found = min(found, total.get("GPU", 0) / resources.gpus_per_trial)
    return max(1, int(found))
