"""Stores: their addresses, whether they can be used, and what their errors mean and ask for."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from ms_automl.environment.process import unless_set
from ms_automl.errors import TrackingError

SQLITE = "sqlite:///"
PASSWORD = re.compile(r"(://)[^/\s@]*@|(?<=[?&])(password=)[^&\s]*")
SHORT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# MLflow's lines on the screen, two for every run of a server's, would be in the live table.
QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
LONGEST = 2000
"""Characters of a reason: a server may answer with a whole page."""
OTHER = "set MLFLOW_TRACKING_URI to another one"
OF_FILES = {
    "not a database|malformed": "move {file} away",
    "locked": "end the process that holds {file}",
    "full|No space": "make room on the disk of {file}",
    "readonly|unable to open|Permission|Read-only": "let {file} and its folder be written",
    "exists|directory": "make {file.parent} a folder",
}
"""What is found in an error of a database file, and what to do then."""
SILENT = "refused|timed out|timeout|Failed to resolve|unreachable|Connection aborted|reset by peer"
OF_SERVERS = {
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what it takes",
    403: "have its owner let you write there, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    404: "set MLFLOW_TRACKING_URI to the address of an MLflow server, with its path",
}
FINAL = {
    "CUSTOMER_UNAUTHORIZED",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
}
"""What a store says of a write that it will never take."""
BROKEN = "readonly database|disk image is malformed|not a database"
"""What SQLite says of a file that waiting does not mend."""
BUSY = {409, 429, 499, 503, 504}
"""HTTP statuses of what a store may take a little later."""


def public(text: str) -> str:
    """A store's address, or a text with addresses in it, without passwords."""
    return PASSWORD.sub(r"\1\2", text)


def database(uri: str) -> Path | None:
    """The file of an SQLite store, as it is written; None for any other store, and for one in memory."""
    if not uri.startswith("sqlite"):
        return None
    name = make_url(uri).database
    return None if name in (None, "", ":memory:") or name.startswith("file:") else Path(name)


def absolute(uri: str) -> str:
    """A store's address for any working folder: with the absolute path of a database file."""
    file = database(uri)
    _, mark, options = uri.partition("?")
    return uri if file is None else f"{sqlite(file.absolute())}{mark}{options}"


def sqlite(file: Path) -> str:
    """The address of a database file, from which SQLAlchemy reads just its path again."""
    plain = f"{SQLITE}{file}"
    if make_url(plain).database == str(file):
        return plain
    # With the driver's name: for `sqlite:///` MLflow makes the folder that is called as the quoted path, `100%25`.
    return f"sqlite+pysqlite:///{quote(str(file), safe='/ ')}"


def seen_from(uri: str, folder: Path) -> str:
    """A store as a record in a folder names it: without a password, a database file relative to the folder."""
    file = database(uri)
    if file is None:
        return public(uri)
    # Of folders below links '..' leads out of where they lie, not of where the link is.
    relative = os.path.relpath(file.absolute().parent.resolve() / file.name, folder.resolve())
    return sqlite(Path(relative))


def opened(uri: str, *, writes: bool = True) -> MlflowClient:
    """A client of a store, whatever the calling program has set; TrackingError where it cannot be used."""
    # MLflow shows whole tracebacks of what is said here in a line.
    for name, level in (("mlflow", "WARNING"), ("alembic", "WARNING"), ("mlflow.store.db.utils", "CRITICAL")):
        logging.getLogger(name).setLevel(level)
    with understood(uri):
        # MLflow would try ten times, for more than a minute.
        file = database(uri)
        if file is not None:
            _examine(file, writes)
        elif uri.startswith(tuple(DATABASE_ENGINES)):
            create_engine(uri).connect().close()
        return MlflowClient(uri)


@contextmanager
def understood(uri: str) -> Iterator[None]:
    """Whatever is raised becomes a TrackingError with a remedy; a server that is away is found out in seconds."""
    try:
        with short_timeouts():
            yield
    except TrackingError:
        raise
    except Exception as error:
        why = reason(error).rstrip(".")
        raise TrackingError(
            f"the MLflow store at {public(uri)} cannot be used: {why}. To go on, {_remedy(uri, error)}"
        ) from error


def short_timeouts() -> AbstractContextManager[None]:
    """A server that is not there is found out in seconds, not minutes; what the user has set stays."""
    return unless_set(SHORT | QUIET)


def ensure_active(uri: str, experiment: Experiment) -> None:
    """TrackingError for an experiment that is deleted, with the command that restores it."""
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


def reason(error: BaseException) -> str:
    """All that an error says, in one line, without passwords and without the SQL that failed."""
    text = re.split(r"\n\[SQL: |\n?\(Background on this error", str(error) or type(error).__name__)[0]
    line = public(" ".join(re.sub(r"\(raised as a result of [^)]*\)", "", text).split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def final(error: BaseException) -> bool:
    """Whether a store has said that it will never take a write."""
    refused = isinstance(error, MlflowException) and error.error_code in FINAL
    return refused or re.search(BROKEN, str(error)) is not None


def passing(error: BaseException) -> bool:
    """Whether an error is of a kind that comes and goes: a busy server, a lost connection."""
    if isinstance(error, MlflowException):
        busy = error.get_http_status_code() in BUSY  # type: ignore[no-untyped-call]
        return busy or "failed with exception" in str(error)
    return isinstance(error, ConnectionError | TimeoutError)


def http_status(uri: str) -> int:
    """The HTTP status by which a server answers what every MLflow server knows; 0 where it does not answer."""
    if not uri.startswith("http"):
        return 0
    # MLflow's errors do not have it where the server's answer is in a form of its own.
    search = "/api/2.0/mlflow/experiments/search"
    options = {"max_retries": 0, "params": {"max_results": 1}, "raise_on_status": False}
    try:
        credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
        return int(http_request(credentials, search, "GET", **options).status_code)  # type: ignore[no-untyped-call]
    except Exception:
        return 0


def _examine(file: Path, writes: bool) -> None:
    """Have SQLite say at once that there is no folder, no database, or no right to write."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if writes:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA user_version = {version}")  # a write, and none once it is taken back
            connection.execute("ROLLBACK")


def _remedy(uri: str, error: BaseException) -> str:
    """What to do so that a store can be used that raised an error."""
    message, file = str(error), database(uri)
    if found := re.search(r"database schema \(found version (\w+)", message):
        migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
        if any(migrations.glob(f"{found[1]}_*.py")):
            return f"copy the database, then: mlflow db upgrade {shlex.quote(public(uri))}"
        return f"install the MLflow that wrote it, or a newer one (this is {mlflow.__version__}), or {OTHER}"
    if file is not None:
        fitting = (remedy for words, remedy in OF_FILES.items() if re.search(words, message))
        return next((f"{remedy.format(file=file)}, or {OTHER}" for remedy in fitting), OTHER)
    if isinstance(error, ModuleNotFoundError):
        return f"install the package that has the module '{error.name}', or {OTHER}"
    if "maintenance mode" in message:
        return "set MLFLOW_TRACKING_URI=sqlite:///mlflow.db, or move the old mlruns folder away"
    if re.search(SILENT, message):
        return "start it, or set MLFLOW_TRACKING_URI to one that runs"
    status = http_status(uri)
    return f"look into the server's log, or {OTHER}" if status >= 500 else OF_SERVERS.get(status, OTHER)
