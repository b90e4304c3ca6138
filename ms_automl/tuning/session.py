"""A Ray to run trials on: one of our own for as long as it is needed, a cluster, or one that is there already."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError
from ray.util.client import ray as client

from ms_automl.cli import heed_sigterm, renew_sigterm
from ms_automl.comparison.experiment import Experiment
from ms_automl.config import ResourcesSection
from ms_automl.environment.variables import unless_set
from ms_automl.errors import ConfigError
from ms_automl.storage.remote import Storage, shown
from ms_automl.tuning.hosts import Needs, check_hosts, code_for_hosts, needs_of
from ms_automl.tuning.trouble import why_not_started

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


@dataclass(frozen=True)
class Session:
    """A Ray that is ready for trials.

    Attributes:
        slots: trials at a time, of a cluster as it is at the start.
        storage: where trials leave their models.
        needs: what every host must have; None on this machine alone.
        own: whether it was begun for these trials alone, on this machine.
    """

    slots: int
    storage: Storage
    needs: Needs | None
    own: bool = True


@contextmanager
def ray_session(
    address: str | None, slots: int, experiment: Experiment, storage: Storage, remedy: str
) -> Iterator[Session]:
    """A Ray of our own with room for ``slots`` trials, or the cluster at ``address``; ended afterwards.

    Where the process has a Ray already, as inside of a Ray task, that one is used with the room that it has, and
    left up.

    Args:
        address: of a running cluster, or None.
        slots: trials at a time, on this machine.
        experiment: what trials are built from; its code goes to every host of the cluster.
        storage: where trials leave their models.
        remedy: what to do where a host does not see that.

    Raises:
        ConfigError: before anything trains, where Ray does not start, there is no cluster, or a host of it lacks
            something.
    """
    resources = experiment.config.resources
    with storage.marked() as marker, unless_set(_QUIET), ExitStack() as stack:
        _hush()

        def needed() -> Needs:
            stored = f"what this comparison stores in {shown(storage.address)}: {remedy}"
            return needs_of(experiment.config, experiment.data_dir, marker, stored)

        initialized, needs = ray.is_initialized(), None
        if initialized:
            needs = _needs_of_this_ray(address, needed)
        elif address is None:
            stack.enter_context(_of_our_own(slots * resources.cpus_per_trial))
        else:
            needs = needed()
            stack.enter_context(_cluster(address, needs))
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


def _hush() -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # What it says of a trial whose process was lost, pages of it, the schedule is told in a line.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _needs_of_this_ray(address: str | None, needed: Callable[[], Needs]) -> Needs | None:
    """What the hosts of this process's Ray must have; None where it is of this machine alone."""
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
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return needed() if sum(node["Alive"] for node in nodes) > 1 else None


@contextmanager
def _of_our_own(cpus: int) -> Iterator[None]:
    """A Ray on this machine."""
    options = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    with _loopback():
        try:
            with _begun("local", options):
                yield
        except _NotStartedError as error:
            raise ConfigError(
                f"Ray does not start on this machine: {why_not_started(error.cause)}"
            ) from error.cause


@contextmanager
def _cluster(address: str, needs: Needs) -> Iterator[None]:
    """The cluster at an address, with our code on its hosts."""
    _check_listens(address)
    with code_for_hosts(needs.modules) as environment:
        try:
            with _begun(address, {"runtime_env": environment}):
                yield
        except _NotStartedError as error:
            reason = " ".join(str(error.cause).split())
            raise ConfigError(
                f"no Ray cluster at '{address}': {reason}; start one, or leave --address out"
            ) from error.cause


def _check_listens(address: str) -> None:
    """Refuse host:port where nobody listens: Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster at '{address}': {error}; start one, or leave --address out") from error


class _NotStartedError(Exception):
    """Ray's own reason not to start."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def _begun(address: str, options: dict[str, Any]) -> Iterator[None]:
    with _without_uv():
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
            ray.shutdown()
            raise _NotStartedError(error) from error
    try:
        yield
    finally:
        ray.shutdown()
        renew_sigterm()


@contextmanager
def _loopback() -> Iterator[None]:
    """Have a Ray of our own listen on 127.0.0.1 alone; it would on every address, and run whatever it is sent.

    Ray's own switch, meant for systems whose firewall asks about every open port.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    os.environ[name] = "0"
    try:
        with _switched("ENABLE_RAY_CLUSTER"):
            yield
    finally:
        del os.environ[name]


@contextmanager
def _without_uv() -> Iterator[None]:
    """Have trials run in this process's environment also under ``uv run``, unless the user says otherwise.

    Ray would copy the working folder, and have uv make a new and empty environment for every process.
    """
    if "RAY_ENABLE_UV_RUN_RUNTIME_ENV" in os.environ:
        yield
        return
    with _switched("RAY_ENABLE_UV_RUN_RUNTIME_ENV"):
        yield


@contextmanager
def _switched(name: str) -> Iterator[None]:
    """A switch of Ray's off for as long as this lasts; it reads them as it is imported, which has happened."""
    before = getattr(ray_constants, name)
    setattr(ray_constants, name, False)
    try:
        yield
    finally:
        setattr(ray_constants, name, before)


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
