"""Opening a store: which one is in use, whether it can be, and what to do where it cannot."""

from __future__ import annotations

import logging
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import mlflow
from mlflow.entities import Experiment
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine

from ms_automl.callbacks.mlflow.address import absolute, database, public
from ms_automl.callbacks.mlflow.reasons import reason, remedy
from ms_automl.environment.variables import unless_set
from ms_automl.errors import TrackingError

SHORT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# MLflow's lines on the screen, two for every run of a server's, would be in the live table.
QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}


def opened(uri: str, *, writes: bool = True) -> MlflowClient:
    """A client of a store, which depends on nothing that the calling program has set.

    Args:
        uri: of the store.
        writes: whether the store is to be written.

    Raises:
        TrackingError: where it cannot be used.
    """
    # MLflow shows whole tracebacks of what is said here in a line.
    for name, level in (("mlflow", "WARNING"), ("alembic", "WARNING"), ("mlflow.store.db.utils", "CRITICAL")):
        logging.getLogger(name).setLevel(level)
    with understood(uri):
        # MLflow would try ten times, for more than a minute.
        file = database(uri)
        if file is not None:
            _examine(file, writes)
        elif uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES and not uri.startswith("sqlite"):
            with create_engine(uri).connect():
                pass
        return MlflowClient(uri)


@contextmanager
def understood(uri: str) -> Iterator[None]:
    """What a store answers becomes one line with a remedy; a server that is away is found out in seconds.

    Raises:
        TrackingError: for whatever is raised.
    """
    try:
        with short_timeouts():
            yield
    except TrackingError:
        raise
    except Exception as error:
        why = reason(error).rstrip(".")
        raise TrackingError(
            f"the MLflow store at {public(uri)} cannot be used: {why}. To go on, {remedy(uri, error)}"
        ) from error


def short_timeouts() -> AbstractContextManager[None]:
    """A server that is not there is found out in seconds, not minutes; what the user has set stays."""
    return unless_set(SHORT | QUIET)


def ensure_active(uri: str, experiment: Experiment) -> None:
    """Refuse an experiment that is deleted.

    Raises:
        TrackingError: with the command that restores it.
    """
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"the MLflow experiment '{experiment.name}' in the store at {public(uri)} is deleted. To go on, "
            f"restore it: MLFLOW_TRACKING_URI={shlex.quote(public(uri))} mlflow experiments restore -x "
            f"{experiment.experiment_id}"
        )


def tracking_uri(uri: str | None = None) -> str:
    """The store in use: the one named, else ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working folder."""
    return absolute(uri or mlflow.get_tracking_uri())


def how_to_see(uri: str) -> str:
    """The command, or the address, by which a store is looked at."""
    if uri.startswith("http"):
        return public(uri)
    if database(uri) == Path("mlflow.db").absolute():
        return "mlflow ui"
    return f"mlflow ui --backend-store-uri {shlex.quote(public(uri))}"


def _examine(file: Path, writes: bool) -> None:
    """Have SQLite say at once that there is no folder, no database, or no right to write."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not writes:
            return
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA user_version = {version}")  # a write, and none once it is taken back
        connection.execute("ROLLBACK")
